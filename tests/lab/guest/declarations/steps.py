# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One sequence of tasks on real storage, and everything that is held against each of them."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Protocol
from xml.etree import ElementTree

from tests.integration.calling import call
from tests.integration.declarations.results import actions, check_result, code_of, masked
from tests.integration.declarations.watching import Recorder, but_locks, less_locks

from .machine import Disks, Fingerprint, changes, fingerprint, settle, tool

RECORDER = Recorder()
STEPS = 4
PATIENCE = 300  # seconds: a guest without hardware virtualisation on a busy machine is no measure
SHOW = bool(os.environ.get("DECLARATIONS_SHOW"))  # tell each step as it happens
# The only codes on which check mode and the real run may differ.
MISSING = {"pool_missing", "pool_inactive", "backing_missing", "source_missing"}
# What only doing can show: nothing here lets it happen.
WHILE_DOING = {"changed_meanwhile", "command_failed", "operation_failed", "deadline", "not_done"}


@dataclass(frozen=True)
class Task:
    """What a task says; ``wanted`` are the entries of a task on volumes, with what they take from the task."""

    module: str
    params: dict[str, Any]
    wanted: tuple[dict[str, Any], ...] = ()

    def __str__(self) -> str:
        return f"{self.module}: {self.params}"


@dataclass(frozen=True)
class Seen:
    """A volume as tools see it. ``key`` stays when its name changes. ``at``: (node, offset) of its first byte where
    there can be marks in it, or ``file``: its path. ``on``: what a plan may call what it is lost with: its devices, its
    volume group, an export. ``within``: the volume of another pool that it is lost with.
    """

    name: str
    key: str
    size: int
    format: str = ""
    at: tuple[str, int] | None = None
    file: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    on: tuple[str, ...] = ()
    within: str = ""


@dataclass
class Reading:
    """What tools say of the storage that a kind of pool is about. ``facts`` are the kind's own."""

    volumes: dict[str, Seen] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Canary:
    """Bytes in a volume that no task has reason to change. ``where``: head or tail."""

    volume: Seen
    where: str
    offset: int
    mark: bytes


class Kind(Protocol):
    """What differs between types of pools: see declaring.py."""

    type: str
    disks: Disks
    tops: tuple[Path, ...]

    def start(self, numbers: Random) -> str: ...
    def hand(self, numbers: Random, reading: Reading) -> str: ...
    def groundwork(self, numbers: Random) -> list[Task]: ...
    def opening(self, numbers: Random) -> Task: ...
    def task(self, numbers: Random, reading: Reading, records: Records) -> Task: ...
    def settled(self, numbers: Random, reading: Reading, records: Records) -> Task: ...
    def read(self) -> Reading: ...
    def holds(self, task: Task, done: dict[str, Any], reading: Reading, records: Records) -> list[str]: ...
    def put(self, volume: Seen, marks: dict[int, bytes]) -> None: ...
    def get(self, volume: Seen, offset: int, size: int) -> bytes: ...
    def hides(self, canary: Canary) -> bool: ...
    def forgotten(self) -> None: ...
    def unforeseen(self, error: dict[str, Any]) -> bool: ...
    def clean(self) -> None: ...
    def scenario(self) -> list[Task]: ...


class Records:
    """The engine's files below a root, read without the engine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _texts(self, place: str) -> dict[str, ElementTree.Element]:
        found = {}
        for path in (self.root / place).glob("*.xml"):
            tree = ElementTree.fromstring(path.read_text(encoding="utf-8"))
            pool = tree if tree.tag == "pool" else tree.find("pool")
            if pool is not None:
                found[pool.findtext("name") or ""] = pool
        return found

    @property
    def defined(self) -> dict[str, ElementTree.Element]:
        return self._texts("etc/libvirt/storage")

    @property
    def started(self) -> dict[str, ElementTree.Element]:
        return self._texts("run/libvirt/storage")

    def autostart(self, name: str) -> bool:
        return os.path.lexists(self.root / "etc/libvirt/storage/autostart" / f"{name}.xml")

    def forget_boot(self) -> None:
        """As a boot does: /run is empty."""
        tool("rm", "-rf", str(self.root / "run"))


# -- what may be started to look ----------------------------------------------------------------------------------

_LOOKS = (
    r"(lvm )?(lvs|vgs|pvs|fullreport|lvmconfig|lvmdevices|version|config)\b(?!.*--(add|del))",
    r"sfdisk .*(--json|-J|--dump|-d|--list|-l|-V|--verify|--version)\b",
    r"parted (?!.* (mklabel|mkpart|rm|resizepart|set|type|name)\b).*print",
    r"(blkid|lsblk|findmnt|udevadm|showmount|fuser|lsof|dumpe2fs|file|modinfo|uname|ps|getent|losetup --(json|list))\b",
    r"wipefs (?!.*(-a|--all|-o|--offset)\b)",
    r"qemu-img (info|measure|check|map|compare|--version)\b",
    r"dmsetup (ls|info|table|status|deps)\b",
    r"btrfs (filesystem|fi|device) (show|scan|usage)\b",
    r"xfs_(info|db -r)\b",
    r"mdadm (--examine|--detail|-E|-D)\b",
    r"modprobe (-n|--dry-run|--show)",
)
_LOOK = re.compile("|".join(f"(?:{look})" for look in _LOOKS))


def acts(events: list[tuple[str, str]], root: Path) -> list[tuple[str, str]]:
    """What was done beyond looking and taking the task's locks."""
    return [event for event in but_locks(events, root) if not _is_look(*event)]


def _is_look(event: str, what: str) -> bool:
    if event == "os.fork":
        return True  # a child that can be left behind when what it looks at hangs
    if event == "open":
        return what in ("/dev/null", "/dev/tty")
    if event == "subprocess.Popen":
        words = what.split(" ", 1)[1]
        program, _space, rest = words.partition(" ")
        return _LOOK.match(f"{os.path.basename(program)} {rest}") is not None
    return event == "os.posix_spawn"


# -- a sequence ---------------------------------------------------------------------------------------------------


class Sequence:
    def __init__(self, kind: Kind, numbers: Random, top: Path, counts: Counter) -> None:
        self.kind, self.numbers, self.counts = kind, numbers, counts
        self.top, self.root = top, top / "root"
        self.records = Records(self.root)
        self.uri = f"native:///?root={self.root}"
        self.notes: list[str] = []
        self.canaries: list[Canary] = []
        self.reading = Reading()
        self.last: Fingerprint = {}

    def note(self, text: str) -> None:
        self.notes.append(text)
        if SHOW:
            print(f"  [{time.monotonic():.1f}] {text}")

    def run(self) -> None:
        self.note(f"start: {self.kind.start(self.numbers)}")
        for task in self.kind.groundwork(self.numbers):
            self._lay(task)
        self._by_hand_is_done()
        settled = self.numbers.randrange(1, STEPS)  # most tasks change something: one of each sequence should not
        for step in range(STEPS):
            if self.numbers.random() < 0.25 and step != settled:
                self._by_hand()
            if step == 0 and self.numbers.random() < 0.75:
                task = self.kind.opening(self.numbers)
            elif step == settled:
                task = self.kind.settled(self.numbers, self.reading, self.records)
            else:
                task = self.kind.task(self.numbers, self.reading, self.records)
            self.note(str(task))
            self.do(task)

    def _lay(self, task: Task) -> None:
        result = call(task.module, uri=self.uri, timeout=PATIENCE, **task.params)
        self.note(f"before: {task}: {_told(result)}")
        assert code_of(result) not in WHILE_DOING, f"failed while doing it: {result['error']}"

    def _by_hand(self) -> None:
        if self.numbers.random() < 0.15:
            self.note("by hand: forgotten as at a boot")
            self.records.forget_boot()
            self.kind.forgotten()
        else:
            self.note(f"by hand: {self.kind.hand(self.numbers, self.reading)}")
        self._by_hand_is_done()

    def _by_hand_is_done(self) -> None:
        """What is there now is what the next task finds; marks that a hand destroyed are no longer looked for."""
        settle()
        self.reading = self.kind.read()
        self._mark(kept=[canary for canary in self.canaries if self._lives(canary)])
        self.last = self._look()

    def _look(self) -> Fingerprint:
        return fingerprint(self.kind.disks, self.top, *self.kind.tops)

    def _changes(self, before: Fingerprint, after: Fingerprint) -> dict[str, str]:
        """Less what taking locks may change."""
        found, prefix = changes(before, after), f"{self.top}/"
        own = {name[len(prefix) :]: what for name, what in found.items() if name.startswith(prefix)}
        rest = {name: what for name, what in found.items() if not name.startswith(prefix)}
        return {**rest, **less_locks(own, "root")}

    def _run(self, task: Task, check: bool) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        with RECORDER.recording() as events:
            result = call(task.module, check, uri=self.uri, timeout=PATIENCE, **task.params)
        acted = acts(events, self.root)
        if acted:
            settle()
        return result, acted

    def do(self, task: Task) -> None:
        """Check mode, a real run, a second one, and what is there then."""
        checked, events = self._run(task, True)
        found = changes(self.last, self._look())
        assert not found, f"check mode ({code_of(checked) or 'not refused'}) changed {found}"
        assert not events, f"check mode did {events}"
        done, events = self._run(task, False)
        after = self._look()
        found = self._changes(self.last, after)
        self.note(f"  {_told(done)}")
        check_result(checked)
        check_result(done)
        code = code_of(done)
        if code in {*WHILE_DOING, *MISSING} and not code_of(checked) and self.kind.unforeseen(done["error"]):
            self._failed(task, done, after)
            return
        agree(checked, done)
        assert code not in WHILE_DOING, f"failed while doing it: {done['error']}"
        if code:
            assert not found, f"refused ({code}), but changed {found}"
            assert not events, f"refused ({code}), but did {events}"
            assert not done["changed"], "refused, but says that it changed something"
        else:
            assert bool(found) == done["changed"] == bool(done["plan"]), (
                f"changed {found}, says changed: {done['changed']}, plan {done['plan']}"
            )
            assert done["changed"] or not events, f"had nothing to do, but did {events}"
        if found:
            self.reading = self.kind.read()
        self._canaries(done)
        if not code:
            wrong = self._records(task) + self.kind.holds(task, done, self.reading, self.records)
            assert not wrong, "; ".join(wrong)
        self._again(task, done, after)
        self._count(task, done)

    def _failed(self, task: Task, done: dict[str, Any], after: Fingerprint) -> None:
        """What only the real run could tell: a pool is not started, a unit is not served, and nothing else is lost."""
        if task.module == "storage_pool":
            assert task.params["name"] not in self.records.started, "it failed to start, and is started"
        assert done["changed"] or not self._changes(self.last, after), "it changed something, and does not say so"
        self.reading = self.kind.read()
        self._canaries(done)
        self.last = after
        self._count(task, done)

    def _records(self, task: Task) -> list[str]:
        if task.module != "storage_pool":
            return []
        name, state = task.params["name"], task.params.get("state", "active")
        wrong = []
        if (name in self.records.defined) != (state not in ("absent", "deleted")):
            wrong.append(f"pool {name} is {'not ' * (name not in self.records.defined)}defined")
        if state != "present" and (name in self.records.started) != (state == "active"):
            wrong.append(f"pool {name} is {'not ' * (name not in self.records.started)}started")
        autostart = task.params.get("autostart")
        if state in ("absent", "deleted"):
            autostart = False
        if autostart is not None and self.records.autostart(name) != autostart:
            wrong.append(f"autostart of pool {name} is {not autostart}")
        return wrong

    def _again(self, task: Task, done: dict[str, Any], before: Fingerprint) -> None:
        """A second run after one that changed something: one that did not was the second one, after check mode."""
        self.last = before
        if done["changed"]:
            again, events = self._run(task, False)
            self.last = self._look()
            found = self._changes(before, self.last)
            assert not code_of(again), f"the second run says {again.get('error')}"
            assert not found, f"the second run changed {found}"
            assert not events, f"the second run did {events}"
            assert not again["changed"], again["plan"]
            assert again["plan"] == [], again["plan"]
        if self._mark(kept=[canary for canary in self.canaries if self._lives(canary)]):
            self.last = self._look()

    # -- canaries -------------------------------------------------------------------------------------------------

    def _mark(self, kept: list[Canary]) -> bool:
        """Marks in volumes that have none yet. Whether any were made."""
        marked = {canary.volume.key for canary in kept}
        new = marks(self.kind, self.numbers, self.reading, marked)
        self.canaries = [*kept, *new]
        return bool(new)

    def _lives(self, canary: Canary) -> bool:
        return lives(self.kind, canary, self.reading)

    def _canaries(self, done: dict[str, Any]) -> None:
        self.kind.disks.flush()
        dead = [canary for canary in self.canaries if not self._lives(canary)]
        lost = [f"{c.where} of {c.volume.name} ({c.volume.key})" for c in dead if not named(done["plan"], c)]
        assert not lost, f"lost without a word: {lost}; plan: {done['plan']}"
        self.counts["canaries that died as said"] += len(dead)
        self.counts["canaries that lived"] += len(self.canaries) - len(dead)

    # -- counting -------------------------------------------------------------------------------------------------

    def _count(self, task: Task, done: dict[str, Any]) -> None:
        code = code_of(done)
        self.counts["steps"] += 1
        self.counts["refused" if code else "changed" if done["changed"] else "no-op"] += 1
        if code:
            self.counts[f"refused: {code}"] += 1
        else:
            self.counts.update(f"action: {action}" for action in {_action(entry) for entry in done["plan"]})


def _action(entry: dict[str, Any]) -> str:
    of = f"{entry['action']} {entry['subject'].split(' ')[0]}"
    return f"{of} (loses)" if entry["destroys"] and entry["action"] != "delete" else of


def _told(done: dict[str, Any]) -> str:
    if code_of(done):
        return f"refused: {done['error']['code']}: {done['error']['message']}"
    return "changed: " + ", ".join(f"{a} {s}" for a, s in actions(done["plan"])) if done["changed"] else "nothing to do"


def marks(kind: Kind, numbers: Random, reading: Reading, marked: set[str]) -> list[Canary]:
    """Canaries that were put into volumes, near both ends, but for those with the keys ``marked``."""
    made: list[Canary] = []
    for volume in reading.volumes.values():
        twice = any(canary.volume.key == volume.key for canary in made)  # one storage, mounted on two paths
        if twice or volume.key in marked or not (volume.at or volume.file) or volume.size < 2**20:
            continue
        places = {96 * 1024 + 512: "head", volume.size // 512 * 512 - 96 * 1024: "tail"}
        mine = [Canary(volume, where, offset, numbers.randbytes(16)) for offset, where in places.items()]
        kind.put(volume, {canary.offset: canary.mark for canary in mine})
        made += mine
    return made


def lives(kind: Kind, canary: Canary, reading: Reading) -> bool:
    now = next((each for each in reading.volumes.values() if each.key == canary.volume.key), None)
    if now is None:
        return kind.hides(canary)
    return not (now.at or now.file) or kind.get(now, canary.offset, len(canary.mark)) == canary.mark


def named(plan: list[dict[str, Any]], canary: Canary) -> bool:
    """Whether the plan says that this is lost: its volume by name, or what it is on."""
    for entry in plan:
        if not entry["destroys"]:
            continue
        subjects = entry.get("subjects", [entry["subject"]])
        if any(subject.endswith(f"/{canary.volume.name}") for subject in subjects):
            return entry["action"] != "resize" or canary.where == "tail"
        if canary.volume.within and any(subject.endswith(f"/{canary.volume.within}") for subject in subjects):
            return True
        of_pool = any(subject.startswith("pool ") for subject in subjects)
        if of_pool and any(_says(entry["destroys"], name) for name in canary.volume.on):
            return True
    return False


def _says(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w/.-]){re.escape(name)}(?![\w/-])", text) is not None


def agree(checked: dict[str, Any], done: dict[str, Any]) -> None:
    """Check mode told the truth."""
    code, foreseen = code_of(done), code_of(checked)
    if code in MISSING and not foreseen:
        assert any("as if an earlier task had" in text for text in checked["warnings"]), checked["warnings"]
        return
    assert foreseen == code, f"check mode says {checked.get('error')}, the real run {done.get('error')}"
    assert masked(checked["diff"], checked["diff"]) == masked(checked["diff"], done["diff"]), (
        f"diffs: check mode {checked['diff']}, real run {done['diff']}"
    )
    assert checked["changed"] == done["changed"]
    assert checked["plan"] == done["plan"], f"plans: check mode {checked['plan']}, real run {done['plan']}"
