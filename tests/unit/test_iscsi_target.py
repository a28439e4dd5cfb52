# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role iscsi_pool makes of a declared target, on a made-up tree of the kernel's files. The scenario of
tests/molecule runs it on a kernel.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "roles" / "iscsi_pool" / "files" / "target.py"
IQN, HOST, GUEST = "iqn.2026-01.org.example:vm", "iqn.2026-01.org.example:kvm", "iqn.2026-01.org.example:guest"
OTHER = "iqn.2026-01.org.example:other"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("target", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "CONFIGFS", str(tmp_path / "target"))
    monkeypatch.setattr(module, "BLOCK", str(tmp_path / "block"))
    return module


class Kernel:
    """Made-up files of configfs."""

    def __init__(self, root: Path) -> None:
        self.root = root / "target"
        self.files = root / "files"
        self.files.mkdir()

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def unit(self, name: str = "one", iqn: str = IQN, lun: int = 0) -> str:
        served = self.files / name
        served.touch()
        store = self.root / "core" / "fileio_0" / name
        self.write(store / "udev_path", f"{served}\n")
        place = self.root / "iscsi" / iqn / "tpgt_1" / "lun" / f"lun_{lun}"
        place.mkdir(parents=True)
        (place / "alias").symlink_to(store)
        return str(served)

    def group(self, iqn: str = IQN, **attributes: str) -> Path:
        group = self.root / "iscsi" / iqn / "tpgt_1"
        self.write(group / "enable", "1\n")
        for name, value in {"authentication": "0", "generate_node_acls": "0", **attributes}.items():
            self.write(group / "attrib" / name, f"{value}\n")
        (group / "np" / "0.0.0.0:3260").mkdir(parents=True)
        return group

    def acl(self, group: Path, name: str = HOST, logged_in: bool = False, luns: tuple[int, ...] = (0,)) -> None:
        acl = group / "acls" / name
        self.write(acl / "info", "InitiatorName: x\n" if logged_in else "No active iSCSI Session\n")
        for file in ("userid", "password", "userid_mutual", "password_mutual"):
            self.write(acl / "auth" / file, "NULL\n")
        for lun in luns:
            (acl / f"lun_{lun}").mkdir()
            (acl / f"lun_{lun}" / "alias").symlink_to(group / "lun" / f"lun_{lun}")


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def given(path: str = "/srv/one", **more: Any) -> dict[str, Any]:
    return {
        "check": False,
        "state": "present",
        "iqn": IQN,
        "luns": [{"path": path, "size": "1M"}],
        "initiators": [{"iqn": HOST}],
        "portals": ["0.0.0.0"],
        "in_use": False,
        **more,
    }


def verbs(program: Any, **declared: Any) -> list[str]:
    goal = program.declared_of(given(**declared))
    program.check(goal, program.running(IQN), True)
    return [verb for verb, _subject, _words in program.steps_for(goal, program.running(IQN))]


def refused(program: Any, **declared: Any) -> str:
    with pytest.raises(program.Refused) as caught:
        verbs(program, **declared)
    return str(caught.value)


def test_all_of_it_is_made(program: Any, kernel: Kernel) -> None:
    made = verbs(program, path=str(kernel.files / "new"))
    assert made == ["target", "lun", "attribute", "attribute", "acl", "map", "portal", "enable"]


def test_what_is_as_declared_is_left(program: Any, kernel: Kernel) -> None:
    path = kernel.unit()
    kernel.acl(kernel.group())
    assert verbs(program, path=path) == []


def test_only_the_difference_is_made(program: Any, kernel: Kernel) -> None:
    path = kernel.unit()
    kernel.acl(kernel.group(), logged_in=True)
    luns = [{"path": path}, {"path": str(kernel.files / "two"), "size": "1M"}]
    assert verbs(program, luns=luns) == ["lun", "map"]
    chap = {"username": "u", "secret": "sesamesesame"}
    assert verbs(program, path=path, initiators=[{"iqn": HOST, **chap}]) == ["attribute", "chap"]
    assert verbs(program, path=path, initiators=[{"iqn": HOST}, {"iqn": GUEST}]) == ["acl", "map"]
    assert verbs(program, path=path, portals=["192.0.2.1:3261", "0.0.0.0:3260"]) == ["portal"]


def test_what_others_have_is_kept(program: Any, kernel: Kernel) -> None:
    """A unit and an initiator that are not listed stay, and so does the target then."""
    path = kernel.unit()
    kernel.unit("more", lun=5)
    group = kernel.group()
    kernel.acl(group, luns=(0, 5))
    kernel.acl(group, GUEST)
    assert verbs(program, path=path) == []
    assert verbs(program, path=path, state="absent") == ["drop acl", "drop lun"]
    both = [{"path": path}, {"path": str(kernel.files / "more"), "lun": 5}]
    whole = {"luns": both, "initiators": [{"iqn": HOST}, {"iqn": GUEST}]}
    assert verbs(program, state="absent", **whole) == [*["drop acl"] * 2, *["drop lun"] * 2, "drop target"]


def test_who_is_logged_in_is_not_cut_off(program: Any, kernel: Kernel) -> None:
    path = kernel.unit()
    kernel.acl(kernel.group(), logged_in=True)
    assert f"{HOST} are logged in to {IQN}" in refused(program, path=path, state="absent")
    assert "logged in" in refused(program, path=path, initiators=[{"iqn": HOST, "state": "absent"}])
    assert verbs(program, path=path, state="absent", in_use=True) == ["drop acl", "drop lun", "drop target"]


def test_who_came_in_unlisted_is_not_shut_out(program: Any, kernel: Kernel) -> None:
    """Running guests lose their disks at the next reconnect, not at once."""
    path = kernel.unit()
    group = kernel.group(generate_node_acls="1")
    kernel.write(group / "dynamic_sessions", f"{GUEST}\0\n")
    assert f"{GUEST} are logged in to {IQN}, and would not be let in again: list them," in refused(program, path=path)
    assert verbs(program, path=path, initiators=[{"iqn": GUEST}]) == ["attribute", "acl", "map"]
    assert verbs(program, path=path, in_use=True) == ["attribute", "acl", "map"]


def test_who_has_no_secret_is_not_shut_out(program: Any, kernel: Kernel) -> None:
    path = kernel.unit()
    group = kernel.group()
    kernel.acl(group, GUEST, logged_in=True)
    ours = {"iqn": HOST, "username": "u", "secret": "sesamesesame"}
    assert "list them with a secret" in refused(program, path=path, initiators=[ours])
    kernel.write(group / "acls" / GUEST / "auth" / "userid", "theirs\n")
    assert verbs(program, path=path, initiators=[ours]) == ["attribute", "acl", "chap", "map"]
    kernel.write(group / "attrib" / "authentication", "1\n")
    kernel.write(group / "acls" / GUEST / "auth" / "userid", "NULL\n")
    assert verbs(program, path=path, initiators=[ours]) == ["acl", "chap", "map"]


def test_what_is_refused(program: Any, kernel: Kernel) -> None:
    path = kernel.unit()
    kernel.group()
    theirs = kernel.unit("theirs", OTHER)
    assert "give /srv/two another number" in refused(program, path="/srv/two")
    more = {"path": theirs, "lun": 1}
    assert f"served already, by {OTHER}" in refused(program, luns=[{"path": path}, more])
    named = {"path": str(kernel.files / "x"), "size": "1M", "lun": 1, "name": "theirs"}
    assert "a name of its own" in refused(program, luns=[{"path": path}, named])
    assert "there is no device" in refused(program, luns=[{"path": path}, {"path": "/dev/none"}])
    assert "how large" in refused(program, luns=[{"path": path}, {"path": str(kernel.files / "x")}])
    (kernel.files / "large").write_bytes(bytes(2048))
    large = {"path": str(kernel.files / "large"), "size": "1K"}
    assert "nothing is cut off" in refused(program, luns=[{"path": path}, large])
    assert "of all, or of nobody" in refused(
        program, initiators=[{"iqn": HOST, "username": "u", "secret": "s"}, {"iqn": GUEST}]
    )
    assert "goes with" in refused(program, initiators=[{"iqn": HOST, "secret": "sesamesesame"}])
    assert "no name of a target" in refused(program, iqn="iqn.2026-01.example:x")


def test_a_file_that_somebody_has_is_not_served(program: Any, kernel: Kernel, tmp_path: Path) -> None:
    used, other = kernel.files / "guest.raw", kernel.files / "other.raw"
    for path in (used, other):
        path.write_bytes(bytes(512))
    declared = {"luns": [{"path": str(used)}]}
    with used.open("rb"):
        assert f"{used} is in use by process {os.getpid()} (" in refused(program, **declared)
        assert verbs(program, luns=[{"path": str(other)}])[:2] == ["target", "lun"]
        assert "lun" in verbs(program, in_use=True, **declared)
    assert "lun" in verbs(program, **declared)
    kernel.write(tmp_path / "block" / "loop7" / "loop" / "backing_file", f"{used}\n")
    assert f"{used} is in use by /dev/loop7: free it first" in refused(program, **declared)


def test_swap_is_not_served(program: Any, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "PROC", str(tmp_path / "proc"))
    used = kernel.files / "swap file"
    used.write_bytes(bytes(512))
    assert "lun" in verbs(program, luns=[{"path": str(used)}])
    shown = str(used).replace(" ", "\\040")
    kernel.write(tmp_path / "proc" / "swaps", f"Filename Type Size Used Priority\n{shown} file 4 0 -2\n")
    assert "is in use by the kernel, as swap" in refused(program, luns=[{"path": str(used)}])


def test_what_the_target_has_already_is_served(program: Any, kernel: Kernel) -> None:
    """A storage object that no target has is taken."""
    path = kernel.unit("theirs", OTHER)
    for lun in (kernel.root / "iscsi" / OTHER / "tpgt_1" / "lun" / "lun_0").iterdir():
        lun.unlink()
    with open(path, "rb"):
        assert "lun" in verbs(program, path=path)


def test_a_device_that_the_kernel_has_is_not_served(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can't be opened for itself alone."""
    monkeypatch.setattr(program, "PROC", str(tmp_path / "proc"))
    asked, closed = [], []

    def busy(path: str, flags: int) -> int:
        asked.append((path, flags & (os.O_EXCL | os.O_ACCMODE | os.O_CREAT)))
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(program.stat, "S_ISBLK", lambda _mode: True)
    monkeypatch.setattr(program.os, "open", busy)
    assert [*program._users("/dev/null")] == ["the kernel (it is mounted, swapped to, or part of another device)"]
    assert asked == [("/dev/null", os.O_EXCL)]
    monkeypatch.setattr(program.os, "open", lambda _path, _flags: 7)
    monkeypatch.setattr(program.os, "close", closed.append)
    assert [*program._users("/dev/null")] == []
    assert closed == [7]


def test_who_may_write_to_a_device_has_it(
    program: Any, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the process of a guest, which does not ask for it alone."""
    monkeypatch.setattr(program, "PROC", str(tmp_path / "proc"))
    monkeypatch.setattr(program.stat, "S_ISBLK", lambda _mode: True)
    monkeypatch.setattr(program.os, "open", lambda _path, _flags: 7)
    monkeypatch.setattr(program.os, "close", lambda _descriptor: None)
    process = tmp_path / "proc" / "42"
    kernel.write(process / "comm", "qemu\n")
    (process / "fd").mkdir()
    (process / "fd" / "9").symlink_to("/dev/null")
    for flags, told in (("0100000", []), ("0100002", ["process 42 (qemu)"]), ("0140001", ["process 42 (qemu)"])):
        kernel.write(process / "fdinfo" / "9", f"pos:\t0\nflags:\t{flags}\n")
        assert [*program._users("/dev/null")] == told
    assert [*program._users("/dev/zero")] == []


def test_a_size_that_is_not_made_is_told(program: Any, kernel: Kernel) -> None:
    path = kernel.unit()
    kernel.acl(kernel.group())
    Path(path).write_bytes(bytes(1 << 20))
    told = [*program.notes_of(program.declared_of(given(path=path)), program.running(IQN))]
    assert told == []
    larger = given(luns=[{"path": path, "size": "2M"}])
    told = [*program.notes_of(program.declared_of(larger), program.running(IQN))]
    assert [text.partition(":")[0] for text in told] == ["LUN 0 keeps its size, 1048576 bytes"]
    gone = given(luns=[{"path": path, "size": "2M"}], state="absent")
    assert not [*program.notes_of(program.declared_of(gone), program.running(IQN))]


def test_sizes_and_portals_are_read_as_elsewhere(program: Any) -> None:
    sizes = {"1G": 1 << 30, "1GiB": 1 << 30, "1 MiB": 1 << 20, "512": 512, "512B": 512, "128MB": 128 * 10**6}
    assert {text: program.bytes_of(text) for text in sizes} == sizes
    for text in ("1X", "", "-1G", "100", "0"):
        with pytest.raises(program.Refused):
            program.bytes_of(text)
    portals = {"192.0.2.1": "192.0.2.1:3260", "[fd00::1]:3261": "[fd00::1]:3261", "fd00::1": "[fd00::1]:3260"}
    assert {text: program.portal_of(text) for text in [*portals, "192.0.2.1:1"]} == {
        **portals,
        "192.0.2.1:1": "192.0.2.1:1",
    }


def saved_target(iqn: str, *names: str) -> dict[str, Any]:
    luns = [{"index": lun, "storage_object": f"/backstores/fileio/{name}"} for lun, name in enumerate(names)]
    return {"wwn": iqn, "fabric": "iscsi", "tpgs": [{"tag": 1, "enable": True, "luns": luns}]}


def store(name: str, **more: Any) -> dict[str, Any]:
    return {"plugin": "fileio", "name": name, "dev": f"/srv/{name}", **more}


def test_of_what_is_saved_only_ours_is_replaced(program: Any, tmp_path: Path) -> None:
    path = tmp_path / "saveconfig.json"
    before = {
        "storage_objects": [store("one"), store("theirs"), store("asleep"), store("shared")],
        "targets": [saved_target(OTHER, "theirs", "shared"), saved_target(IQN, "one", "shared")],
        "fabric_modules": [{"name": "iscsi"}],
    }
    now = {
        "storage_objects": [store("two", size=1), store("theirs", size=9), store("unsaved")],
        "targets": [saved_target(IQN, "two"), saved_target("iqn.2026-01.org.example:unsaved", "unsaved")],
    }
    program.save(str(path), before, now, IQN)
    after = json.loads(path.read_text(encoding="utf-8"))
    assert after["storage_objects"] == [store("theirs"), store("asleep"), store("shared"), store("two", size=1)]
    assert after["targets"] == [before["targets"][0], now["targets"][0]]
    assert after["fabric_modules"] == before["fabric_modules"]
    assert path.stat().st_mode & 0o777 == 0o600
    goal = program.declared_of(given(path="/srv/two"))
    left = program.steps_for(goal, program.saved(IQN, after))
    assert [step[0] for step in left] == ["attribute", "attribute", "acl", "map", "portal"]
