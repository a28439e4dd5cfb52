# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Two hosts that are the same to begin with, one without a daemon and one with; the same tasks on both; what differs.

What belongs to the second is translated into the words of the first before it is compared: the paths, which are
equally long, and the uuids, of which each host makes its own. ``plain`` removes what may differ, for which
docs/compatibility.md gives the reasons ("Where the engines differ").
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt
import yaml

from ..calling import call
from ..daemon import Daemon
from .declared import Hand, PoolTask, VolumeTask, pool_xml
from .host_model import MISSING, Host, by_hand, predict
from .making import POOLS, UUIDS, Start
from .reading import Reader
from .running import Unforeseen, Workshop
from .shares import count, count_sequence

Task = PoolTask | VolumeTask
_CHUNK = 1 << 16
_ZEROS = bytes(_CHUNK)


class Differs(AssertionError):
    """The engines do not do the same."""


# -- the two hosts ------------------------------------------------------------------------------------------------


class Twins:
    """``native`` is the directory of the host without a daemon, ``daemon`` of the one with. Images outside their pools
    are the same for both.
    """

    def __init__(self, top: Path, daemon: Daemon) -> None:
        self.shop, self.libvirtd = Workshop(top), daemon
        self.native, self.daemon = self.shop.root, self.shop.host_top / "twin"
        self.connection = libvirt.open(daemon.uri)
        self._digests: dict[tuple, str] = {}

    def close(self) -> None:
        self.remove_pools()
        self.connection.close()

    def set_up(self, start: Start) -> Host:
        self.remove_pools()
        host = self.shop.set_up(start)
        shutil.rmtree(self.daemon, ignore_errors=True)
        if os.path.isdir(self.native / "pools"):
            self._copy_pools()
        for name, far, uuid in zip(POOLS, start.pools, UUIDS, strict=False):
            if far != "none":
                home = self.there(self.shop.world.home(name))
                pool = self.connection.storagePoolDefineXML(pool_xml("dir", name, uuid, home), 0)
                if far == "active":
                    pool.create(0)
        return host

    def _copy_pools(self) -> None:
        """To the other host. An image that is built on a file of the one is built on that of the other."""
        self.daemon.mkdir()
        subprocess.run(["cp", "-a", str(self.native / "pools"), str(self.daemon)], check=True)
        for file in (self.daemon / "pools").rglob("*"):
            if file.is_file() and not file.is_symlink():
                with file.open("r+b") as opened:
                    head = opened.read(_CHUNK)
                    turned = head.replace(bytes(self.native), bytes(self.daemon))
                    if turned != head:
                        opened.seek(0)
                        opened.write(turned)

    def learned(self, task: Task) -> frozenset[str]:
        """The permissions that the daemon's definition of the task's pool has otherwise than the other host's."""
        name = _pool_of(task)
        file = self.native / "etc" / "libvirt" / "storage" / f"{name}.xml"
        try:
            text = self.connection.storagePoolLookupByName(name).XMLDesc(libvirt.VIR_STORAGE_XML_INACTIVE)
            told = [ElementTree.parse(file).getroot(), ElementTree.fromstring(text)]
        except (OSError, TypeError, libvirt.libvirtError):
            return frozenset()
        return frozenset(word for word in _PERMISSIONS if len({_permission(root, word) for root in told}) > 1)

    def bring_together(self, path: str, fields: frozenset[str]) -> None:
        """Gives a directory of the daemon's host those permissions of the other one's that may differ."""
        there = self.there(path)
        if os.path.isdir(path) and os.path.isdir(there):
            status = os.stat(path)
            os.chown(there, status.st_uid if "owner" in fields else -1, status.st_gid if "group" in fields else -1)
            if "mode" in fields:
                os.chmod(there, stat.S_IMODE(status.st_mode))

    def remove_pools(self) -> None:
        for pool in self.connection.listAllStoragePools():
            if pool.isActive():
                pool.destroy()
            pool.undefine()

    # -- words of the one, words of the other ---------------------------------------------------------------------

    def uuids(self) -> dict[str, str]:
        """Of the daemon's pools to those that the other host made up for the same pools."""
        here = {}
        config = self.native / "etc" / "libvirt" / "storage"
        for file in config.glob("*.xml") if config.is_dir() else ():
            here[file.stem] = ElementTree.parse(file).getroot().findtext("uuid") or ""
        there = {pool.name(): pool.UUIDString() for pool in self.connection.listAllStoragePools()}
        return {uuid: here[name] for name, uuid in there.items() if name in here}

    def there(self, value: Any, uuids: dict[str, str] | None = None) -> Any:
        """Of the native host, in the words of the other."""
        back = {native: daemons for daemons, native in (uuids or {}).items()}
        back.update({native.upper(): daemons.upper() for native, daemons in back.items()})
        return self._said(value, {str(self.native): str(self.daemon), **back})

    def here(self, value: Any, uuids: dict[str, str]) -> Any:
        return self._said(value, {str(self.daemon): str(self.native), **uuids})

    def _said(self, value: Any, words: dict[str, str]) -> Any:
        if isinstance(value, str):
            for word, other in words.items():
                value = value.replace(word, other)
        elif isinstance(value, dict):
            value = {self._said(name, words): self._said(inner, words) for name, inner in value.items()}
        elif isinstance(value, list):
            value = [self._said(inner, words) for inner in value]
        return value

    # -- what is there --------------------------------------------------------------------------------------------

    def by_hand(self, hand: Hand) -> None:
        self.shop.by_hand(hand)
        if hand.what != "reboot":
            self.shop.by_hand(Hand(hand.what, self.there(hand.path), hand.name, hand.mode))
            return
        for pool in self.connection.listAllStoragePools():
            if pool.isActive():
                pool.destroy()

    def files(self, top: Path) -> dict[str, tuple]:
        """Everything in the directories of pools, by what stat and the bytes tell of it."""
        found: dict[str, tuple] = {}
        for path in _walk(str(top / "pools")):
            status = os.lstat(path)
            size = status.st_size if stat.S_ISREG(status.st_mode) else 0
            kind = stat.filemode(status.st_mode)
            found[os.path.relpath(path, top)] = (
                kind,
                status.st_uid,
                status.st_gid,
                size,
                self._content(path, status),
            )
        return found

    def _content(self, path: str, status: os.stat_result) -> str:
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(path)
        if not stat.S_ISREG(status.st_mode):
            return ""
        key = (path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if key not in self._digests:
            self._digests[key] = self._digest(path, status.st_size)
        return self._digests[key]

    def _digest(self, path: str, size: int) -> str:
        """Of all that is not zero; paths in the words of the native host."""
        digest = hashlib.blake2b(digest_size=12)
        with open(path, "rb", buffering=0) as file:
            offset = 0
            while offset < size:
                try:
                    offset = os.lseek(file.fileno(), offset, os.SEEK_DATA) // _CHUNK * _CHUNK
                except OSError:  # only a hole is left
                    break
                data = os.pread(file.fileno(), _CHUNK, offset).replace(bytes(self.daemon), bytes(self.native))
                if data != _ZEROS[: len(data)]:
                    digest.update(b"%d:" % offset)
                    digest.update(data)
                offset += _CHUNK
        return digest.hexdigest()

    def told_by_daemon(self, pool: str) -> dict[str, list]:
        """The volumes that the daemon lists of a pool that runs: format, capacity and backing, as it has them."""
        told = {}
        for volume in self.connection.storagePoolLookupByName(pool).listAllVolumes():
            try:
                root = ElementTree.fromstring(volume.XMLDesc(0))
            except libvirt.libvirtError:  # it lists what a hand has removed
                told[volume.name()] = []
                continue
            kind = root.find("target/format")
            below, its = root.findtext("backingStore/path"), root.find("backingStore/format")
            told[volume.name()] = ["raw" if kind is None else kind.get("type"), int(root.findtext("capacity") or 0)]
            told[volume.name()] += [] if below is None else [below, "raw" if its is None else its.get("type")]
        return told

    def names_in(self, directory: str) -> Iterator[str]:
        """What a daemon would list of a directory of its host, by the name it has on the other: files, directories."""
        there = self.there(directory)
        with os.scandir(there) if directory and os.path.isdir(there) else contextlib.nullcontext([]) as entries:
            yield from (entry.name for entry in entries if entry.is_file() or entry.is_dir())


def _permission(root: ElementTree.Element, word: str) -> int | None:
    text = root.findtext(f"target/permissions/{word}")
    return None if text in (None, "-1") else int(text or "", 8 if word == "mode" else 10)


def _walk(top: str) -> Iterator[str]:
    if os.path.isdir(top) and not os.path.islink(top):
        for name in sorted(os.listdir(top)):
            yield os.path.join(top, name)
            yield from _walk(os.path.join(top, name))


# -- a sequence ---------------------------------------------------------------------------------------------------


class TwinSequence:
    """The same tasks on both hosts, each in check mode first. ``counts`` are added to."""

    def __init__(self, twins: Twins, start: Start, counts: Counter) -> None:
        self.twins, self.counts = twins, counts
        self.host = twins.set_up(start)
        self.reader = Reader(twins.shop.root, twins.shop.scratch)
        self.happened: set[str] = set()
        self.earlier: list[Task] = []
        self.moved = True  # whether there can be other records than when they were compared last
        self.uuids: dict[str, str] = {}
        self.unseen: dict[str, set[str]] = {}  # by directory, what a hand has touched since the daemon looked
        self._compare_files()

    def by_hand(self, hand: Hand) -> None:
        touched = {hand.name} if hand.name else set(self.twins.names_in(hand.path))
        self.unseen.setdefault(hand.path, set()).update(touched)
        self.twins.by_hand(hand)
        self.moved = True
        by_hand(self.host, hand)

    def _uuids(self) -> dict[str, str]:
        self.uuids.update(self.twins.uuids())
        return self.uuids

    def do(self, task: Task) -> None:
        twins = self.twins
        prediction, learned = predict(self.host, task), twins.learned(task)
        params, uuids = task.params(), self._uuids()
        results = {}
        for mode in ("check", "real"):
            here = call(task.module, mode == "check", uri=twins.shop.uri, **params)
            if "failed" in here and here["error"]["code"] == "backend_missing":
                self._only_the_daemon_can(task, here)
                return
            there = call(task.module, mode == "check", uri=twins.libvirtd.uri, **twins.there(params, uuids))
            uuids = self._uuids()
            there = self._but_unseen(twins.here(there, uuids))
            same(f"the result ({mode})", plain(here, task, learned, True), plain(there, task, learned))
            results[mode] = (here, there)
        for checked, done in zip(results["check"], results["real"], strict=True):
            _check_tells_the_truth(checked, done)
        here, there = results["real"]
        self._looks_again_if_it_must(task, there)
        self._again(task, there, self.twins.there(params, uuids), prediction.always)
        if isinstance(task, PoolTask) and {"permissions", "build"} & {entry["action"] for entry in here["plan"]}:
            pool = prediction.after.pools.get(task.name.means)
            if pool is not None:
                twins.bring_together(pool.path, _PERMISSIONS - _declared(task))
        self._compare_files()
        if self.moved or there["changed"]:
            self._compare_records(uuids, None if self.moved else _pool_of(task))
            self.moved = False
        count(self.counts, self.happened, task, here)
        self.earlier.append(task)
        if prediction.told:
            self.counts["steps not foreseen"] += 1
            raise Unforeseen
        if "failed" not in here:
            self.host = prediction.after
        wrong = self.reader.pools(self.host) + self.reader.directories(self.host, set())
        assert not wrong, "the model of the native host does not hold: " + "\n".join(wrong)
        self._daemon_knows(task, there)

    def _only_the_daemon_can(self, task: Task, done: dict[str, Any]) -> None:
        """Pools of types that the native engine can define, and not run: nothing to compare."""
        count(self.counts, self.happened, task, done)
        self.counts["only the daemon can"] += 1

    def end(self) -> None:
        count_sequence(self.counts, self.happened)
        self._virsh_lists()

    # -- what the engine of the daemon has to do by itself ----------------------------------------------------------

    def _looks_again_if_it_must(self, task: Task, done: dict[str, Any]) -> None:
        """A plan has a new look of the daemon only after a hand has been there, and no task has more than one."""
        pool = self.host.pools.get(_pool_of(task))
        touched = self.unseen.get(self.host.resolve(pool.path) if pool is not None else "")
        looks = [entry["summary"] for entry in done["plan"] if entry["action"] == "refresh"]
        assert not looks or touched, f"nobody has been there, and yet: {looks}"
        assert sum("pool-refresh" in command for command in _commands(done)) <= 1, done["plan"]

    def _again(self, task: Task, done: dict[str, Any], params: dict[str, Any], always: bool) -> None:
        recreates = (
            any(o.get("recreate") == "always" for _n, o in task.effective()) if isinstance(task, VolumeTask) else False
        )
        if done["changed"] and "failed" not in done and not always and not recreates:
            again = call(task.module, True, uri=self.twins.libvirtd.uri, **params)
            same("what a second run through the daemon would do", [], again["plan"])

    # -- what is held against each other ----------------------------------------------------------------------------

    def _compare_files(self) -> None:
        here, there = (self.twins.files(top) for top in (self.twins.native, self.twins.daemon))
        same("the files", _lines(here), _lines(there))

    def _compare_records(self, uuids: dict[str, str], pool: str | None) -> None:
        pools: dict[str, Any] = {"name": pool, "xml": True, "volumes": "names"}
        for module, more in (("storage_pool_info", pools), ("storage_volume_info", {"pool": pool})):
            here = call(module, uri=self.twins.shop.uri, **more)
            there = call(module, uri=self.twins.libvirtd.uri, **more)
            there = self._but_unseen(self.twins.here(there, uuids))
            same(f"the records of {module}", plain(here), plain(there))

    def _but_unseen(self, value: Any) -> Any:
        """Without the remark that the daemon has not looked at a volume, where a hand has been to some since it did."""
        if isinstance(value, list):
            return [self._but_unseen(inner) for inner in value]
        if not isinstance(value, dict) or not any(self.unseen.values()):
            return value
        marked = str(value.get("problem", "")).startswith(_NOT_LOOKED_AT)
        return {n: self._but_unseen(inner) for n, inner in value.items() if not (marked and n == "problem")}

    def _daemon_knows(self, task: Task, done: dict[str, Any]) -> None:
        """After a task that changed something the daemon lists what is there as it is; what a hand has done to other
        volumes it learns when it looks at the whole pool again.
        """
        name = _pool_of(task)
        pool = self.host.pools.get(name)
        if not done["changed"] or not self.host.active(pool):
            return
        home = self.host.resolve(pool.path)
        if any(f" {verb} " in command for verb in ("pool-refresh", "pool-start") for command in _commands(done)):
            self.unseen.pop(home, None)
        unseen = self.unseen.get(home, set())
        if isinstance(task, VolumeTask):
            unseen -= {volume.means for volume, _unused in task.effective()}
        told = self.twins.told_by_daemon(name)
        there = set(self.twins.names_in(home))
        same("the volumes that the daemon lists", sorted(there - unseen), sorted(told.keys() - unseen))
        files = {
            n: f
            for n, f in self.host.directories[home].files.items()
            if n in told and not f.pretends and (f.kind != "file" or f.capacity)
        }
        same(
            "the volumes as the daemon knows them",
            {n: [f.format if f.kind == "file" else "dir", f.capacity, *(f.backing or ())] for n, f in files.items()},
            {n: self.twins.here(told[n], {}) for n in files},
        )

    def _virsh_lists(self) -> None:
        homes = {n: self.host.resolve(p.path) for n, p in self.host.pools.items() if self.host.active(p)}
        if homes:
            told = self.twins.libvirtd.virsh("; ".join(f"vol-list {name}; echo --str ----" for name in homes))
            for (name, home), part in zip(homes.items(), told.split("----")[:-1], strict=True):
                listed = {line.split()[0] for line in part.splitlines() if line.strip()}
                unseen = self.unseen.get(home, set())
                there = set(self.twins.names_in(home))
                same(f"virsh vol-list {name}", sorted(there - unseen), sorted(listed - unseen))


def _pool_of(task: Task) -> str:
    return str((task.name if isinstance(task, PoolTask) else task.pool).means)


def _commands(done: dict[str, Any]) -> list[str]:
    return [command for entry in done["plan"] for command in entry["commands"]]


def _check_tells_the_truth(checked: dict[str, Any], done: dict[str, Any]) -> None:
    code = done["error"]["code"] if "failed" in done else ""
    engine = done["engine"]["name"] if "engine" in done else "?"
    same(f"the plan of check mode and real run ({engine})", checked["plan"], done["plan"])
    if code in MISSING and "failed" not in checked:
        return
    same(f"the error of check mode and real run ({engine})", checked.get("error"), done.get("error"))
    hidden = [line.split(": ")[0] for line in checked["diff"]["after"].splitlines() if "(known after apply)" in line]
    diffs = [
        {side: [next((h for h in hidden if line.startswith(h)), line) for line in text.splitlines()]
         for side, text in result["diff"].items()}
        for result in (checked, done)
    ]  # fmt: skip
    same(f"the diff of check mode and real run ({engine})", *diffs)
    same(f"changed of check mode and real run ({engine})", checked["changed"], done["changed"])
    unmet = [text for text in done["warnings"] if text.startswith("verification:")]
    same(f"claims that do not hold ({engine})", [], unmet)


# -- what may differ ----------------------------------------------------------------------------------------------


def plain(value: Any, task: Task | None = None, learned: frozenset[str] = frozenset(), native: bool = False) -> Any:
    """Without what may differ. ``learned``: permissions that the daemon has written into the definition of the task's
    pool. Those that the task does not declare are set by the native engine alone, from the definition.
    """
    if isinstance(value, list):
        return [plain(inner) for inner in value if not (isinstance(inner, str) and _AT_BOOT in inner)]
    if not isinstance(value, dict):
        return value
    value = {name: inner for name, inner in value.items() if name not in _OWN}
    if isinstance(value.get("xml"), str):
        value["xml"] = _plain_xml(value["xml"])
    if isinstance(value.get("plan"), list):
        hidden = learned if isinstance(task, PoolTask) else frozenset()
        shown = _PERMISSIONS - _declared(task) if isinstance(task, PoolTask) else hidden
        plan = [_plain_entry(entry, hidden, shown if native else frozenset()) for entry in value["plan"]]
        value["plan"] = [entry for entry in plan if entry is not None]
        value["changed"] = value["changed"] and bool(value["plan"])
        value["diff"] = {side: _plain_diff(text, hidden, shown) for side, text in value["diff"].items()}
        if isinstance(value.get("pool"), dict):
            value["pool"] = {name: inner for name, inner in value["pool"].items() if name not in shown}
    if "failed" in value and isinstance(task, PoolTask) and task.type not in (None, "dir"):
        value.pop("pool", None)  # what is shown is the pool as it would be of that type: see _only_the_daemon_can
    if value.get("code") in ("command_failed", "daemon_failed"):  # who ran the tool tells of it
        value = {"code": "failed"}
    if "error" in value:
        value.pop("msg", None)
    if {"persistent", "autostart"} <= value.keys():  # the record of a pool
        value = {name: inner for name, inner in value.items() if name not in ("allocation", "available")}
        if value["type"] != "dir":
            value.pop("unseen", None)
    return {name: plain(inner) for name, inner in value.items()}


def _declared(task: PoolTask) -> frozenset[str]:
    return frozenset(name for name in _PERMISSIONS if getattr(task, name) is not None)


def _plain_entry(entry: dict[str, Any], hidden: frozenset[str], shown: frozenset[str]) -> dict[str, Any] | None:
    """A change without the fields that are hidden; None when nothing is left of it."""
    less = {"redefine": hidden, "permissions": shown}.get(entry["action"])
    if entry["action"] == "refresh":
        return None
    if not less or not entry["subject"].startswith("pool "):
        return entry
    before, words, after = _FIELDS.match(entry["summary"]).groups()
    left = [word for word in words.split(", ") if word not in less]
    return {**entry, "summary": f"{before}{', '.join(left)}{after}"} if left else None


def _plain_diff(text: str, hidden: frozenset[str], shown: frozenset[str]) -> Any:
    facts = yaml.safe_load(text) or {}
    for subject, inner in list(facts.items()):
        if inner is None:
            continue
        inner.pop("unlisted", None)
        for part, less in (("definition", hidden), ("target", shown)):
            if inner.get(part) and less:
                inner[part] = {name: fact for name, fact in inner[part].items() if name not in less}
                if not inner[part]:
                    del inner[part]
        if not inner:
            del facts[subject]
    return facts


def _plain_xml(text: str) -> str:
    root = ElementTree.fromstring(text)
    for parent, name in (("", "capacity"), ("", "allocation"), ("", "available"), ("target", "permissions")):
        above = root.find(parent) if parent else root
        for element in above.findall(name) if above is not None else ():
            above.remove(element)
    ElementTree.indent(root)
    return ElementTree.canonicalize(ElementTree.tostring(root, encoding="unicode"))


_OWN = {"engine", "commands", "command", "timestamps", "invocation"}
_FIELDS = re.compile(r"(pool \S+: (?:change|set) )(.*)( of .*)\Z", re.DOTALL)
_PERMISSIONS = frozenset({"mode", "owner", "group"})
_NOT_LOOKED_AT = "the daemon has not looked at it"
_AT_BOOT = "nothing starts pools of a user, or below a root of their own, at boot"


# -- words --------------------------------------------------------------------------------------------------------


def _lines(files: dict[str, tuple]) -> dict[str, str]:
    return {name: " ".join(map(str, about)) for name, about in sorted(files.items())}


def _shown(value: Any) -> list[str]:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, default=str).replace("\\n", "\n").split("\n")


def same(what: str, native: Any, daemon: Any) -> None:
    if native == daemon:
        return
    lines = difflib.unified_diff(_shown(native), _shown(daemon), "native", "daemon", lineterm="", n=3)
    raise Differs(f"{what}: they differ\n" + "\n".join(lines))
