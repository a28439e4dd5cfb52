# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a real daemon writes and shows against what we do: where its drivers count, and where it looks at files."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ansible_collections.virt.storage.plugins.module_utils.libvirt_xml.pool import parse_pool, render_pool
from ansible_collections.virt.storage.plugins.module_utils.libvirt_xml.volume import parse_found_volume
from ansible_collections.virt.storage.plugins.module_utils.report.records import volume_record

from .conftest import Host
from .daemon import Daemon
from .xml_cases import has_binding, judge, pools

pytestmark = [
    pytest.mark.needs_ansible,
    pytest.mark.root,
    pytest.mark.xdist_group("daemon"),
    pytest.mark.skipif(not has_binding(), reason="libvirt's Python binding is not installed"),
]

_NO_BACKEND = re.compile("missing backend|does not support|no storage backend", re.IGNORECASE)


def test_definitions_of_all_types(daemon: Daemon) -> None:
    """With the namespaces that only the daemon's drivers know."""
    judged = judge(pools(15), daemon.uri)
    taken = {one.case.kind for one in judged if one.shown}
    assert {"dir", "fs", "netfs", "logical", "disk"} <= taken
    for case, shown, refused in judged:
        if refused:
            assert case.kind not in taken, (case, refused)
            assert _NO_BACKEND.search(refused), refused
        else:
            assert render_pool(parse_pool(case.pool)) == shown, case
    assert any("<fs:option name=" in one.shown for one in judged)


def _qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", *map(str, words)], check=True, capture_output=True, timeout=60)


def _fill(directory: Path) -> None:
    _qemu_img("-f", "qcow2", directory / "new", "1M")
    _qemu_img("-f", "qcow2", "-o", "compat=0.10", directory / "old", "1M")
    options = "lazy_refcounts=on,extended_l2=on,cluster_size=32K"
    _qemu_img("-f", "qcow2", "-o", options, directory / "features", "1M")
    _qemu_img("-f", "qcow2", "-F", "qcow2", "-b", "new", directory / "overlay", "2M")
    _qemu_img("-u", "-f", "qcow2", "-F", "qcow2", "-b", "gone", directory / "orphan", "2M")
    _qemu_img("-u", "-f", "qcow2", "-F", "raw", "-b", "nbd://192.0.2.1/x", directory / "remote", "2M")
    for name in ("vmdk", "vdi", "vpc", "qed"):
        _qemu_img("-f", name, directory / name, "1M")
    (directory / "luks").write_bytes(b"LUKS\xba\xbe\0\1" + bytes(96) + (8).to_bytes(4, "big") + bytes(8084))
    (directory / "raw & <co>").write_bytes(b"x" * 5000)
    (directory / "sparse").touch()
    os.truncate(directory / "sparse", 2**20)
    (directory / "empty").touch(0o604)
    (directory / "setuid").touch()
    (directory / "setuid").chmod(0o4755)
    (directory / "directory").mkdir(0o1777)
    os.chown(directory / "empty", 12, 34)
    os.utime(directory / "sparse", ns=(1, 1_577_836_800_000_000_001))
    os.utime(directory / "old", ns=(10**18, -1_500_000_000))


def test_volumes_are_shown_and_found_alike(daemon: Daemon, tmp_path: Path) -> None:
    directory = tmp_path / "images"
    directory.mkdir()
    _fill(directory)
    daemon.virsh("pool-create-as", "images", "dir", "--target", directory)
    native = Host(tmp_path / "native")
    native.pool(name="images", type="dir", path=str(directory))
    records = {record["name"]: record for record in native.volume_info(pool="images", xml=True)}
    assert len(records) == len(os.listdir(directory))
    for name, record in records.items():
        shown = daemon.virsh("vol-dumpxml", "--pool", "images", name)
        assert _settled(record.pop("xml")) == _settled(shown), name
        found = volume_record(parse_found_volume(shown))
        for one in (record, found):
            del one["timestamps"]["atime"]  # looking at an image reads it
        assert {"pool": "images", **found} == _as_a_daemon_sees_it(record), name


def _settled(text: str) -> str:
    """Without when it was last read, which looking changes, and what is shown of the backing file itself."""
    root = ElementTree.fromstring(text)
    for path, gone in (("target/timestamps", "atime"), ("backingStore", "timestamps"), ("backingStore", "permissions")):
        for parent in root.findall(path):
            for child in parent.findall(gone):
                parent.remove(child)
    return ElementTree.canonicalize(ElementTree.tostring(root, encoding="unicode"), strip_text=True)


def _as_a_daemon_sees_it(record: dict) -> dict:
    """It shows nine bits of a mode, and of what is no local file no format."""
    if "backing" in record and not record["backing"]["path"].startswith("/"):
        record["backing"].pop("format")
    return {**record, "mode": f"0{int(record['mode'], 8) & 0o777:03o}"}
