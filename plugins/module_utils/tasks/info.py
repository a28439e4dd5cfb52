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

from ..declare.names import asked_name, asked_path, checked_uuid
from ..engines.select import engine_for
from ..libvirt_xml.pool import render_pool, without_secrets
from ..model.errors import StorageError
from ..model.found import Found
from ..model.goal import Scope
from ..model.pool import Pool
from ..report.records import POOL_FIELDS, VOLUME_FIELDS, pool_record, volume_record
from .outcome import described, not_readable, watched

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


def _asked(params: dict[str, Any], **names: str) -> dict[str, Any]:
    """The parameters, with what is asked for in the form of records. ``names``: of what each option is a name. Raises
    StorageError for what nothing can have; what is not there is no error, nor worth a warning.
    """
    for option, kind in names.items():
        if params[option] is not None:
            asked_name(params[option], kind)
    uuid = params.get("uuid")
    return params if uuid is None else {**params, "uuid": checked_uuid(uuid)}


def _only(record: dict[str, Any], fields: Any) -> dict[str, Any]:
    return record if not fields else {name: record[name] for name in ("name", *fields) if name in record}


# --- pools -----------------------------------------------------------------------------------------------------------


def run_pools(module: AnsibleModule) -> None:
    params = _asked(module.params, name="pool")
    if params["path"] is not None:
        asked_path(params["path"])
    engine = _engine(module, _OF_POOLS)
    pattern = params["name"] or "*"
    records = [_pool(engine, name, params) for name in engine.pool_names() if fnmatch.fnmatchcase(name, pattern)]
    wanted = [record for record in records if _pool_matches(engine, record, params)]
    module.exit_json(
        changed=False, pools=[_only(record, params["fields"]) for record in wanted], engine=described(engine)
    )


def _pool_matches(engine: Any, record: dict[str, Any], params: dict[str, Any]) -> bool:
    if params["uuid"] is not None and record.get("uuid") != params["uuid"]:
        return False
    if params["path"] is None:
        return True
    path = record.get("path")
    return path is not None and _same_path(engine, path, params["path"])


def _same_path(engine: Any, path: str, asked: str) -> bool:
    """Symbolic links are followed, but nobody who may be dead is asked. Network volumes have no place here."""
    if path == asked:
        return True
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
            pool = found.definition or found.live or Pool(name)
            record["xml"] = without_secrets(render_pool(pool, found.definition_text))
    except (StorageError, OSError) as error:
        why = not_readable(error) if isinstance(error, OSError) else error
        return {"name": name, "state": "unknown", "error": why.as_dict()}
    return record


# --- volumes ---------------------------------------------------------------------------------------------------------


def run_volumes(module: AnsibleModule) -> None:
    params = _asked(module.params, pool="pool", name="volume")
    engine = _engine(module, _OF_VOLUMES)
    if params["path"] is not None:
        asked_path(params["path"], network=engine.name != "native")
    records: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for name in _pools_asked(engine, params):
        try:
            records += _volumes(engine, name, params)
        except (StorageError, OSError) as error:
            if params["pool"] is not None:
                raise
            why = not_readable(error) if isinstance(error, OSError) else error
            errors.append({"pool": name, **why.as_dict()})
    module.exit_json(changed=False, volumes=records, errors=errors, engine=described(engine))


def _pools_asked(engine: Any, params: dict[str, Any]) -> list[str]:
    names: list[str] = engine.pool_names()
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
