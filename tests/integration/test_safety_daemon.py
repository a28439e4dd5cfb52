# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a task through a real libvirtd may not lose: nothing is destroyed that was not looked at, whatever the daemon
remembers, sees or says, and a user of a volume is found wherever the volume is named.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.virt.storage.plugins.module_utils.engines.libvirt import LibvirtEngine
from ansible_collections.virt.storage.plugins.module_utils.host import peers

from . import daemon as private_daemon
from . import loops
from .crash_support import MIB, disk_file, disk_volume, done, image_info, qcow2, qemu_img, refused, unchanged
from .test_daemon_types import run

pytestmark = [
    pytest.mark.needs_ansible,
    pytest.mark.root,
    pytest.mark.libvirt_binding,
    pytest.mark.xdist_group("daemon"),
]

_CUT_OFF = b"QFI\xfb\0\0\0\3" + bytes(72)  # a qcow2 image of version 3 whose header should be longer


def commands(result) -> list[str]:
    return [command for entry in result["plan"] for command in entry["commands"]]


def redefine_elsewhere(host) -> Path:
    """As virsh pool-edit: the pool runs on host.images, and from the next start on will be where this says."""
    other = host.root / "other"
    other.mkdir()
    text = host.daemon.virsh("pool-dumpxml", host.name).replace(str(host.images), str(other))
    (host.root / "next.xml").write_text(text)
    host.daemon.virsh("pool-define", host.root / "next.xml")
    return other


def in_daemon(host, *argv) -> None:
    run("nsenter", "-t", host.daemon.pid, "-m", *argv)


@contextlib.contextmanager
def hidden(host, place: Path) -> Iterator[None]:
    """What is at ``place`` for the daemon is not what is there for us."""
    in_daemon(host, "mount", "-t", "tmpfs", "none", place)
    try:
        yield
    finally:
        in_daemon(host, "umount", place)


@contextlib.contextmanager
def ended(process: subprocess.Popen) -> Iterator[subprocess.Popen]:
    """A process that does not outlive the test."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def held_open(path: Path) -> Iterator[None]:
    with path.open("rb") as file, ended(subprocess.Popen(["sleep", "60"], stdin=file)):
        yield


def run_until(task, verb: str) -> None:
    """Runs the task in a process that is killed where it would have a call of the daemon made."""
    child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        return
    execute = LibvirtEngine.execute

    def dying(self, operation):
        if getattr(operation, "verb", "") == verb:
            os._exit(9)
        execute(self, operation)

    try:
        LibvirtEngine.execute = dying
        task()
    finally:
        os._exit(1)


# -- a definition that waits for the next start -------------------------------------------------------------------


def test_the_volume_that_is_deleted_is_looked_at_where_the_pool_runs(daemon_images):
    host = daemon_images
    other = redefine_elsewhere(host)
    (host.images / "disk").write_bytes(b"live" * 1024)
    (other / "disk").write_bytes(b"next" * 1024)
    host.daemon.virsh("pool-refresh", host.name)
    with held_open(host.images / "disk"):
        refused(host.volume(name="disk", state="absent"), "volume_in_use")
    assert (host.images / "disk").exists()


def test_a_volume_is_made_once_where_the_pool_runs(daemon_images):
    host = daemon_images
    other = redefine_elsewhere(host)
    done(host.volume(name="disk", capacity="1MiB"))
    assert (host.images / "disk").exists()
    assert not list(other.iterdir())
    unchanged(host.volume(name="disk", capacity="1MiB"))


def test_the_volumes_shown_are_those_where_the_pool_runs(daemon_images):
    host = daemon_images
    done(host.volume(name="disk", capacity="1MiB"))
    redefine_elsewhere(host)
    assert [volume["name"] for volume in host.volume_info(pool=host.name)] == ["disk"]


def test_overlays_are_found_where_a_neighbour_runs(daemon_images, tmp_path):
    host, bases = daemon_images, tmp_path / "bases"
    done(host.pool(name="bases", type="dir", path=str(bases)))
    done(host.volume(pool="bases", name="base", format="qcow2", capacity="1MiB"))
    done(host.volume(name="over", format="qcow2", backing={"path": str(bases / "base"), "format": "qcow2"}))
    redefine_elsewhere(host)
    refused(host.volume(pool="bases", name="base", state="absent"), "volume_backing")
    assert (bases / "base").exists()


@pytest.mark.parametrize("check", [True, False], ids=["check", "real"])
def test_the_directory_in_which_a_neighbour_runs_is_taken(daemon_images, check):
    host = daemon_images
    redefine_elsewhere(host)
    refused(host.pool(check, name="second", type="dir", path=str(host.images)), "source_conflict")


# -- what the daemon remembers of an image ------------------------------------------------------------------------


@pytest.fixture
def data(daemon_images) -> Path:
    """As much as makes a qcow2 image larger than its capacity: one that is cut to that is broken."""
    path = daemon_images.root / "data"
    path.write_bytes(os.urandom(4 * MIB))
    return path


def test_an_image_that_was_replaced_by_one_of_another_format_grows_as_what_it_is(daemon_images, data):
    host, path = daemon_images, daemon_images.images / "disk"
    done(host.volume(name="disk", capacity="1MiB"))
    path.unlink()
    qemu_img("convert", "-O", "qcow2", data, path)
    size = path.stat().st_size
    done(host.volume(name="disk", format="qcow2", capacity=4 * MIB + 65536))
    assert path.stat().st_size >= size
    assert image_info(path)["virtual-size"] == 4 * MIB + 65536
    qemu_img("check", path)


def test_what_was_made_anew_by_a_killed_task_is_shown_to_the_daemon_by_the_next(daemon_images, data):
    host, path = daemon_images, daemon_images.images / "disk"
    done(host.volume(name="disk", capacity="1MiB"))
    task = {"name": "disk", "format": "qcow2", "source": {"path": str(data)}, "recreate": "needed"}
    run_until(lambda: host.volume(**task), "pool-refresh")
    size = path.stat().st_size
    done(host.volume(**task))
    done(host.volume(name="disk", format="qcow2", capacity=4 * MIB + 65536))
    assert path.stat().st_size >= size
    qemu_img("check", path)


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_an_image_that_was_made_smaller_by_hand_grows_again(daemon_images, image_format):
    host = daemon_images
    done(host.volume(name="disk", format=image_format, capacity="4MiB"))
    qemu_img("resize", "-q", "--shrink", "-f", image_format, host.images / "disk", "1M")
    done(host.volume(name="disk", format=image_format, capacity="2MiB"))
    assert image_info(host.images / "disk")["virtual-size"] == 2 * MIB


# -- pools that only the daemon builds ----------------------------------------------------------------------------


def device_with(host, content: bytes) -> Path:
    host.root.mkdir()
    device = host.root / "device"
    device.write_bytes(content)
    return device


@contextlib.contextmanager
def attached(file: Path) -> Iterator[str]:
    """A loop device."""
    device = loops.attach(file)
    try:
        yield device
    finally:
        loops.detach(device)


def test_a_device_with_content_without_a_signature_is_not_formatted(daemon_host):
    host, content = daemon_host, b"precious" * MIB
    device = device_with(host, content)
    source = {"device": str(device), "format": "ext4"}
    refused(host.pool(name=host.name, type="fs", path=f"{host.root}/mnt", source=source), "storage_foreign")
    assert device.read_bytes() == content


def test_a_disk_with_content_without_a_signature_gets_no_label(daemon_host):
    host, content = daemon_host, b"precious" * MIB
    device = device_with(host, content)
    with attached(device) as loop:
        source = {"device": loop, "format": "gpt"}
        refused(host.pool(name=host.name, type="disk", path="/dev", source=source), "storage_foreign")
    assert device.read_bytes() == content


@pytest.mark.parametrize("check", [True, False], ids=["check", "real"])
def test_a_device_with_another_filesystem_is_formatted_only_when_that_is_allowed(daemon_host, check):
    host = daemon_host
    device = device_with(host, bytes(8 * MIB))
    run("mkfs.ext4", "-q", "-F", device)
    source = {"device": str(device), "format": "xfs"}
    params = {"name": host.name, "type": "fs", "path": f"{host.root}/mnt", "source": source}
    error = refused(host.pool(check, **params), "storage_foreign")
    assert "overwrite" in error["hint"], error


# -- which process is the daemon ----------------------------------------------------------------------------------

_FORWARD = """
import socket, sys, threading
here = socket.socket(socket.AF_UNIX); here.bind(sys.argv[1]); here.listen(8)
print(flush=True)
def pump(a, b):
    try:
        while data := a.recv(65536): b.sendall(data)
        b.shutdown(socket.SHUT_RDWR)
    except OSError: pass
while True:
    client, _ = here.accept()
    there = socket.socket(socket.AF_UNIX); there.connect(sys.argv[2])
    for pair in ((client, there), (there, client)): threading.Thread(target=pump, args=pair, daemon=True).start()
"""


@contextlib.contextmanager
def forwarded(host) -> Iterator[None]:
    """As through ssh -L SOCKET:/run/libvirt/libvirt-sock HOST."""
    there = Path(host.daemon.uri.partition("=")[2])
    here = there.with_name("forward")
    argv = [sys.executable, "-c", _FORWARD, str(here), str(there)]
    with ended(subprocess.Popen(argv, stdout=subprocess.PIPE)) as tunnel:
        assert tunnel.stdout is not None
        with tunnel.stdout:
            assert tunnel.stdout.readline() == b"\n"
            host.uri = f"qemu:///system?socket={here}"
            yield
    here.unlink()


def test_the_daemon_behind_a_forwarded_socket_is_not_the_one_of_this_host(daemon_host, monkeypatch, tmp_path):
    host, place = daemon_host, tmp_path / "pool"
    place.mkdir()
    name = peers._name
    with ended(subprocess.Popen(["sleep", "60"])) as local, hidden(host, place), forwarded(host):

        def renamed(pid):
            """The one of this host is another; the one that answers is on a host whose processes are not in /proc."""
            return "libvirtd" if pid == local.pid else name(pid).replace("libvirtd", "x")

        monkeypatch.setattr(peers, "_name", renamed)
        done(host.pool(name=host.name, type="dir", path=str(place)))
        made = done(host.volume(name="text", source={"content": "hello"}))
    assert any("vol-upload" in command for command in commands(made)), made["plan"]
    assert not (place / "text").exists()


def test_of_two_daemons_the_one_with_the_pools_is_found(daemon_images, monkeypatch):
    """As with virtqemud beside virtstoraged, or the libvirtd of a session; systemd listens for both."""
    host = daemon_images
    done(host.volume(name="disk", capacity="1MiB"))
    names = {host.daemon.pid: "virtstoraged", os.getpid(): "virtqemud"}
    monkeypatch.setattr(peers, "listener", lambda path: 1)
    monkeypatch.setattr(peers, "_name", lambda pid: names.get(pid, "x"))
    with held_open(host.images / "disk"):
        refused(host.volume(name="disk", state="absent"), "volume_in_use")


_ACTIVATE = """
import os, select, socket, sys, time
here = socket.socket(socket.AF_UNIX); here.bind(sys.argv[1]); here.listen(8)
select.select([here], [], [])
os.dup2(here.fileno(), 3)
os.set_inheritable(3, True)
time.sleep(0.2)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="libvirtd.socket")
os.execvp("libvirtd", ["libvirtd", "-f", sys.argv[2], "-p", sys.argv[3]])
"""


@contextlib.contextmanager
def asleep(daemon, monkeypatch) -> Iterator[None]:
    """As with systemd's libvirtd.socket: somebody listens, and the daemon comes with the first connection."""
    daemon.stop()
    socket = Path(daemon.uri.partition("=")[2])
    socket.unlink(missing_ok=True)
    arguments = f'"{socket}" "{socket.with_name("libvirtd.conf")}" "{socket.with_name("pid2")}"'
    start = private_daemon._START.partition("libvirtd -f")[0] + f'"{sys.executable}" -c "$PROGRAM" {arguments}'
    argv = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", start, "libvirtd"]
    argv += [str(daemon.files), str(socket.parent), *private_daemon._PRIVATE]
    environment = {**os.environ, "PROGRAM": _ACTIVATE}
    name = peers._name
    try:
        with ended(subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL)) as process:
            monkeypatch.setattr(peers, "_name", lambda pid: name(pid) if pid == process.pid else "x")
            deadline = time.monotonic() + 20
            while not socket.exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield
    finally:
        socket.unlink(missing_ok=True)
        daemon.start()


def test_a_daemon_that_the_first_connection_starts_is_found_by_that(daemon_images, monkeypatch):
    host = daemon_images
    with asleep(host.daemon, monkeypatch):
        first = host.volume(name="a", check=True, source={"content": "hello"})
        second = host.volume(name="a", check=True, source={"content": "hello"})
    assert commands(done(first)) == commands(done(second))


# -- files that only the daemon sees ------------------------------------------------------------------------------


def test_overlays_in_a_pool_that_only_the_daemon_sees_are_found(daemon_images, tmp_path):
    host, over = daemon_images, tmp_path / "over"
    over.mkdir()
    done(host.volume(name="base", format="qcow2", capacity="1MiB"))
    with hidden(host, over):
        host.daemon.virsh("pool-create-as", "overs", "dir", "--target", over)
        backing = ["--backing-vol", host.images / "base", "--backing-vol-format", "qcow2"]
        host.daemon.virsh("vol-create-as", "overs", "o", "1M", "--format", "qcow2", *backing)
        refused(host.volume(name="base", state="absent"), "volume_backing")


# -- files that the daemon can't read -----------------------------------------------------------------------------


def test_a_pool_that_a_cut_off_image_stops_says_so_until_it_is_gone(daemon_images):
    host = daemon_images
    (host.images / "bad").write_bytes(_CUT_OFF)
    unread = f"it can't read bad in {host.images}: cut-off qcow2 images"
    failed = host.volume(name="hello", source={"content": "hello"})
    assert failed["error"]["code"] == "daemon_failed", failed
    assert f"has stopped pool {host.name}" in failed["msg"], failed["msg"]
    assert unread in failed["msg"], failed["msg"]
    assert host.daemon.pools() == []
    again = host.pool(name=host.name)
    assert again["error"]["code"] == "daemon_failed", again
    assert unread in again["msg"], again["msg"]
    assert "exit status" not in again["msg"], again["msg"]
    assert "Move them away" in again["error"]["hint"], again["error"]
    (host.images / "bad").unlink()
    done(host.pool(name=host.name))


def test_a_name_that_is_no_text_is_no_hindrance(daemon_images):
    host = daemon_images
    Path(os.fsdecode(os.fsencode(host.images) + b"/\xff")).touch()
    host.daemon.virsh("pool-refresh", host.name)
    done(host.volume(name="disk", capacity="1MiB"))


def test_a_name_that_the_daemon_never_lists_is_not_shown_to_it_again_and_again(daemon_images):
    host = daemon_images
    (host.images / "a\x01b").write_bytes(bytes(512))
    task = {"volumes": [{"name": "a", "capacity": 4096}], "exclusive": "x*"}
    done(host.volume(**task))
    unchanged(host.volume(**task))


# -- who uses a volume --------------------------------------------------------------------------------------------

_GUEST = """<domain type='qemu'><name>guest</name><memory unit='MiB'>64</memory>{more}
<os><type arch='x86_64'>hvm</type></os><devices>{devices}</devices></domain>"""
_QEMU_CONF = """
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
stdio_handler = "file"
"""


@pytest.fixture(scope="module")
def _qemu_as_root(session_daemon) -> Iterator[None]:
    """With a user who may not open /dev/kvm the daemon's QEMU driver asks QEMU for its capabilities whenever a guest is
    defined, which can take half a minute; so it asks once. And guests start without what a host has for them.
    """
    conf = session_daemon.files / "etc/libvirt/qemu.conf"
    conf.write_text(_QEMU_CONF)
    session_daemon.restart()
    yield
    conf.unlink()
    session_daemon.restart()


@pytest.fixture
def guest(_qemu_as_root, daemon_images):
    """Defines the guest of a test, which is undefined after it."""
    virsh, defined = daemon_images.daemon.virsh, []

    def define(devices: str, more: str = "") -> str:
        path = daemon_images.root / "guest.xml"
        path.write_text(_GUEST.format(devices=devices, more=more))
        virsh("define", path)
        defined.append("guest")
        return "guest"

    yield define
    for name in defined:
        virsh("undefine", name)


@pytest.fixture
def disk(daemon_images) -> Path:
    """A volume that somebody uses."""
    done(daemon_images.volume(name="disk", format="qcow2", capacity="1MiB"))
    return daemon_images.images / "disk"


def delete(host):
    return host.volume(name="disk", state="absent", check=True)


@pytest.mark.thorough
def test_a_guest_whose_definition_is_too_large_to_be_read_is_told_of(daemon_images, disk, guest):
    guest(disk_file(disk), f"<metadata><a:a xmlns:a='urn:a'>{'<a:b/>' * 200_000}</a:a></metadata>")
    (warning,) = done(delete(daemon_images))["warnings"]
    assert "could not look at the definition of a guest" in warning


def test_a_guest_on_an_overlay_that_is_in_no_pool(daemon_images, disk, guest):
    over = qcow2(daemon_images.root / "over", "1M", "-b", disk, "-F", "qcow2")
    guest(disk_file(over))
    refused(delete(daemon_images), "volume_in_use")


@pytest.mark.thorough
def test_a_guest_that_names_the_volume_by_another_pool(daemon_images, disk, guest):
    (daemon_images.root / "link").symlink_to(daemon_images.images)
    daemon_images.daemon.virsh("pool-create-as", "twin", "dir", "--target", daemon_images.root / "link")
    guest(disk_volume("twin", "disk"))
    refused(delete(daemon_images), "volume_in_use")


def test_a_guest_with_the_volume_as_nvdimm(daemon_images, guest):
    done(daemon_images.volume(name="disk", capacity="256MiB"))
    more = "<maxMemory slots='4' unit='MiB'>1024</maxMemory><vcpu>1</vcpu>"
    more += "<cpu><numa><cell id='0' cpus='0' memory='64' unit='MiB'/></numa></cpu>"
    nvdimm = f"<memory model='nvdimm'><source><path>{daemon_images.images}/disk</path></source>"
    guest(nvdimm + "<target><size unit='MiB'>256</size><node>0</node></target></memory>", more)
    refused(delete(daemon_images), "volume_in_use")


@pytest.mark.thorough
def test_a_running_guest_that_gets_the_volume_with_its_next_start(daemon_images, disk, guest):
    virsh, name = daemon_images.daemon.virsh, guest("")
    virsh("start", name, "--paused")
    try:
        (daemon_images.root / "new.xml").write_text(disk_file(disk))
        virsh("attach-device", name, daemon_images.root / "new.xml", "--config")
        refused(delete(daemon_images), "volume_in_use")
    finally:
        virsh("destroy", name)


# -- what nobody declared -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["images", "daemon_images"])
def test_permissions_that_nobody_declared_are_left_alone(request, engine):
    host = request.getfixturevalue(engine)
    host.images.chmod(0o755)
    os.chown(host.images, 65534, 65534)
    unchanged(host.pool(name=host.name, type="dir", path=str(host.images)))
    assert host.images.stat().st_uid == 65534


def test_permissions_that_nobody_declared_are_not_what_they_were_at_the_last_start(daemon_images):
    host = daemon_images
    done(host.pool(name=host.name, state="inactive"))
    host.images.chmod(0o755)
    done(host.pool(name=host.name))
    assert host.images.stat().st_mode & 0o777 == 0o755


# -- what is shown ------------------------------------------------------------------------------------------------


def test_a_password_in_the_uri_is_not_shown(daemon_host):
    host = daemon_host
    host.uri = "qemu+tcp://user:hunter2secret@127.0.0.1:1/system"
    failed = host.pool(name="x", type="dir", path="/nowhere/x")
    assert failed["failed"]
    assert "hunter2secret" not in str({key: value for key, value in failed.items() if key != "invocation"})
