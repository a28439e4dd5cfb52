# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a hostile tester found in the libvirt engine, worst first: each test says what should be, and fails."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import daemon as private_daemon

pytestmark = [
    pytest.mark.needs_ansible,
    pytest.mark.root,
    pytest.mark.libvirt_binding,
    pytest.mark.xdist_group("daemon"),
]
_ENGINE = "ansible_collections.virt.storage.plugins.module_utils"
MIB = 1 << 20


def commands(result) -> list[str]:
    return [command for entry in result["plan"] for command in entry["commands"]]


def redefine_elsewhere(host, other: Path) -> None:
    """As virsh pool-edit: the pool runs on host.images, and will be at ``other`` from the next start on."""
    other.mkdir()
    text = host.daemon.virsh("pool-dumpxml", host.name).replace(str(host.images), str(other))
    (host.root / "next.xml").write_text(text)
    host.daemon.virsh("pool-define", host.root / "next.xml")


def in_daemon(host, *argv) -> None:
    subprocess.run(["nsenter", "-t", str(host.daemon.pid), "-m", *map(str, argv)], check=True, timeout=20)


def qemu_img(*argv) -> str:
    return subprocess.run(["qemu-img", *map(str, argv)], check=True, capture_output=True, text=True, timeout=60).stdout


@contextlib.contextmanager
def held_open(path: Path) -> Iterator[None]:
    with path.open("rb") as file:
        process = subprocess.Popen(["sleep", "60"], stdin=file)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def at_call(monkeypatch):
    from ansible_collections.virt.storage.plugins.module_utils.host.daemon import Daemon as Connection

    call = Connection.call

    def set_it(verb, before=lambda: None, after=lambda: None):
        def hooked(self, op):
            if op.verb == verb:
                before()
            call(self, op)
            if op.verb == verb:
                after()

        monkeypatch.setattr(Connection, "call", hooked)

    return set_it


def run_and_die(task, verb_or_type: str, after: bool) -> None:
    """Runs the task in a process that is killed before or after an operation."""
    from ansible_collections.virt.storage.plugins.module_utils.engines.libvirt import LibvirtEngine

    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    execute = LibvirtEngine.execute

    def dying(self, op):
        mine = verb_or_type in (type(op).__name__, getattr(op, "verb", ""))
        if mine and not after:
            os._exit(9)
        execute(self, op)
        if mine:
            os._exit(9)

    try:
        LibvirtEngine.execute = dying
        task()
    finally:
        os._exit(9)


# -- 1: looked at in the directory of the next start, done in the one that runs ----------------------------------------


def test_01a_pending_path_the_volume_that_is_deleted_is_not_the_one_that_was_looked_at(daemon_images):
    host = daemon_images
    other = host.root / "other"
    redefine_elsewhere(host, other)
    (host.images / "disk").write_bytes(b"live" * 1024)
    (other / "disk").write_bytes(b"next" * 1024)
    host.daemon.virsh("pool-refresh", host.name)
    with held_open(host.images / "disk"):
        done = host.volume(name="disk", state="absent")
    assert (host.images / "disk").exists(), (done["plan"], done["warnings"])


def test_01b_pending_path_create_is_never_done(daemon_images):
    host = daemon_images
    redefine_elsewhere(host, host.root / "other")
    host.volume(name="disk", capacity="1MiB")
    again = host.volume(name="disk", capacity="1MiB")
    assert not again["changed"] and "failed" not in again, again


def test_01c_pending_path_info_shows_the_wrong_directory(daemon_images):
    host = daemon_images
    host.volume(name="disk", capacity="1MiB")
    redefine_elsewhere(host, host.root / "other")
    assert [volume["name"] for volume in host.volume_info(pool=host.name)] == ["disk"]


def test_01d_pending_path_of_a_neighbour_hides_its_overlays(daemon_images, tmp_path):
    host, bases = daemon_images, tmp_path / "bases"
    host.pool(name="bases", type="dir", path=str(bases))
    host.volume(pool="bases", name="base", format="qcow2", capacity="1MiB")
    host.volume(name="over", format="qcow2", backing={"path": str(bases / "base"), "format": "qcow2"})
    redefine_elsewhere(host, host.root / "other")
    gone = host.volume(pool="bases", name="base", state="absent")
    assert (bases / "base").exists(), (gone["plan"], gone["warnings"])


# -- 2: the daemon's memory of a format or size is stale ---------------------------------------------------------------


def test_02a_growing_a_qcow2_that_the_daemon_takes_for_raw_cuts_it(daemon_images):
    host, path = daemon_images, daemon_images.images / "disk"
    host.volume(name="disk", capacity="1MiB")
    path.unlink()  # replaced by hand, say by an import with qemu-img
    (host.root / "raw").write_bytes(os.urandom(4 * MIB))
    qemu_img("convert", "-O", "qcow2", host.root / "raw", path)
    size = path.stat().st_size
    done = host.volume(name="disk", format="qcow2", capacity=4 * MIB + 65536)
    assert path.stat().st_size >= size, ("data was cut off without allow: shrink", done["plan"], done["warnings"])
    qemu_img("check", path)


def test_02b_recreate_killed_before_the_refresh_is_not_completed_and_cut_later(daemon_images):
    host, path = daemon_images, daemon_images.images / "disk"
    host.volume(name="disk", capacity="1MiB")
    (host.root / "raw").write_bytes(os.urandom(4 * MIB))
    task = {"name": "disk", "format": "qcow2", "source": {"path": f"{host.root}/raw"}, "recreate": "needed"}
    run_and_die(lambda: host.volume(**task), "pool-refresh", after=False)
    size = path.stat().st_size
    assert "failed" not in host.volume(**task)  # "the next run completes the work"
    done = host.volume(name="disk", format="qcow2", capacity=4 * MIB + 65536)
    assert path.stat().st_size >= size, ("data was cut off without allow: shrink", done["plan"], done["warnings"])


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_02c_a_size_that_was_changed_by_hand_is_refused_for_ever(daemon_images, form):
    host = daemon_images
    host.volume(name="disk", format=form, capacity="4MiB")
    qemu_img("resize", "--shrink", "-f", form, host.images / "disk", "1M")
    done = host.volume(name="disk", format=form, capacity="2MiB")
    assert "failed" not in done, done["error"]


# -- 3: pools that only the daemon builds ------------------------------------------------------------------------------


def test_03a_fs_pool_formats_unsigned_content(daemon_host):
    host = daemon_host
    host.root.mkdir(parents=True)
    device = host.root / "device"
    device.write_bytes(b"precious" * MIB)
    try:
        with held_open(device):
            source = {"device": str(device), "format": "ext4"}
            done = host.pool(name=host.name, type="fs", path=str(host.root / "mnt"), source=source)
        assert device.read_bytes() == b"precious" * MIB, [(e["summary"], e["destroys"]) for e in done["plan"]]
    finally:
        with contextlib.suppress(private_daemon.DaemonFailed):
            host.daemon.virsh("pool-destroy", host.name)


def test_03b_disk_pool_labels_unsigned_content(daemon_host):
    host = daemon_host
    host.root.mkdir(parents=True)
    device = host.root / "device"
    device.write_bytes(b"precious" * (2 * MIB))
    attached = subprocess.run(["losetup", "-f", "--show", device], capture_output=True, text=True, timeout=10)
    if attached.returncode:
        pytest.skip(attached.stderr)
    loop = attached.stdout.strip()
    try:
        done = host.pool(name=host.name, type="disk", path="/dev", source={"device": loop, "format": "gpt"})
        assert device.read_bytes() == b"precious" * (2 * MIB), [(e["summary"], e["destroys"]) for e in done["plan"]]
    finally:
        with contextlib.suppress(private_daemon.DaemonFailed):
            host.daemon.virsh("pool-destroy", host.name)
        subprocess.run(["losetup", "-d", loop], timeout=10, check=False)


def test_03c_check_mode_does_not_refuse_what_the_real_run_does(daemon_host):
    host = daemon_host
    host.root.mkdir(parents=True)
    device = host.root / "device"
    device.write_bytes(bytes(8 * MIB))
    subprocess.run(["mkfs.ext4", "-q", "-F", device], timeout=20, check=True)
    task = {"name": host.name, "type": "fs", "path": f"{host.root}/mnt"}
    task["source"] = {"device": str(device), "format": "xfs"}
    checked, done = host.pool(check=True, **task), host.pool(**task)
    assert ("failed" in checked) == ("failed" in done), done["error"]
    assert "overwrite" in done["error"]["hint"], done["error"]


# -- 4: which process is the daemon ------------------------------------------------------------------------------------


@pytest.fixture
def peers():
    from ansible_collections.virt.storage.plugins.module_utils.host import peers as module

    return module


def test_04a_a_forwarded_socket_is_not_the_daemon_of_this_host(daemon_host, peers, monkeypatch, tmp_path):
    """As with ssh -L /tmp/there:/run/libvirt/libvirt-sock kvm1, on a host that has a libvirtd of its own."""
    host, place, forward = daemon_host, tmp_path / "pool", "/tmp/lose-forward.sock"
    place.mkdir()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(forward)
    program = f"""
import socket, threading
s = socket.socket(socket.AF_UNIX); s.bind({forward!r}); s.listen(8)
def pump(a, b):
    try:
        while d := a.recv(65536): b.sendall(d)
        b.shutdown(socket.SHUT_RDWR)
    except OSError: pass
while True:
    c, _ = s.accept()
    d = socket.socket(socket.AF_UNIX); d.connect({str(host.daemon._socket)!r})
    for pair in ((c, d), (d, c)): threading.Thread(target=pump, args=pair, daemon=True).start()
"""
    tunnel = subprocess.Popen(["python3", "-c", program])
    local = subprocess.Popen(["sleep", "60"])  # stands for the libvirtd of this host
    name = peers._name  # the one that answers is on another host, so it is not in our /proc
    monkeypatch.setattr(
        peers, "_name", lambda pid: "libvirtd" if pid == local.pid else name(pid).replace("libvirtd", "x")
    )
    in_daemon(host, "mount", "-t", "tmpfs", "none", place)  # the files of the other host
    try:
        time.sleep(0.5)
        host.uri = f"qemu:///system?socket={forward}"
        host.pool(name=host.name, type="dir", path=str(place))
        made = host.volume(name="text", source={"content": "hello"})
        assert not (place / "text").exists(), ("written on this host, for a pool of another", commands(made))
    finally:
        host.daemon.virsh("pool-destroy", host.name)
        in_daemon(host, "umount", place)
        for each in (tunnel, local):
            each.kill()
            each.wait()
        os.unlink(forward)


def test_04b_a_daemon_that_systemd_starts_is_looked_for_before_it_is_there(daemon_images, peers, monkeypatch):
    """libvirtd.socket: systemd listens (SO_PEERCRED is pid 1); libvirtd leaves when it is idle for 120 s."""
    host = daemon_images
    host.volume(name="disk", capacity="1MiB")
    monkeypatch.setattr(peers, "listener", lambda path: 1)
    monkeypatch.setattr(peers, "_name", lambda pid: "systemd")  # it sleeps: nobody of that name is there yet
    with held_open(host.images / "disk"):
        done = host.volume(name="disk", state="absent")
    assert (host.images / "disk").exists(), ("in use by a process of this host", done["warnings"])


def test_04c_two_daemons_are_none(daemon_images, peers, monkeypatch):
    """Modular daemons (virtqemud and virtstoraged), or a session's libvirtd beside the system's."""
    host = daemon_images
    host.volume(name="disk", capacity="1MiB")
    monkeypatch.setattr(peers, "listener", lambda path: 1)
    others = {host.daemon.pid: "virtstoraged", os.getpid(): "virtqemud"}
    monkeypatch.setattr(peers, "_name", lambda pid: others.get(pid, "x"))
    with held_open(host.images / "disk"):
        done = host.volume(name="disk", state="absent")
    assert (host.images / "disk").exists(), ("in use by a process of this host", done["warnings"])


def test_04d_the_daemon_wakes_up_between_two_runs(daemon_images, peers, monkeypatch):
    """The real thing: a listening socket whose daemon comes with the first connection."""
    host, daemon = daemon_images, daemon_images.daemon
    daemon.stop()
    daemon._socket.unlink(missing_ok=True)
    program = f"""
import os, select, socket, time
s = socket.socket(socket.AF_UNIX); s.bind({str(daemon._socket)!r}); s.listen(8)
select.select([s], [], [])
os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
time.sleep(0.3)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='libvirtd.socket')
os.execvp('libvirtd', ['libvirtd', '-f', {str(daemon._sockets / "libvirtd.conf")!r}, '-p', '{daemon._sockets}/pid2'])
"""
    start = private_daemon._START.split("exec setpriv")[0] + 'exec setpriv --pdeathsig TERM python3 -c "$PROGRAM"'
    argv = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", start, "libvirtd"]
    argv += [str(daemon.files), str(daemon._sockets), *private_daemon._PRIVATE]
    process = subprocess.Popen(argv, env={**os.environ, "PROGRAM": program}, stdin=subprocess.DEVNULL)
    try:
        for _ in range(200):
            if daemon._socket.exists():
                break
            time.sleep(0.02)
        name = peers._name  # other daemons of this machine do not count
        monkeypatch.setattr(peers, "_name", lambda pid: name(pid) if pid == process.pid else "x")
        first = host.volume(name="a", check=True, source={"content": "hello"})
        second = host.volume(name="a", check=True, source={"content": "hello"})
        assert "failed" not in first and "failed" not in second, (first, second)
        assert commands(first) == commands(second)
    finally:
        process.kill()
        process.wait()
        daemon._socket.unlink(missing_ok=True)
        daemon.start()


# -- 5: same files, or not ---------------------------------------------------------------------------------------------


def test_05a_a_symbolic_link_that_leads_elsewhere_for_the_daemon(daemon_host, tmp_path):
    host = daemon_host
    ours, theirs, way = tmp_path / "ours", tmp_path / "theirs", tmp_path / "way"
    for each in (ours / "pool", theirs / "pool", way):
        each.mkdir(parents=True)
    (way / "link").symlink_to(ours)
    in_daemon(host, "mount", "-t", "tmpfs", "none", way)
    in_daemon(host, "ln", "-s", theirs, way / "link")
    try:
        host.pool(name=host.name, type="dir", path=str(way / "link" / "pool"))
        (ours / "pool" / "disk").write_bytes(b"ours!" * 1024)
        (theirs / "pool" / "disk").write_bytes(b"their" * 1024)
        host.daemon.virsh("pool-refresh", host.name)
        with held_open(theirs / "pool" / "disk"):
            done = host.volume(name="disk", state="absent")
        assert (theirs / "pool" / "disk").exists(), ("the file was never looked at", done["plan"], done["warnings"])
    finally:
        host.daemon.virsh("pool-destroy", host.name)
        in_daemon(host, "umount", way)


def test_05b_overlays_in_a_pool_that_only_the_daemon_sees(daemon_images, tmp_path):
    host, over = daemon_images, tmp_path / "over"
    over.mkdir()
    host.volume(name="base", format="qcow2", capacity="1MiB")
    in_daemon(host, "mount", "-t", "tmpfs", "none", over)
    try:
        host.daemon.virsh("pool-create-as", "overs", "dir", "--target", over)
        backing = ["--backing-vol", host.images / "base", "--backing-vol-format", "qcow2"]
        host.daemon.virsh("vol-create-as", "overs", "o", "1M", "--format", "qcow2", *backing)
        gone = host.volume(name="base", state="absent")
        assert "failed" in gone, ("the base of an overlay is gone", gone["warnings"])
    finally:
        host.daemon.virsh("pool-destroy", "overs")
        in_daemon(host, "umount", over)


def test_05c_a_backing_file_that_is_another_one_for_the_daemon(daemon_images, tmp_path):
    host, bases = daemon_images, tmp_path / "bases"
    bases.mkdir()
    qemu_img("create", "-f", "qcow2", bases / "base", "5M")
    in_daemon(host, "mount", "-t", "tmpfs", "none", bases)
    try:
        in_daemon(host, "qemu-img", "create", "-f", "qcow2", bases / "base", "9M")
        done = host.volume(name="o", format="qcow2", backing={"path": str(bases / "base"), "format": "qcow2"})
        assert "failed" in done or done["warnings"], "made 5M on a backing that has 9M for the daemon and its guests"
    finally:
        in_daemon(host, "umount", bases)


# -- 6: a refresh that fails stops the pool ----------------------------------------------------------------------------


def test_06_a_bad_file_and_a_harmless_task_stop_a_running_pool(daemon_images):
    host = daemon_images
    (host.images / "bad").write_bytes(b"QFI\xfb\0\0\0\3" + bytes(72))  # a qcow2 of version 3 that was cut off
    checked = host.volume(name="hello", source={"content": "hello"}, check=True)
    done = host.volume(name="hello", source={"content": "hello"})
    running = host.name in host.daemon.pools()
    again = host.pool(name=host.name)
    seen = (checked.get("error"), checked["warnings"], done.get("error"), again.get("error"))
    assert running, ("stopped; the next runs can't start it, and nobody says why", seen)


# -- 7: who uses a volume ----------------------------------------------------------------------------------------------

_GUEST = """<domain type='qemu'><name>lose</name><memory unit='MiB'>64</memory>{more}
<os><type arch='x86_64'>hvm</type></os><devices>{devices}</devices></domain>"""
_DISK = """<disk type='{type}' device='disk'><driver name='qemu' type='qcow2'/><source {source}/>
<target dev='vda' bus='virtio'/></disk>"""


@contextlib.contextmanager
def guest(host, devices: str, more: str = "") -> Iterator[None]:
    path = host.root / "guest.xml"
    path.write_text(_GUEST.format(devices=devices, more=more))
    host.daemon.virsh("define", path)
    try:
        yield
    finally:
        host.daemon.virsh("undefine", "lose")


def refused(host) -> None:
    gone = host.volume(name="disk", state="absent", check=True)
    assert gone.get("error", {}).get("code") in ("volume_in_use", "volume_backing"), (gone["plan"], gone["warnings"])


def test_07a_a_guest_whose_definition_is_large_is_passed_over_in_silence(daemon_images):
    host = daemon_images
    host.volume(name="disk", format="qcow2", capacity="1MiB")
    more = f"<metadata><a:a xmlns:a='urn:a'>{'<a:b/>' * 200_000}</a:a></metadata>"
    with guest(host, _DISK.format(type="file", source=f"file='{host.images}/disk'"), more):
        refused(host)


def test_07b_a_guest_whose_overlay_is_in_no_pool(daemon_images):
    """Found by way of /etc/libvirt/qemu on a real host's system daemon; not where the connection is the only source."""
    host = daemon_images
    host.volume(name="disk", format="qcow2", capacity="1MiB")
    (host.root / "away").mkdir()
    qemu_img("create", "-f", "qcow2", "-b", host.images / "disk", "-F", "qcow2", host.root / "away" / "over")
    with guest(host, _DISK.format(type="file", source=f"file='{host.root}/away/over'")):
        refused(host)


def test_07c_a_guest_that_names_the_volume_by_another_pool(daemon_images):
    host = daemon_images
    host.volume(name="disk", format="qcow2", capacity="1MiB")
    (host.root / "link").symlink_to(host.images)
    host.daemon.virsh("pool-create-as", "twin", "dir", "--target", host.root / "link")
    with guest(host, _DISK.format(type="volume", source="pool='twin' volume='disk'")):
        refused(host)


def test_07d_a_guest_with_the_volume_as_nvdimm(daemon_images):
    host = daemon_images
    host.volume(name="disk", capacity="256MiB")
    more = "<maxMemory slots='4' unit='MiB'>1024</maxMemory><vcpu>1</vcpu>"
    more += "<cpu><numa><cell id='0' cpus='0' memory='64' unit='MiB'/></numa></cpu>"
    nvdimm = f"<memory model='nvdimm'><source><path>{host.images}/disk</path></source>"
    with guest(host, nvdimm + "<target><size unit='MiB'>256</size><node>0</node></target></memory>", more):
        refused(host)


def test_07e_a_running_guest_that_gets_the_disk_with_its_next_start(daemon_host):
    """As 07b: the connection's XMLDesc(0) is that of the running guest only."""
    host = daemon_host
    conf = host.daemon.files / "etc/libvirt/qemu.conf"
    conf.write_text('stdio_handler="file"\ncgroup_controllers=[]\nsecurity_driver="none"\nuser="root"\ngroup="root"\n')
    host.daemon.restart()
    try:
        host.start_images()
        host.volume(name="disk", format="qcow2", capacity="1MiB")
        with guest(host, ""):
            try:
                host.daemon.virsh("start", "lose")
                (host.root / "new.xml").write_text(_DISK.format(type="file", source=f"file='{host.images}/disk'"))
                host.daemon.virsh("attach-device", "lose", host.root / "new.xml", "--config")
                refused(host)
            finally:
                host.daemon.virsh("destroy", "lose")
    finally:
        conf.unlink()
        host.daemon.restart()


def test_07f_what_replaces_a_volume_in_the_last_moment_is_deleted(daemon_images, at_call):
    """The native engine looks at what it took away, and gives it back (Withdraw)."""
    host, other = daemon_images, daemon_images.root / "other"
    host.volume(name="disk", capacity="1MiB")
    other.write_bytes(b"somebody else's")
    at_call("vol-delete", before=lambda: os.rename(other, host.images / "disk"))
    done = host.volume(name="disk", state="absent")
    assert (host.images / "disk").exists(), done["plan"]


# -- 8: killed in the middle -------------------------------------------------------------------------------------------


def test_08a_half_an_image_under_its_name_is_adopted(daemon_images):
    """The machine dies while the daemon's qemu-img writes."""
    host, path = daemon_images, daemon_images.images / "big"
    task = {"name": "big", "format": "qcow2", "capacity": str(1 << 41), "options": {"preallocation": "metadata"}}
    thread = threading.Thread(target=lambda: host.volume(**task))
    thread.start()
    children: list[str] = []
    for _ in range(2000):
        argv = ["pgrep", "-P", str(host.daemon.pid), "qemu-img"]
        children = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split()
        if children and path.exists():
            break
        time.sleep(0.005)
    host.daemon.kill()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    thread.join(60)
    half = path.stat().st_size if path.exists() else None
    host.daemon.start()
    again = host.volume(**task)
    assert half is None, (half, again.get("error"), [entry["summary"] for entry in again["plan"]])


def test_08b_state_present_with_restart_leaves_the_pool_stopped(daemon_images):
    host = daemon_images

    def task():
        return host.pool(name=host.name, type="dir", path=str(host.root / "new"), state="present", allow=["restart"])

    run_and_die(task, "pool-destroy", after=True)
    assert "failed" not in task()
    assert host.name in host.daemon.pools(), "it ran before, and does not any more; nobody asked for that"


def test_08c_killed_between_build_and_note_the_directory_is_never_ours(daemon_host):
    host = daemon_host

    def task(**more):
        return host.pool(name=host.name, type="dir", path=str(host.images), **more)

    run_and_die(task, "pool-build", after=True)
    assert "failed" not in task()
    task(state="deleted")
    assert not host.images.exists()


# -- 9: the rest -------------------------------------------------------------------------------------------------------


def test_09a_a_name_that_the_binding_cannot_decode(daemon_images):
    host = daemon_images
    with open(os.fsencode(host.images) + b"/\xff", "wb"):
        pass
    host.daemon.virsh("pool-refresh", host.name)
    done = host.volume(name="disk", capacity="1MiB")  # a UnicodeDecodeError
    assert "failed" not in done, done


def test_09b_a_name_that_the_daemon_never_lists(daemon_images):
    host = daemon_images
    (host.images / "a\x01b").write_bytes(bytes(512))
    task = {"volumes": [{"name": "a", "capacity": 4096}], "exclusive": "x*"}
    host.volume(**task)
    again = host.volume(**task)
    assert not again["changed"], again["plan"]


def test_09c_a_call_has_no_deadline(daemon_images, at_call):
    host, pid = daemon_images, daemon_images.daemon.pid
    at_call("vol-create", before=lambda: os.kill(pid, signal.SIGSTOP))
    timer = threading.Timer(12, lambda: os.kill(pid, signal.SIGCONT))
    timer.start()
    start = time.monotonic()
    try:
        host.volume(name="disk", capacity="1MiB", timeout=2)
        assert time.monotonic() - start < 10
    finally:
        os.kill(pid, signal.SIGCONT)
        timer.cancel()


def test_09d_a_password_in_the_uri(daemon_host):
    host = daemon_host
    host.uri = "qemu+tcp://user:hunter2secret@127.0.0.1:1/system"
    done = host.pool(name="x", type="dir", path="/nowhere/x")
    shown = {key: value for key, value in done.items() if key != "invocation"}
    assert "hunter2secret" not in str(shown), re.findall(r".{30}hunter2secret.{20}", str(shown))


def test_09e_the_words_of_an_error_of_the_daemon(daemon_images):
    host = daemon_images
    (host.images / "bad").write_bytes(b"QFI\xfb\0\0\0\3" + bytes(72))
    host.pool(name=host.name, state="inactive")
    failed = host.pool(name=host.name)
    assert "exit status None" not in failed["msg"], failed["msg"]
    assert failed["error"]["hint"], failed["error"]


def test_09f_permissions_that_nobody_declared_are_set_back(daemon_images, images):
    """Once a pool runs, the daemon shows what its directory had at the last look as if it was its definition."""
    for host in (images, daemon_images):  # the native engine leaves it alone
        host.images.chmod(0o755)
        os.chown(host.images, 65534, 65534)
        again = host.pool(name=host.name, type="dir", path=str(host.images))
        assert not again["changed"], again["diff"]
    assert host.images.stat().st_uid == 65534


def test_09g_permissions_that_nobody_declared_get_into_the_definition(daemon_images):
    host = daemon_images
    host.pool(name=host.name, state="inactive")
    host.images.chmod(0o755)
    host.pool(name=host.name)
    assert host.images.stat().st_mode & 0o777 == 0o755


def test_01e_pending_path_of_a_neighbour_check_mode_says_yes(daemon_images):
    host = daemon_images
    redefine_elsewhere(host, host.root / "other")
    task = {"name": "second", "type": "dir", "path": str(host.images)}
    checked, done = host.pool(check=True, **task), host.pool(**task)
    assert ("failed" in checked) == ("failed" in done), done["error"]
