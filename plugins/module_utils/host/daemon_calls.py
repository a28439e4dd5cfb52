# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""The calls that change something, each by the name that virsh has for it (libvirt-storage and libvirt-secret API).
What a call is to do is a DaemonCall or a SecretCall (model/daemon_calls.py).
"""

from __future__ import annotations

import io
from typing import Any, Callable

from ..model.errors import StorageError
from ..model.units import listed
from .identity import changed_meanwhile


def _pool(connection: Any, op: Any) -> Any:
    return connection.storagePoolLookupByName(op.pool)


def _volume(connection: Any, op: Any) -> Any:
    return _pool(connection, op).storageVolLookupByName(op.volume)


def _start(library: Any, connection: Any, op: Any) -> None:
    """Starts what is there; where the daemon starts pools on nothing too, that is what has a size (``sized``). What is
    not is built first; what holds something else is overwritten only where the daemon has said that nothing less will
    do, and only if that is allowed.
    """
    pool = _pool(connection, op)
    try:
        if "first" in op.words:
            pool.build(0)
        pool.create(0)
        if "sized" not in op.words or pool.info()[1] > 0:
            return
        pool.destroy()
        if "build" not in op.words:
            raise StorageError(
                "source_missing",
                f"pool {op.pool} has nothing to start",
                subject=f"pool {op.pool}",
                hint="Make it, or let the task do so (build: auto).",
                command=op.command,
            )
    except library.libvirtError:
        if not {"build", "directory"} & set(op.words):
            raise
    _build(library, pool, op)
    pool.create(0)


def _build(library: Any, pool: Any, op: Any) -> None:
    if "directory" in op.words:
        pool.build(0)  # of a filesystem: only where to mount it
        return
    try:
        pool.build(library.VIR_STORAGE_POOL_BUILD_NO_OVERWRITE)
    except library.libvirtError as error:
        code = error.get_error_code()
        if code == library.VIR_ERR_STORAGE_POOL_BUILT:
            if "overwrite" in str(error):  # it holds something else; otherwise it is built already
                if "overwrite" not in op.words:
                    raise
                pool.build(library.VIR_STORAGE_POOL_BUILD_OVERWRITE)
        elif code in (library.VIR_ERR_INVALID_ARG, library.VIR_ERR_OPERATION_INVALID):
            pool.build(0)  # types that know no such flag
        elif code != library.VIR_ERR_NO_SUPPORT:
            raise


def _upload(library: Any, connection: Any, op: Any) -> None:
    """What can't be uploaded whole does not stay: it would be taken for the volume."""
    volume, stream = _volume(connection, op), connection.newStream()
    try:
        with io.BytesIO(op.data) if isinstance(op.data, bytes) else open(op.data, "rb") as source:
            volume.upload(stream, 0, 0, 0)
            stream.sendAll(lambda to, count, file: file.read(count), source)
            stream.finish()
    except Exception:
        _withdraw(library, volume, stream)
        raise


def _withdraw(library: Any, volume: Any, stream: Any) -> None:
    for undo in (stream.abort, volume.delete):
        try:
            undo()
        except library.libvirtError:
            continue


def _create(library: Any, connection: Any, op: Any) -> None:
    flags = library.VIR_STORAGE_VOL_CREATE_PREALLOC_METADATA if "--prealloc-metadata" in op.words else 0
    _pool(connection, op).createXML(op.xml, flags)


def _resize(library: Any, connection: Any, op: Any) -> None:
    volume = _volume(connection, op)
    volume.info()  # so that the daemon looks at it: otherwise it holds the size against what it remembers
    volume.resize(op.value, library.VIR_STORAGE_VOL_RESIZE_SHRINK if "--shrink" in op.words else 0)


def _refresh(library: Any, connection: Any, op: Any) -> None:
    """The daemon remembers what it saw; what was made since then by others would be lost unseen."""
    pool = _pool(connection, op)
    pool.refresh(0)
    if op.sought:
        _check_sought(pool, op)
    if op.holds is None:
        return
    names, most = op.holds
    strange = sorted(set(pool.listVolumes()) - set(names))
    if strange:
        raise changed_meanwhile(f"pool {op.pool}", f"turned out to hold {listed(strange)}")
    if most is not None and pool.info()[2] > most:
        raise changed_meanwhile(f"pool {op.pool}", "turned out to hold more than its daemon lists")


def _check_sought(pool: Any, op: Any) -> None:
    from .scanning import check_sought

    listed = set(pool.listVolumes())
    for wanted in op.sought:
        size = pool.storageVolLookupByName(wanted.name).info()[1] if wanted.name in listed else None
        check_sought(wanted, f"pool {op.pool}", size)


CALLS: dict[str, Callable[[Any, Any, Any], object]] = {
    "pool-define": lambda library, connection, op: connection.storagePoolDefineXML(op.xml, 0),
    "pool-build": lambda library, connection, op: _pool(connection, op).build(0),
    "pool-start": _start,
    "pool-destroy": lambda library, connection, op: _pool(connection, op).destroy(),
    "pool-delete": lambda library, connection, op: _pool(connection, op).delete(0),
    "pool-undefine": lambda library, connection, op: _pool(connection, op).undefine(),
    "pool-autostart": lambda library, connection, op: _pool(connection, op).setAutostart(
        0 if "--disable" in op.words else 1
    ),
    "pool-refresh": _refresh,
    "vol-create": _create,
    "vol-create-from": lambda library, connection, op: _pool(connection, op).createXMLFrom(
        op.xml, _volume(connection, op), 0
    ),
    "vol-upload": _upload,
    "vol-resize": _resize,
    "vol-delete": lambda library, connection, op: _volume(connection, op).delete(0),
    "secret-define": lambda library, connection, op: connection.secretDefineXML(op.xml, 0),
    "secret-set-value": lambda library, connection, op: connection.secretLookupByUUIDString(op.uuid).setValue(
        op.value.data, 0
    ),
    "secret-undefine": lambda library, connection, op: connection.secretLookupByUUIDString(op.uuid).undefine(),
}
