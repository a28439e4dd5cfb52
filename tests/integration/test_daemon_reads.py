# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real libvirt daemon picks up what the native engine wrote: in a mount namespace of its own, on its own sockets."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = [
    pytest.mark.needs_ansible,
    pytest.mark.root,
    pytest.mark.xdist_group("daemon"),
    pytest.mark.skipif(shutil.which("libvirtd") is None, reason="libvirtd is not installed"),
]

# $1: root of the engine, $2: working directory, the rest: what to ask virsh, one command a word.
_ASK = """
set -e
root=$1 work=$2; shift 2
mount --make-rprivate /
mkdir -p /etc/libvirt /run/libvirt "$work/run"
for place in /etc/libvirt /run/libvirt; do
    mount -t tmpfs tmpfs "$place"
    mkdir -p "$place/storage" "$root$place/storage"
    mount --bind "$root$place/storage" "$place/storage"
done
printf '%s\\n' "unix_sock_dir = \\"$work/run\\"" 'auth_unix_rw = "none"' 'auth_unix_ro = "none"' > "$work/libvirtd.conf"
timeout 60 libvirtd -f "$work/libvirtd.conf" -p "$work/pid" > "$work/log" 2>&1 < /dev/null &
daemon=$!
trap 'kill $daemon' EXIT
uri="storage:///system?socket=$work/run/libvirt-sock"
for try in $(seq 100); do
    virsh -q -c "$uri" pool-list > "$work/list" 2>&1 && break
    sleep 0.1
done
for command in "$@"; do virsh -q -c "$uri" $command; echo ----; done
"""


@pytest.fixture
def ask(images, tmp_path_factory):
    """Runs virsh commands against a daemon that starts on the engine's files; their outputs."""

    def run(*commands: str) -> list[str]:
        work = tmp_path_factory.mktemp("d")
        argv = ["unshare", "-m", "bash", "-c", _ASK, "ask", str(images.root), str(work), *commands]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stderr
        return [part.strip() for part in done.stdout.split("----\n")[:-1]]

    return run


def _pairs(text: str) -> dict[str, str]:
    return {name.strip(): value.strip() for name, _colon, value in (line.partition(":") for line in text.splitlines())}


def test_a_pool_is_taken_over_with_its_uuid_and_autostart(images, ask):
    made = images.pool(name="images", autostart=True, mode="0711")
    (told,) = ask("pool-info images")
    info = _pairs(told)
    assert info["UUID"] == made["pool"]["uuid"]
    assert info["State"] == "running"
    assert info["Autostart"] == "yes"
    assert info["Persistent"] == "yes"


def test_the_daemon_prints_the_definition_as_it_was_written(images, ask):
    images.pool(
        name="shared",
        type="netfs",
        path="/mnt/shared",
        source={"host": "nas1", "dir": "/vm", "format": "nfs"},
        mount_options=["vers=4.2"],
        state="present",
    )
    for name, dumped in zip(
        ("images", "shared"), ask("pool-dumpxml --inactive images", "pool-dumpxml --inactive shared")
    ):
        written = (images.root / "etc/libvirt/storage" / f"{name}.xml").read_text()
        assert written.split("-->\n\n")[1].strip() == dumped


def test_volumes_are_the_same(images, ask):
    Path(images.root, "big.img").write_bytes(b"\1" * 3_000_000)
    images.volume(
        volumes=[
            {"name": "raw", "capacity": "1000001"},
            {"name": "part", "capacity": "4MiB", "allocation": "1MiB"},
            {"name": "base", "format": "qcow2", "source": {"path": f"{images.root}/big.img"}},
            {"name": "over", "format": "qcow2", "backing": "base", "capacity": "10MiB"},
        ]
    )
    records = images.volume_info(pool="images", xml=True)
    assert len(records) == 4
    answers = ask(*(f"vol-dumpxml --pool images {record['name']}" for record in records))
    for record, dumped in zip(records, answers):
        assert _without_times(record["xml"]) == _without_times(dumped)


def _without_times(text: str) -> str:
    """Times differ since reading changes them, and the daemon adds the permissions of the backing file."""
    root = ElementTree.fromstring(text)
    for path, gone in (("target", "timestamps"), ("backingStore", "timestamps"), ("backingStore", "permissions")):
        parent = root.find(path)
        child = None if parent is None else parent.find(gone)
        if child is not None:
            parent.remove(child)
    return ElementTree.canonicalize(ElementTree.tostring(root, encoding="unicode"), strip_text=True)
