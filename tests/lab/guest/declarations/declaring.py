# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What all types share: which task comes next, and what is there of what it declared."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

from .machine import Disks
from .steps import Canary, Reading, Records, Seen, Task

MIB = 2**20
_ACTIVE_STATES = (None, "active", "inactive", "absent", "deleted", "deleted", "present")
_OTHER_STATES = ("active", None, None, "present", "deleted", "inactive")


class Declaring:
    """The methods that raise NotImplementedError are those of each type; ``names`` are those of its pools, mostly two,
    of which the first one is declared more often.
    """

    type = ""
    names: tuple[str, ...]
    disks: Disks
    tops: tuple[Path, ...] = ()
    chance_of_change = 0.57  # that an entry is about a volume that is there

    # -- what is there --------------------------------------------------------------------------------------------

    def start(self, numbers: Random) -> str:
        """Storage that nobody here made. What it is, in words."""
        raise NotImplementedError

    def hand(self, numbers: Random, reading: Reading) -> str:
        """Changes something as somebody would between two tasks. What, in words."""
        raise NotImplementedError

    def read(self) -> Reading:
        raise NotImplementedError

    def put(self, volume: Seen, marks: dict[int, bytes]) -> None:
        """Writes bytes into a volume, by their offsets."""
        raise NotImplementedError

    def get(self, volume: Seen, offset: int, size: int) -> bytes:
        raise NotImplementedError

    def hides(self, canary: Canary) -> bool:
        """Whether a mark is there although its volume is not to be seen now."""
        return False

    def forgotten(self) -> None:
        """The engine's notes of what it has started are gone."""

    def unforeseen(self, error: dict[str, Any]) -> bool:
        """Whether a task fails so for what nobody could know before."""
        return False

    def clean(self) -> None:
        """As before the first sequence."""
        self.disks.blank()

    def end(self) -> None:
        self.clean()
        self.disks.detach()

    # -- tasks ----------------------------------------------------------------------------------------------------

    def groundwork(self, numbers: Random) -> list[Task]:
        """What has been done by earlier tasks."""
        return []

    def kind_of(self, name: str) -> str:
        """The type of a pool."""
        return self.type

    def pick(self, numbers: Random) -> str:
        """The pool that a task is about."""
        return self.names[0] if numbers.random() < 0.83 else self.names[1]

    def pick_settled(self, numbers: Random, running: list[str]) -> str:
        return running[0]

    def declared(self, numbers: Random, name: str) -> dict[str, Any]:
        """The options that say what a pool is, without its type."""
        raise NotImplementedError

    def where(self, name: str, defined: dict[str, ElementTree.Element]) -> str:
        """``Seen.facts["pool"]`` of the volumes of a pool."""
        return name

    def every(self, where: str) -> str:
        """A pattern for the names of all volumes of a pool."""
        return "*"

    def runs(self, name: str, reading: Reading, records: Records) -> bool:
        """Whether tasks on volumes of this pool are worth a try."""
        return name in records.started

    def new(self, numbers: Random, where: str, there: list[Seen], taken: set[str]) -> dict[str, Any]:
        """An entry on a volume that mostly is not there. ``taken``: names that are there or in the same task."""
        raise NotImplementedError

    def change(self, numbers: Random, have: Seen) -> dict[str, Any]:
        """An entry on a volume that is there."""
        raise NotImplementedError

    def same(self, numbers: Random, have: Seen) -> dict[str, Any]:
        """An entry that says what is there of a volume."""
        return {"name": have.name, "capacity": str(have.size)}

    def more(self, numbers: Random, whole: bool) -> dict[str, Any]:
        """Further options of a task on a pool. ``whole``: it says what the pool is."""
        return {}

    def may(self, numbers: Random) -> list[str]:
        """Words of ``allow`` of a task on a pool."""
        allow = [word for word in ("overwrite", "nonempty", "stop_adopted") if numbers.random() < 0.4]
        return allow + [word for word in ("in_use", "restart") if numbers.random() < 0.1]

    def task(self, numbers: Random, reading: Reading, records: Records) -> Task:
        """Anything."""
        name = self.pick(numbers)
        if not self.runs(name, reading, records) and numbers.random() < 0.87:
            return self._pool(numbers, name, _OTHER_STATES)
        if numbers.random() < 0.4:
            return self._pool(numbers, name, _ACTIVE_STATES)
        return self._volumes(numbers, name, reading, records)

    def settled(self, numbers: Random, reading: Reading, records: Records) -> Task:
        """What mostly says what is there already."""
        defined, running = records.defined, [name for name in self.names if self.runs(name, reading, records)]
        if not running:
            name = numbers.choice([*defined, self.names[1]])
            state = "absent" if name not in defined else "present" if name in records.started else "inactive"
            return Task("storage_pool", {"name": name, "state": numbers.choice((state, "present", state))})
        name = self.pick_settled(numbers, running)
        where = self.where(name, defined)
        there = _of(reading, where)
        kind = numbers.choice(("volumes", "volumes", "pool", "nothing"))
        if kind == "volumes" and there:
            entries = [self.same(numbers, have) for have in numbers.sample(there, min(len(there), 3))]
            return _volumes_task({"pool": name}, entries)
        if kind == "nothing":
            entry = self.new(numbers, where, there, {have.name for have in there})
            return _volumes_task({"pool": name}, [{"name": entry["name"], "state": "absent"}])
        return Task("storage_pool", {"name": name, "state": numbers.choice(("active", "present"))})

    def _pool(self, numbers: Random, name: str, states: tuple[str | None, ...]) -> Task:
        params: dict[str, Any] = {"name": name}
        state = numbers.choice(states)
        if state is not None:
            params["state"] = state
        if state not in ("inactive", "absent") or numbers.random() < 0.3:
            params.update(type=self.kind_of(name), **self.declared(numbers, name))
        if numbers.random() < 0.12:
            params["build"] = "never"
        if numbers.random() < 0.2:
            params["autostart"] = numbers.random() < 0.6
        params.update(self.more(numbers, "type" in params))
        allow = self.may(numbers)
        return Task("storage_pool", {**params, **({"allow": allow} if allow else {})})

    def _volumes(self, numbers: Random, name: str, reading: Reading, records: Records) -> Task:
        where = self.where(name, records.defined)
        there = _of(reading, where)
        entries: dict[str, dict[str, Any]] = {}
        for _each in range(numbers.choice((1, 1, 2, 3, 4))):
            if there and numbers.random() < self.chance_of_change:
                entry = self.change(numbers, numbers.choice(there))
            else:
                entry = self.new(numbers, where, there, {have.name for have in there} | set(entries))
            entries.setdefault(entry["name"], entry)
        params: dict[str, Any] = {"pool": name}
        if numbers.random() < 0.12:
            params["exclusive"] = self.every(where)
        return _volumes_task(params, list(entries.values()))

    # -- what was declared ----------------------------------------------------------------------------------------

    def holds(self, task: Task, done: dict[str, Any], reading: Reading, records: Records) -> list[str]:
        """What of a task that did not fail is not there, in words."""
        if task.module == "storage_pool":
            return self._pool_holds(task, bool(done["changed"]), reading, records)
        return self._volumes_hold(task, bool(done["changed"]), reading, records)

    def _pool_holds(self, task: Task, changed: bool, reading: Reading, records: Records) -> list[str]:
        raise NotImplementedError

    def _volumes_hold(self, task: Task, changed: bool, reading: Reading, records: Records) -> list[str]:
        where, wrong = self.where(task.params["pool"], records.defined), []
        for entry in task.wanted:
            name, have = entry["name"], reading.volumes.get(f"{where}/{entry['name']}")
            if (entry.get("state") == "absent") != (have is None):
                wrong.append(f"{name} is {'not ' * (have is None)}there")
            elif have is not None and entry.get("state") != "absent":
                wrong += self._volume_holds(entry, have, changed)
        listed = {entry["name"] for entry in task.wanted}
        more = [have.name for have in _of(reading, where) if "exclusive" in task.params and have.name not in listed]
        return wrong + [f"beside what is listed there are {more}"] * bool(more)

    def _volume_holds(self, entry: dict[str, Any], have: Seen, changed: bool) -> list[str]:
        raise NotImplementedError

    def _content_differs(self, entry: dict[str, Any], have: Seen) -> list[str]:
        content = entry.get("source", {}).get("content", "").encode()
        differs = content and (have.at or have.file) and self.get(have, 0, len(content)) != content
        return [f"{have.name} does not begin with its content"] * bool(differs)


def _of(reading: Reading, where: str) -> list[Seen]:
    return [volume for volume in reading.volumes.values() if volume.facts["pool"] == where]


def _volumes_task(params: dict[str, Any], wanted: list[dict[str, Any]]) -> Task:
    """One volume is said without a list."""
    alone = len(wanted) == 1 and "exclusive" not in params
    return Task("storage_volume", {**params, **(wanted[0] if alone else {"volumes": wanted})}, tuple(wanted))


def content(numbers: Random) -> dict[str, Any]:
    return {"content": "content of a volume\n" * numbers.randint(1, 100)}


def bytes_of(text: str) -> int:
    return int(text[:-3]) * MIB if text.endswith("MiB") else int(text)


def by_path(device: str) -> str:
    """A device by its path, as definitions have it."""
    return device.replace("UUID=", "/dev/disk/by-uuid/", 1)


def realpath(device: str) -> str:
    return os.path.realpath(by_path(device))
