# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""What storage_pool_info and storage_volume_info do: look, and never change anything."""

from __future__ import annotations

import fnmatch
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..engines.select import engine_for
from ..libvirt_xml.pool import render_pool
from ..model.errors import StorageError
from ..model.found import Found
from ..model.goal import Scope
from ..model.pool import Pool
from ..report.records import POOL_FIELDS, VOLUME_FIELDS, pool_record, volume_record
from .outcome import described, watched

_OF_POOLS = (*POOL_FIELDS, "volumes", "xml")
_OF_VOLUMES = ("pool", *VOLUME_FIELDS, "xml")


def _engine(module: AnsibleModule, known: tuple[str, ...]) -> Any:
    """The engine to look through. Raises ``invalid_option`` where fields are asked for that no record has."""
    strange = [name for name in module.params["fields"] or () if name not in known]
    if strange:
        raise StorageError(
            "invalid_option",
            f"fields: records have no {', '.join(strange)}",
            hint=f"Give some of: {', '.join(known)}.",
        )
    return watched(module, engine_for(module.params["uri"], (), module.params["timeout"], reading=True))


def _only(record: dict[str, Any], fields: Any) -> dict[str, Any]:
    return record if not fields else {name: record[name] for name in ("name", *fields) if name in record}


# --- pools -----------------------------------------------------------------------------------------------------------


def run_pools(module: AnsibleModule) -> None:
    params, engine = module.params, _engine(module, _OF_POOLS)
    pattern = params["name"] or "*"
    records = [_pool(engine, name, params) for name in engine.pool_names() if fnmatch.fnmatchcase(name, pattern)]
    wanted = [record for record in records if _pool_matches(engine, record, params)]
    module.exit_json(
        changed=False, pools=[_only(record, params["fields"]) for record in wanted], engine=described(engine)
    )


def _pool_matches(engine: Any, record: dict[str, Any], params: dict[str, Any]) -> bool:
    if params["uuid"] is not None and record.get("uuid") != params["uuid"].strip().lower():
        return False
    if params["path"] is None:
        return True
    path = record.get("path")
    return path is not None and _same_path(engine, path, params["path"])


def _same_path(engine: Any, path: str, asked: str) -> bool:
    """Symbolic links are followed, but nobody who may be dead is asked."""
    resolved = engine.host.servers.resolved
    return bool(resolved(path) == resolved(os.path.abspath(asked)))


def _pool(engine: Any, name: str, params: dict[str, Any]) -> dict[str, Any]:
    """One pool; one that can't be read is a record with the state unknown."""
    depth = params["volumes"]
    scope = Scope(Pool(name), volumes=() if depth == "none" else None, headers=depth == "full")
    try:
        found = engine.observe(scope)
        record = pool_record(found)
        if depth != "none":
            volumes = sorted(found.volumes.values(), key=lambda volume: volume.name)
            shown = volumes if found.active else []
            record["volumes"] = [v.name if depth == "names" else volume_record(v, found.unlisted) for v in shown]
        if params["xml"]:
            record["xml"] = render_pool(found.definition or found.live or Pool(name), found.definition_text)
    except StorageError as error:
        return {"name": name, "state": "unknown", "error": error.as_dict()}
    return record


# --- volumes ---------------------------------------------------------------------------------------------------------


def run_volumes(module: AnsibleModule) -> None:
    params, engine = module.params, _engine(module, _OF_VOLUMES)
    records: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for name in _pools_asked(module, engine, params):
        try:
            records += _volumes(engine, name, params)
        except StorageError as error:
            if params["pool"] is not None:
                raise
            errors.append({"pool": name, **error.as_dict()})
    module.exit_json(changed=False, volumes=records, errors=errors, engine=described(engine))


def _pools_asked(module: AnsibleModule, engine: Any, params: dict[str, Any]) -> list[str]:
    names = engine.pool_names()
    if params["pool"] is not None and params["pool"] not in names:
        module.warn(f"there is no pool {params['pool']} here")
    return names if params["pool"] is None else [name for name in names if name == params["pool"]]


def _volumes(engine: Any, pool: str, params: dict[str, Any]) -> list[dict[str, Any]]:
    found = engine.observe(Scope(Pool(pool), volumes=_names_asked(params)))
    if found.unreadable is not None:
        raise found.unreadable
    if not found.active:
        return []
    pattern = params["name"] or "*"
    records = []
    for volume in sorted(found.volumes.values(), key=lambda volume: volume.name):
        if volume.foreign or not fnmatch.fnmatchcase(volume.name, pattern):
            continue
        if params["path"] is not None and not _same_path(engine, volume.path or "", params["path"]):
            continue
        record = {"pool": pool, **volume_record(volume, found.unlisted)}
        if params["xml"]:
            record["xml"] = _volume_xml(volume, found)
        records.append(_only(record, params["fields"]))
    return records


def _names_asked(params: dict[str, Any]) -> tuple[str, ...] | None:
    """A plain name or path needs no listing of the whole pool."""
    name = params["name"]
    if name is not None and not any(character in name for character in "*?["):
        return (name,) if "/" not in name and name not in (".", "..") else ()
    return None


def _volume_xml(volume: Any, found: Found) -> str | None:
    from ..libvirt_xml.volume import render_found_volume

    try:
        return render_found_volume(volume, found.definition or found.live or Pool(found.name))
    except StorageError as error:
        if error.code != "invalid_xml":
            raise
        return None  # its name holds what XML can't
