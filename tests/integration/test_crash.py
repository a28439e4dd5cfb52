# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""SIGKILL at every system call that changes something: nothing partial is seen, and the next run completes the work.

By default a sample of the points is tried; with CRASH_POINTS=all every one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import Any, Callable

import pytest

from .calling import call
from .conftest import Host
from .crash_support import (
    CHANGING,
    GIB,
    KIB,
    MIB,
    Point,
    image_info,
    killing,
    leftovers,
    names,
    parsed,
    points_of,
    qcow2,
    qemu_img,
    refused,
    traced,
)

ALL = os.environ.get("CRASH_POINTS") == "all"

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.needs_ansible,
    pytest.mark.deadline(3600 if ALL else 120),
    pytest.mark.xdist_group("crash"),  # many begin with the same undisturbed run
]
SAMPLE = int(os.environ.get("CRASH_SAMPLE") or 7)


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    """One place for all: names of what is left may be made of paths."""
    return tmp_path_factory.mktemp("crash")


# -- what must hold of an image -----------------------------------------------------------------------------------


def check_qcow2(path, size, leaks=False):
    done = subprocess.run(["qemu-img", "check", "-f", "qcow2", path], check=False, capture_output=True, text=True)
    assert done.returncode in ((0, 3) if leaks else (0,)), done.stdout + done.stderr
    sizes = size if isinstance(size, tuple) else (size,)
    assert image_info(path)["virtual-size"] in sizes


def check_raw(path, size):
    assert path.stat().st_size in (size if isinstance(size, tuple) else (size,))


def content_of(path, image_format):
    out = path.parent.parent / "read"
    qemu_img("convert", "-U", "-f", image_format, "-O", "raw", path, out)
    return out.read_bytes().rstrip(b"\0")


PATTERN = b"".join(number.to_bytes(4, "big") * 64 for number in range(1, 4096))


def make_source(host):
    """1 MiB of content in a qcow2 image of 2 MiB."""
    path = host.root / "pattern"
    path.write_bytes(PATTERN)
    os.truncate(path, 2 * MIB)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", path, host.root / "source.qcow2")
    path.unlink()
    return host.root / "source.qcow2"


@dataclass(frozen=True)
class Scenario:
    """``params`` are run and killed. ``always`` holds at any moment, ``last`` once the work is completed."""

    module: str
    params: Callable[[Host], dict[str, Any]]
    prepare: Callable[[Host], Any] = lambda host: host.start_images()
    always: Callable[[Host], Any] = lambda host: None
    last: Callable[[Host], Any] = lambda host: None

    def run(self, host: Host) -> dict[str, Any]:
        return call(self.module, uri=host.uri, **self.params(host))


def volume(**declared: Any) -> Callable[[Host], dict[str, Any]]:
    return lambda host: {"pool": "images", "name": "a", **declared}


def with_volume(**declared: Any) -> Callable[[Host], None]:
    def prepare(host: Host) -> None:
        host.start_images()
        result = host.volume(name="a", **declared)
        assert result["changed"], result

    return prepare


def absent_or(check: Callable[[Any], Any]) -> Callable[[Host], None]:
    return lambda host: check(host.images / "a") if os.path.lexists(host.images / "a") else None


def here(check: Callable[[Any], Any]) -> Callable[[Host], None]:
    return lambda host: check(host.images / "a")


# -- the scenarios ------------------------------------------------------------------------------------------------


def pool_is_whole(host):
    """Every definition and state file is readable, whatever the moment."""
    for directory in ("etc/libvirt/storage", "run/libvirt/storage"):
        path = host.root / directory / "images.xml"
        if path.exists():
            assert path.read_text().rstrip().endswith(("</pool>", "</poolstate>", "</poolstatus>", ">")), path
            assert "<name>images</name>" in path.read_text()
    for pool in host.pool_info():
        assert pool["state"] in ("active", "inactive"), pool


def pool_is_active(host):
    (pool,) = host.pool_info(name="images")
    assert pool["state"] == "active"
    assert host.images.is_dir()


def pool_is_ours(host):
    """It is known that we made the directory: deleting the pool removes it."""
    pool_is_active(host)
    result = host.pool(name="images", type="dir", path=str(host.images), state="deleted")
    assert not result.get("failed"), result
    assert not host.images.exists()


def pool(**declared: Any) -> Callable[[Host], dict[str, Any]]:
    return lambda host: {"name": "images", "type": "dir", "path": str(host.images), **declared}


def prepare_overlay(host):
    host.start_images()
    assert host.volume(name="base", format="qcow2", capacity="1M")["changed"]


def check_overlay(path):
    check_qcow2(path, MIB)
    assert image_info(path)["full-backing-filename"] == str(path.parent / "base")


def check_bulk(host):
    for path in host.images.glob("v*"):
        check_qcow2(path, 64 * MIB)


def all_of_bulk(host):
    assert len(list(host.images.glob("v*"))) == 4
    check_bulk(host)


def prepare_import(host):
    host.start_images()
    make_source(host)


def imported(image_format):
    def check(path):
        assert content_of(path, image_format) == PATTERN.rstrip(b"\0")
        (path.parent.parent / "read").unlink()
        if image_format == "qcow2":
            check_qcow2(path, 3 * MIB)
        else:
            check_raw(path, 3 * MIB)

    return check


def old_or_new(path):
    """Before: raw with a text. After: an empty qcow2 image of 2 MiB."""
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"QFI"):
        check_qcow2(path, 2 * MIB)
    else:
        assert head == b"precious"
        check_raw(path, MIB)


def prepare_precious(host):
    host.start_images()
    (host.images / "a").write_bytes(b"precious")
    os.truncate(host.images / "a", MIB)


def prepare_to_delete(host):
    host.start_images()
    for name in ("a", "b"):
        assert host.volume(name=name, capacity="1M")["changed"]


def gone(host):
    assert not host.images.exists()
    assert host.pool_info() == []


def many(path_list):
    return [{"name": name, "format": "qcow2", "capacity": "64M"} for name in path_list]


SCENARIOS = {
    "define and start": Scenario(
        "storage_pool", pool(autostart=True), lambda host: None, pool_is_whole, pool_is_ours
    ),
    "redefine": Scenario(
        "storage_pool", pool(mode="0700", autostart=True), Scenario.prepare, pool_is_whole, pool_is_active
    ),
    "create raw": Scenario(
        "storage_volume", volume(capacity="1M", allocation="1M", mode="0640"),
        always=absent_or(lambda path: check_raw(path, MIB)), last=here(lambda path: check_raw(path, MIB)),
    ),
    "create with content": Scenario(
        "storage_volume", volume(source={"content": "text" * KIB}),
        always=absent_or(lambda path: check_raw(path, 4 * KIB)), last=here(lambda path: check_raw(path, 4 * KIB)),
    ),
    "create qcow2": Scenario(
        "storage_volume", volume(capacity="64M", format="qcow2"),
        always=absent_or(lambda path: check_qcow2(path, 64 * MIB)), last=here(lambda path: check_qcow2(path, 64 * MIB)),
    ),
    "create overlay": Scenario(
        "storage_volume", volume(format="qcow2", backing={"volume": "base", "format": "qcow2"}), prepare_overlay,
        always=absent_or(check_overlay), last=here(check_overlay),
    ),
    "create many": Scenario(
        "storage_volume", lambda host: {"pool": "images", "volumes": many(["v1", "v2", "v3", "v4"])},
        always=check_bulk, last=all_of_bulk,
    ),
    "import to qcow2": Scenario(
        "storage_volume",
        lambda host: volume(capacity="3M", format="qcow2", source={"path": str(host.root / "source.qcow2")})(host),
        prepare_import, absent_or(imported("qcow2")), here(imported("qcow2")),
    ),
    "import to raw": Scenario(
        "storage_volume",
        lambda host: volume(capacity="3M", format="raw", source={"path": str(host.root / "source.qcow2")})(host),
        prepare_import, absent_or(imported("raw")), here(imported("raw")),
    ),
    "grow raw": Scenario(
        "storage_volume", volume(capacity="2M"), with_volume(capacity="1M"),
        here(lambda path: check_raw(path, (MIB, 2 * MIB))), here(lambda path: check_raw(path, 2 * MIB)),
    ),
    # Clusters of 512 bytes: an L1 entry reaches 32 KiB, so that the table must move.
    "grow qcow2": Scenario(
        "storage_volume", volume(capacity="1G", format="qcow2"),
        with_volume(capacity="1M", format="qcow2", options={"cluster_size": "512"}),
        here(lambda path: check_qcow2(path, (MIB, GIB), leaks=True)),
        here(lambda path: check_qcow2(path, GIB, leaks=True)),
    ),
    "shrink qcow2": Scenario(
        "storage_volume", volume(capacity="1M", format="qcow2", allow=["shrink"]),
        with_volume(capacity="64M", format="qcow2", options={"cluster_size": "4K"}),
        here(lambda path: check_qcow2(path, (MIB, 64 * MIB), leaks=True)),
        here(lambda path: check_qcow2(path, MIB, leaks=True)),
    ),
    "recreate": Scenario(
        "storage_volume", volume(capacity="2M", format="qcow2", recreate="needed"), prepare_precious,
        here(old_or_new), here(lambda path: check_qcow2(path, 2 * MIB)),
    ),
    "delete": Scenario(
        "storage_volume", volume(state="absent"), with_volume(capacity="1M", format="qcow2"),
        absent_or(lambda path: check_qcow2(path, MIB)),
    ),
    "delete the pool": Scenario(
        "storage_pool", pool(state="deleted", allow=["nonempty"]), prepare_to_delete, pool_is_whole, gone
    ),
}  # fmt: skip
EACH = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())
WITH_QEMU_IMG = (
    "create qcow2",
    "create many",
    "import to qcow2",
    "import to raw",
    "grow qcow2",
    "shrink qcow2",
    "recreate",
)
EACH_WITH_QEMU_IMG = pytest.mark.parametrize("name", WITH_QEMU_IMG)


def prepared(top, scenario):
    host = Host(top / "host")
    shutil.rmtree(host.root, ignore_errors=True)
    host.root.mkdir()
    scenario.prepare(host)
    return host


def completed(host, scenario, expected):
    """After a crash: whole at once; complete after one run, with no traces; and nothing to do for another."""
    scenario.always(host)
    result = scenario.run(host)
    assert not result.get("failed"), result
    assert not [text for text in result["warnings"] if text.startswith("verification")], result["warnings"]
    assert leftovers(host.root) == []
    assert names(host.root) == expected
    result = scenario.run(host)
    assert not result.get("failed"), result
    assert result["changed"] is False, result
    scenario.last(host)


_references: dict[Scenario, tuple[set[str], list[Point]]] = {}


def reference(top, scenario, server):
    """What an undisturbed run leaves, and the points at which it could have been killed. Looked at once."""
    if scenario not in _references:
        _references[scenario] = undisturbed(top, scenario, server)
    return _references[scenario]


def undisturbed(top, scenario, server):
    host = prepared(top, scenario)
    params = {"uri": host.uri, **scenario.params(host)}
    status, result, calls = traced(server, top / "log", scenario.module, params, CHANGING)
    assert status == 0, result
    assert result["changed"], result
    assert leftovers(host.root) == []
    expected = names(host.root)
    completed(host, scenario, expected)
    return expected, points_of(calls)


def sampled(points, sample=SAMPLE):
    """All of them, or some: the first, the last, and what lies evenly between."""
    if ALL or len(points) <= sample:
        return points
    return [points[round(step * (len(points) - 1) / (sample - 1))] for step in range(sample)]


def killed_at(top, scenario, server, point, **env):
    host = prepared(top, scenario)
    params = {"uri": host.uri, **scenario.params(host)}
    status, result, _unused = traced(
        server, top / "log", scenario.module, params, CHANGING, "-e", killing(point), **env
    )
    return host, status, result


@EACH
def test_killed_at_a_system_call(top, server, scenario):
    """The module, or a program that it started: whichever comes first to that call."""
    expected, points = reference(top, scenario, server)
    assert len(points) >= 2
    deaths = 0
    for point in sampled(points):
        host, status, result = killed_at(top, scenario, server, point)
        deaths += status == -9 or bool(result and result.get("failed"))
        completed(host, scenario, expected)
    assert deaths


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("name", ["define and start", "create raw"])
def test_every_call_of_a_definition_and_a_creation(top, server, name, half):
    """The two that everybody runs: no point is left out."""
    scenario = SCENARIOS[name]
    expected, points = reference(top, scenario, server)
    for point in points[half::2]:
        host, status, _unused = killed_at(top, scenario, server, point)
        assert status == -9, point
        completed(host, scenario, expected)


def wrapper(top, text):
    """A qemu-img that comes first in PATH."""
    folder = top / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "qemu-img"
    program.write_text(f"#!/bin/bash\n{text}\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


REAL = shutil.which("qemu-img")


@EACH_WITH_QEMU_IMG
@pytest.mark.parametrize("parent", ["dies too", "lives on"])
def test_killed_within_qemu_img(top, server, name, parent):
    """qemu-img dies at its N-th changing call; with its parent, as on a power cut, or alone, as of the OOM killer."""
    scenario = SCENARIOS[name]
    expected, _unused = reference(top, scenario, server)
    count = top / "count"
    strace = f"strace -f -o {count} -e trace={CHANGING}"
    env = wrapper(top, f'exec {strace} {REAL} "$@"')
    host = prepared(top, scenario)
    status, result = server.run(scenario.module, {"uri": host.uri, **scenario.params(host)}, **env)
    assert status == 0, result
    deaths = 0
    for point in sampled(points_of(parsed(count)), 4):
        then = "kill -9 $PPID; " if parent == "dies too" else ""
        text = f'{strace} -e {killing(point)} {REAL} "$@"; s=$?; [ $s != 137 ] || {{ {then}kill -9 $$; }}; exit $s'
        host = prepared(top, scenario)
        status, result = server.run(scenario.module, {"uri": host.uri, **scenario.params(host)}, **wrapper(top, text))
        if parent == "dies too":
            deaths += status == -9
        elif status:
            deaths += 1
            assert result["error"]["code"] == "command_failed", result
            assert result["error"]["command"].startswith("qemu-img"), result
            assert leftovers(host.root) == []
            if "grow" not in name and "shrink" not in name:
                assert result["changed"] is False
        completed(host, scenario, expected)
    assert deaths


@EACH_WITH_QEMU_IMG
def test_killed_while_qemu_img_runs(top, tmp_path, server, name):
    """The program outlives its parent, and holds the locks until it is gone: nobody works beside it."""
    scenario = SCENARIOS[name]
    expected, _unused = reference(top, scenario, server)
    marker = tmp_path / "ended"
    env = wrapper(top, f'kill -9 $PPID; sleep 0.7; {REAL} "$@"; touch {marker}')
    host = prepared(top, scenario)
    status, _unused = server.run(scenario.module, {"uri": host.uri, **scenario.params(host)}, **env)
    assert status == -9
    assert not marker.exists()
    scenario.always(host)
    other = call("storage_volume", uri=host.uri, pool="images", name="other", capacity="1M", timeout=30)
    assert marker.exists(), "the next task did not wait for the survivor"
    assert other["changed"], other
    host.volume(name="other", state="absent")
    completed(host, scenario, expected)


def test_killed_between_write_and_publication_of_a_definition(top, server):
    """The only write of a definition, cut short in all of its calls."""
    scenario = SCENARIOS["define and start"]
    expected, _unused = reference(top, scenario, server)
    for target in ("etc/libvirt/storage/images.xml.new", "run/libvirt/storage/images.xml.new"):
        for inject in ("write:signal=KILL:when=1", "fsync:signal=KILL:when=1", "close:signal=KILL:when=1"):
            host = prepared(top, scenario)
            options = ("-P", str(host.root / target), "-e", f"inject={inject}")
            params = {"uri": host.uri, **scenario.params(host)}
            status, _unused, _unused = traced(
                server, top / "log", scenario.module, params, "write,fsync,close", *options
            )
            assert status == -9, (target, inject)
            assert not (host.root / target[: -len(".new")]).exists()
            completed(host, scenario, expected)


def test_leftovers_are_named_and_removed_by_any_next_task(top, server):
    """Not only the same task cleans up; check mode says that it would and does not."""
    scenario = SCENARIOS["create qcow2"]
    host = prepared(top, scenario)
    env = wrapper(top, f'{REAL} "$@"; kill -9 $PPID')
    status, _unused = server.run(scenario.module, {"uri": host.uri, **scenario.params(host)}, **env)
    assert status == -9
    time.sleep(0.2)
    assert leftovers(host.root)
    before = names(host.root)
    assert host.volume_info(pool="images") == []
    planned = host.volume(True, name="b", capacity="1M")
    assert names(host.root) == before
    result = host.volume(name="b", capacity="1M")
    assert planned["plan"] == result["plan"]
    assert leftovers(host.root) == []
    assert os.listdir(host.images) == ["b"]


def test_a_killed_task_leaves_no_obstacle_to_deleting_the_pool(top, server):
    scenario = SCENARIOS["create qcow2"]
    host = prepared(top, scenario)
    env = wrapper(top, f'{REAL} "$@"; kill -9 $PPID')
    status, _unused = server.run(scenario.module, {"uri": host.uri, **scenario.params(host)}, **env)
    assert status == -9
    result = host.pool(name="images", type="dir", path=str(host.images), state="deleted", timeout=30)
    assert not result.get("failed"), result
    gone(host)


def test_somebody_elses_file_survives_a_crash(top, server):
    """Deleting takes a file out and looks at it. What came out is somebody else's; killed before it is put back."""
    scenario = SCENARIOS["delete"]
    host = prepared(top, scenario)
    path, theirs = host.images / "a", qcow2(host.root / "theirs", 7 * MIB)
    inode = theirs.stat().st_ino
    os.link(path, host.root / "kept")  # so that its inode number is not given to another
    child = server.start(scenario.module, {"uri": host.uri, **scenario.params(host)})
    hold = "inject=rename:delay_enter=700000:when=1"
    kill = "inject=link,linkat,renameat2:signal=KILL:when=1"
    argv = ["strace", "-f", "-o", top / "log", "-e", f"trace={CHANGING}", "-e", hold, "-e", kill]
    strace = subprocess.Popen([*argv, "-p", str(child.pid)], stderr=subprocess.PIPE, text=True)
    while "attached" not in strace.stderr.readline():
        pass
    child.go()
    end = time.monotonic() + 5
    while not (host.images / ".virt-storage").exists() and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(0.1)
    os.replace(theirs, path)
    child.wait()
    strace.communicate()
    for check in (True, False):
        refused(host.volume(check, name="other", capacity="1M"), "staging_foreign")
    assert inode in {file.stat().st_ino for file in host.root.rglob("*")}


# -- the order of write, sync and publication ---------------------------------------------------------------------

WRITES = ("write", "pwrite64", "pwritev", "pwritev2", "ftruncate", "fallocate", "copy_file_range", "fchmod", "fchown")
NAMING = ("link", "linkat", "rename", "renameat", "renameat2")
TRACED = ",".join(
    f"?{name}" for name in (*WRITES, *NAMING, "fsync", "fdatasync", "unlink", "unlinkat", "mkdir", "rmdir")
)


def trace_of(top, server, scenario):
    host = prepared(top, scenario)
    params = {"uri": host.uri, **scenario.params(host)}
    status, result, calls = traced(server, top / "log", scenario.module, params, TRACED)
    assert status == 0, result
    return host, calls


def last_index(calls, wanted):
    return max((index for index, entry in enumerate(calls) if wanted(entry)), default=-1)


def assert_published_safely(calls, path):
    """The last write comes before the sync, that before the name, and that before the sync of the directory."""
    path = str(path)
    published = last_index(calls, lambda entry: entry.name in NAMING and path in entry.paths)
    assert published >= 0, path
    staged = next(name for name in calls[published].paths if name != path)
    named = {staged}  # it may have been called otherwise before
    for entry in reversed(calls[:published]):
        named |= set(entry.paths) if entry.name in NAMING and named & set(entry.paths) else set()
    written = last_index(calls, lambda entry: entry.name in WRITES and entry.file in (*named, path))
    synced = last_index(calls, lambda entry: entry.name in ("fsync", "fdatasync") and entry.file in named)
    directory = last_index(calls, lambda entry: entry.name == "fsync" and entry.file == os.path.dirname(path))
    assert -1 < written < synced < published < directory, (written, synced, published, directory, staged)


CREATIONS = ("create raw", "create with content", "create qcow2", "create overlay", "import to qcow2", "import to raw")


@pytest.mark.parametrize("name", [*CREATIONS, "recreate"])
def test_order_of_a_creation(top, server, name):
    host, calls = trace_of(top, server, SCENARIOS[name])
    assert_published_safely(calls, host.images / "a")


def test_order_of_many_creations(top, server):
    host, calls = trace_of(top, server, SCENARIOS["create many"])
    for number in range(1, 5):
        assert_published_safely(calls, host.images / f"v{number}")


def test_order_of_a_definition(top, server):
    host, calls = trace_of(top, server, SCENARIOS["define and start"])
    assert_published_safely(calls, host.root / "etc/libvirt/storage/images.xml")
    assert_published_safely(calls, host.root / "run/libvirt/storage/images.xml")
    for index, entry in enumerate(calls):
        if entry.name == "mkdir" and "= 0" in entry.text and "/run/" not in entry.paths[0]:
            parent = os.path.dirname(entry.paths[0])
            synced = last_index(calls, lambda later, parent=parent: later.name == "fsync" and later.file == parent)
            assert synced > index, f"{entry.paths[0]} was made, and {parent} never synced"


@pytest.mark.parametrize("name", ["grow raw", "grow qcow2", "shrink qcow2"])
def test_order_of_a_change_in_place(top, server, name):
    host, calls = trace_of(top, server, SCENARIOS[name])
    path = str(host.images / "a")
    written = last_index(calls, lambda entry: entry.name in WRITES and entry.file == path)
    synced = last_index(calls, lambda entry: entry.name in ("fsync", "fdatasync") and entry.file == path)
    assert -1 < written < synced


@pytest.mark.parametrize("name", ["delete", "delete the pool"])
def test_order_of_a_deletion(top, server, name):
    """What is gone stays gone: the directory is synced after the last name was taken out of it."""
    host, calls = trace_of(top, server, SCENARIOS[name])
    top = host.images if name == "delete" else host.root
    taken = ("rename", "renameat2", "unlink", "unlinkat", "rmdir")

    def takes(entry):
        return entry.name in taken and any(os.path.dirname(path) == str(top) for path in entry.paths)

    removed = last_index(calls, takes)
    synced = last_index(calls, lambda entry: entry.name == "fsync" and entry.file == str(top))
    assert -1 < removed < synced
