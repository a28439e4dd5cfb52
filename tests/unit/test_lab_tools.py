# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the lab promises around its guests: caches that are whole, a wire that loses nothing, no process left behind."""

from __future__ import annotations

import importlib.util
import marshal
import os
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = str(ROOT / "dev" / "lib")


@pytest.fixture(autouse=True)
def _tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab's own code, which is no part of the collection."""
    if not Path(TOOLS).is_dir():
        pytest.skip("the development tools are not part of an installed collection")
    monkeypatch.syspath_prepend(TOOLS)


# -- what is made once --------------------------------------------------------------------------------------------


def test_what_is_half_made_is_made_anew(tmp_path: Path) -> None:
    from lab.holding import made_once

    def fail(directory: Path) -> None:
        (directory / "half").touch()
        raise RuntimeError("the machine was switched off")

    with pytest.raises(RuntimeError):
        made_once(tmp_path / "made", fail, "it")
    assert not (tmp_path / "made").exists()
    made = made_once(tmp_path / "made", lambda directory: (directory / "whole").touch(), "it")
    assert [path.name for path in made.iterdir()] == ["whole"]


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    from lab.holding import made_once

    turns: list[int] = []
    for turn in range(2):
        made_once(tmp_path / "made", lambda _directory, turn=turn: turns.append(turn), "it")
    assert turns == [0]


def test_two_builders_make_it_once(tmp_path: Path) -> None:
    from lab.holding import made_once

    turns: list[str] = []
    started = threading.Barrier(2)

    def build() -> None:
        started.wait()
        made_once(tmp_path / "made", lambda directory: turns.append(directory.name), "it")

    builders = [threading.Thread(target=build) for _each in range(2)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert turns == ["made.unfinished"]


def test_another_definition_has_another_name(tmp_path: Path) -> None:
    from lab.holding import digest

    file = tmp_path / "packages.txt"
    file.write_text("lvm2\n")
    before = digest(file, "more")
    assert digest(file, "more") == before
    file.write_text("lvm2 mdadm\n")
    assert digest(file, "more") != before


# -- processes ----------------------------------------------------------------------------------------------------


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as child:
        yield child
        child.kill()


def test_only_the_process_that_was_started_is_ended(sleeper: subprocess.Popen[bytes]) -> None:
    from lab.qemu import Process

    true = Process.of(sleeper.pid)
    Process(sleeper.pid, true.started + "1").kill()  # as if the id had been given to another process
    assert sleeper.poll() is None
    true.kill()
    assert sleeper.wait() == -9
    assert not true.alive()


OWNER = """
import json, subprocess, sys
from lab import guests
from lab.qemu import Process
with guests.private_network() as network:
    guest = network / "guest1"
    guest.mkdir()
    child = Process.of(subprocess.Popen(["sleep", "1000"]).pid)
    known = {"image": "/", "number": 1, "port": 1, "pid": child.pid, "started": child.started}
    (guest / "guest.json").write_text(json.dumps(known))
    print(network, child.pid, child.started, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("killed", [True, False])
def test_guests_end_with_their_run(killed: bool, tmp_path: Path) -> None:
    from lab.qemu import Process

    env = {**os.environ, "VIRT_STORAGE_CACHE": str(tmp_path), "PYTHONPATH": TOOLS}
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdin
        assert owner.stdout
        network, pid, started = owner.stdout.readline().split()
        guest = Process(int(pid), started)
        assert guest.alive()
        if killed:
            owner.kill()
        else:
            owner.stdin.close()
        guest.wait()
        assert not guest.alive()
        owner.wait()
    if not killed:
        assert not Path(network).exists()


# -- the wire -----------------------------------------------------------------------------------------------------


def frame(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def test_the_hub_passes_frames_to_all_others_and_ends_with_the_last_guest(tmp_path: Path) -> None:
    from lab.network import Hub

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "hub"))
    listener.listen()
    guests = [socket.socket(socket.AF_UNIX) for _each in range(3)]
    for guest in guests:
        guest.connect(str(tmp_path / "hub"))
    hub = threading.Thread(target=Hub(listener).run)
    hub.start()
    first, second, third = guests
    whole = frame(b"one") + frame(b"two" * 1000)
    first.sendall(whole[:2])  # what arrives in pieces is passed on in whole frames
    first.sendall(whole[2:])
    for guest in (second, third):
        assert guest.recv(len(whole), socket.MSG_WAITALL) == whole
    third.close()
    second.sendall(frame(b"back"))
    assert first.recv(8, socket.MSG_WAITALL) == frame(b"back")
    first.close()
    second.close()
    hub.join()
    listener.close()


# -- groups -------------------------------------------------------------------------------------------------------


def test_each_test_for_guests_is_in_one_group() -> None:
    from lab import suites

    found = suites.groups()
    assert {group.thorough for group in found} == {False, True}
    assert all(group.thorough for group in found if group.outside)


def test_a_group_outside_of_guests_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lab import suites

    program = tmp_path / "dev" / "run"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho begun\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(suites, "ROOT", tmp_path)
    monkeypatch.setattr(suites, "_GROUP_SECONDS", 1)
    group = suites.Group("hanging", ["tests/lab/host/test_none.py"])
    assert group.outside
    suites.Runner([group], []).run(1)
    assert group.status not in (0, suites._NO_TESTS)
    assert "ended after 1 seconds" in group.output
    assert "begun" in group.output


def test_a_test_that_is_in_no_group_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import places
    from lab import suites

    listed = tmp_path / "groups.txt"
    listed.write_text("# none\n")
    monkeypatch.setattr(suites, "ROOT", tmp_path)
    monkeypatch.setattr(suites, "GROUPS", listed)
    monkeypatch.setattr(suites, "LAB_TESTS", tmp_path)
    (tmp_path / "test_forgotten.py").touch()
    with pytest.raises(places.Stop, match=r"test_forgotten\.py is in 0 groups"):
        suites.groups()


def test_what_goes_into_a_guest_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the source, and by its hash, where a guest's Python looks for what comes in an archive."""
    from lab import compiled

    monkeypatch.setattr(compiled, "_KEPT", tmp_path / "lab" / "kept")
    with compiled.workspace() as top:
        (top / "mod.py").write_text("VALUE = 'source'\n", encoding="utf-8")
        (top / "broken.py").write_text("def\n", encoding="utf-8")
        compiled.compile_tree(top, tmp_path / "kept")
        (found,) = (tmp_path / "kept").iterdir()
        (beside,) = (top / "__pycache__").iterdir()
        assert beside.read_bytes() == found.read_bytes()
        assert {found.stat().st_nlink, beside.stat().st_nlink} == {1}  # to tar, a new link is a change
    for content, value in ((_pyc("VALUE = 'kept'"), "kept"), (b"", "source"), (b"\0" * 64, "source")):
        found.unlink()
        found.write_bytes(content)
        assert _imported_from_archive(tmp_path) == value
    assert found.read_bytes()[8:16].hex() == found.stem  # it is kept anew


def _pyc(source: str) -> bytes:
    return importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(compile(source, "mod.py", "exec"))


def _imported_from_archive(directory: Path) -> str:
    """What ``mod`` of an archive says, to a Python that starts as those of guests do."""
    archive = directory / "archive.zip"
    with zipfile.ZipFile(archive, "w") as packing:
        packing.writestr("mod.py", "VALUE = 'source'\n")
    site = (Path(TOOLS) / "lab" / "guest" / "sitecustomize.py").read_text(encoding="utf-8")
    (directory / "sitecustomize.py").write_text(site.replace("/root/compiled", str(directory / "kept")), "utf-8")
    shown = subprocess.run(
        [sys.executable, "-c", "import mod; print(mod.VALUE)"],
        env={"PYTHONPATH": os.pathsep.join([str(directory), str(archive)])},
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout.strip()
