# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One sequence of tasks on one host, and everything that is held against each of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..calling import call
from .declared import Hand, PoolTask, VolumeTask, pool_xml
from .host_model import MISSING, Directory, File, Host, Pool, Prediction, by_hand, predict
from .making import POOLS, UUIDS, Start, World
from .reading import Reader
from .results import actions, check_result, code_of, masked
from .shares import count, count_sequence
from .watching import Recorder, Snapshot, but_locks, differences, less_locks, of_the_task, snapshot

Task = PoolTask | VolumeTask
Call = Callable[..., dict[str, Any]]
RECORDER = Recorder()
MIB = 2**20
_TIMES = {"links", "size", "mtime_ns", "ctime_ns"}


# -- the machine --------------------------------------------------------------------------------------------------


class Workshop:
    """A directory for hosts that come and go, one at a time, always at the same path; images to stock them with."""

    def __init__(self, top: Path) -> None:
        self.host_top, self.stock, self.scratch = top / "hosts", top / "stock", top / "scratch"
        for directory in (self.host_top, self.stock, self.scratch):
            directory.mkdir(parents=True)
        self.root = self.host_top / "host"
        outside = self.host_top / "outside"
        outside.mkdir()
        names = {
            "raw": "disk.raw",
            "qcow2": "disk.qcow2",
            "odd": "odd.raw",
            "backed": "overlay.qcow2",
            "missing": "none.raw",
        }
        pools = self.root / "pools"
        self.world = World(
            str(self.root), tuple(str(pools / letter) for letter in "abc"), str(pools / "link"), str(pools / "file"),
            {name: str(outside / file) for name, file in names.items()},
        )  # fmt: skip
        self.images = self._outside()
        self.uri = f"native:///?root={self.root}"

    def _outside(self) -> dict[str, File]:
        paths = self.world.images
        data = b"".join(b"block %06d\n" % number for number in range(6000))
        Path(paths["raw"]).write_bytes(data)
        os.truncate(paths["raw"], MIB)
        Path(paths["odd"]).write_bytes(data[:50001].ljust(700001, b"\0") + b"end")
        _qemu_img("convert", "-f", "raw", "-O", "qcow2", paths["raw"], paths["qcow2"])
        _qemu_img("create", "-f", "qcow2", "-b", paths["qcow2"], "-F", "qcow2", paths["backed"])
        for home in self.world.homes:  # -u: what it is built on is not there yet
            name = os.path.basename(home)
            below = f"{home}/v1" if name != "b" else "v1"
            _qemu_img(
                "create", "-u", "-f", "qcow2", "-b", below, "-F", "qcow2", str(self.stock / f"overlay-{name}"), str(MIB)
            )
        return {
            paths["raw"]: File(capacity=MIB, content=data),
            paths["odd"]: File(capacity=700004, content=data[:50001].ljust(700001, b"\0") + b"end"),
            paths["qcow2"]: _image(MIB, data, physical=os.path.getsize(paths["qcow2"])),
            paths["backed"]: _image(MIB, data, (paths["qcow2"], "qcow2"), physical=os.path.getsize(paths["backed"])),
        }

    def set_up(self, start: Start) -> Host:
        """A host as left by somebody who knows nothing of this collection: directories, volumes, definitions."""
        shutil.rmtree(self.root, ignore_errors=True)
        for copy in self.scratch.iterdir():
            copy.unlink()
        host = Host(
            images=dict(self.images), links={self.world.link: self.world.homes[0]}, plain_files=(self.world.plain,)
        )
        if start.homes == ("none",) * 3 and start.pools == ("none",) * 3:
            host.links, host.plain_files = {}, ()
            return host  # not even the root is there
        (self.root / "pools").mkdir(parents=True)
        Path(self.world.link).symlink_to("a")
        Path(self.world.plain).write_text("not a directory")
        for home, much in zip(self.world.homes, start.homes, strict=True):
            if much != "none":
                host.directories[home] = self._home(Path(home), much == "stocked")
        for name, far, uuid in zip(POOLS, start.pools, UUIDS, strict=False):
            if far != "none":
                host.pools[name] = self._define(name, uuid, far == "active")
        return host

    def _home(self, home: Path, stocked: bool) -> Directory:
        home.mkdir(mode=0o755)
        home.chmod(0o755)
        directory = Directory(0o755, os.geteuid(), os.getegid())
        if stocked:
            source = self.images[self.world.images["raw"]].content or b""
            (home / "v0").write_bytes(b"raw" + bytes(997) + b"end")
            shutil.copyfile(self.world.images["qcow2"], home / "v1")
            shutil.copyfile(self.stock / f"overlay-{home.name}", home / "v2")
            directory.files = {
                "v0": File(capacity=1003, content=b"raw" + bytes(997) + b"end"),
                "v1": _image(MIB, source),
                "v2": _image(MIB, source, (str(home / "v1"), "qcow2")),
            }
            for name, file in directory.files.items():
                (home / name).chmod(0o600)
                file.uid, file.gid = os.geteuid(), os.getegid()
                file.physical = (home / name).stat().st_size
        return directory

    def _define(self, name: str, uuid: str, active: bool) -> Pool:
        home = self.world.home(name)
        text = pool_xml("dir", name, uuid, home)
        places = [("etc/libvirt/storage", text)] + [("run/libvirt/storage", f"<poolstate>{text}</poolstate>")] * active
        for place, content in places:
            (self.root / place).mkdir(parents=True, exist_ok=True)
            file = self.root / place / f"{name}.xml"
            file.write_text(content)
            file.chmod(0o600)
        return Pool("dir", home, uuid, started=active)

    def by_hand(self, hand: Hand) -> None:
        path = Path(hand.path, hand.name)
        if hand.what == "reboot":
            shutil.rmtree(self.root / "run" / "libvirt", ignore_errors=True)
        elif hand.what == "remove directory":
            shutil.rmtree(path)
        elif hand.what in ("chmod", "chmod directory"):
            path.chmod(hand.mode)
        elif hand.what == "remove":
            path.unlink()
        elif hand.what == "fifo":
            os.mkfifo(path)
        elif hand.what == "mkdir":
            path.mkdir()
        elif hand.what == "grow":
            os.truncate(path, path.stat().st_size + hand.mode)


def _image(capacity: int, content: bytes, backing: tuple[str, str] | None = None, physical: int | None = None) -> File:
    return File(
        "file", "qcow2", capacity, backing=backing, compat="1.1", cluster_size=65536, lazy_refcounts=False,
        extended_l2=False, content=content, physical=physical,
    )  # fmt: skip


def _qemu_img(*arguments: str) -> None:
    subprocess.run(["qemu-img", *arguments], check=True, capture_output=True)


# -- a sequence ---------------------------------------------------------------------------------------------------


class Sequence:
    """``check`` runs a module in check mode. ``counts`` are added to."""

    def __init__(self, shop: Workshop, start: Start, counts: Counter, check: Call | None = None) -> None:
        self.shop, self.counts = shop, counts
        self.host = shop.set_up(start)
        self.reader = Reader(shop.root, shop.scratch)
        self.elsewhere = check
        self.happened: set[str] = set()
        self.earlier: list[Task] = []
        self.pools_before: dict[str, Pool] = {}

    def by_hand(self, hand: Hand) -> None:
        self.shop.by_hand(hand)
        by_hand(self.host, hand)

    def end(self) -> None:
        count_sequence(self.counts, self.happened)

    # -- running --------------------------------------------------------------------------------------------------

    def _look(self) -> Snapshot:
        return snapshot(self.shop.host_top)

    def _run(self, task: Task, check: bool) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        params = {"uri": self.shop.uri, **task.params()}
        if check and self.elsewhere is not None:
            return self.elsewhere(task.module, **params), []
        with RECORDER.recording() as events:
            result = call(task.module, check, **params)
        return result, events

    def do(self, task: Task) -> None:
        """Check mode, a real run, a second one, and what is there then."""
        prediction, self.pools_before = predict(self.host, task), self.host.pools
        before = self._look()
        checked, events = self._run(task, True)
        now = self._look()
        assert not differences(before, now), f"check mode changed {differences(before, now)}"
        assert not of_the_task(events), f"check mode did {of_the_task(events)}"
        done, events = self._run(task, False)
        after = self._look()
        changes = less_locks(differences(before, after), "host")
        self._compare(checked, done)
        self._against_prediction(prediction, done)
        check_result(checked)
        check_result(done)
        if "failed" in done:
            assert not changes, f"refused ({code_of(done)}), but changed {changes}"
            assert not but_locks(events, self.shop.root), f"refused ({code_of(done)}), but did {events}"
            assert not done["changed"], "refused, but says that it changed something"
        else:
            assert bool(changes) == done["changed"] == bool(done["plan"]), f"changed {changes}, says {done}"
            if not done["changed"]:
                assert not but_locks(events, self.shop.root), f"had nothing to do, but did {events}"
            self.host = prediction.after
            self._against_model(task, prediction, done, changes)
        self._again(task, prediction, done, after)
        count(self.counts, self.happened, task, done)
        self.earlier.append(task)

    # -- what is held against it ----------------------------------------------------------------------------------

    def _compare(self, checked: dict[str, Any], done: dict[str, Any]) -> None:
        code, foreseen = code_of(done), code_of(checked)
        if self.elsewhere is not None and foreseen == "not_writable":
            assert checked["plan"], "refused as not writable, with nothing to write"
            assert not code or code in MISSING, f"check mode got as far as writing, the real run says {done['error']}"
        elif code in MISSING and not foreseen:
            assert any("as if an earlier task had" in text for text in checked["warnings"]), checked["warnings"]
        else:
            assert foreseen == code, f"check mode says {checked.get('error')}, the real run {done.get('error')}"
            assert masked(checked["diff"], checked["diff"]) == masked(checked["diff"], done["diff"])
            assert checked["changed"] == done["changed"]
            statuses = [[(v["name"], v["status"]) for v in result.get("volumes", ())] for result in (checked, done)]
            assert statuses[0] == statuses[1]
        assert checked["plan"] == done["plan"]

    def _against_prediction(self, prediction: Prediction, done: dict[str, Any]) -> None:
        if prediction.told:
            return
        if prediction.codes:
            assert code_of(done) in prediction.codes, f"should be refused with {set(prediction.codes)}: {done}"
            return
        assert not code_of(done), f"should not be refused: {done['error']}"
        assert actions(done["plan"]) == prediction.actions, (
            f"planned {actions(done['plan'])}, should be {prediction.actions}"
        )

    def _against_model(self, task: Task, prediction: Prediction, done: dict[str, Any], changes: dict[str, str]) -> None:
        """``changes``: paths relative to where the hosts are, and what became of them."""
        if prediction.told:
            self.counts["steps not foreseen"] += 1
            self._unforeseen()
            return
        touched = {str(self.shop.host_top / name) for name in changes}
        wrong = self.reader.pools(self.host)
        wrong += self.reader.directories(self.host, touched)
        wrong += [
            f"{path} is there"
            for path in self.shop.world.homes
            if path not in self.host.directories and os.path.lexists(path)
        ]
        wrong += self.reader.strangers(self.host) if done["changed"] else []
        wrong += [f"{name} {what}, which nobody asked for" for name, what in self._unasked(task, done, changes).items()]
        assert not wrong, "\n".join(wrong)

    def _unforeseen(self) -> None:
        raise Unforeseen

    def _unasked(self, task: Task, done: dict[str, Any], changes: dict[str, str]) -> dict[str, str]:
        """Whatever changed and is neither named by the plan nor a directory above something that is."""
        asked: set[str] = set()
        for action, subject in actions(done["plan"]):
            pool, _unused, volume = subject.split(" ", 1)[1].partition("/")
            known = self.host.pools.get(pool) or self.pools_before.get(pool)
            path = (
                known.path
                if known is not None
                else (task.path.means if isinstance(task, PoolTask) and task.path else "")
            )
            home = self.host.resolve(path) or ""
            if volume:
                asked.add(f"{home}/{volume}")
            elif action in ("build", "permissions", "delete"):
                asked.add(home)
            else:
                asked |= {f"{self.shop.root}/{place}/{pool}.xml" for place in _PLACES}
            if action in ("build", "delete"):
                asked.add(f"{self.shop.root}/var/lib/virt-storage/made/")
            if action == "stop":  # of a restart
                asked.add(f"{self.shop.root}/run/virt-storage/started/")
        asked = {os.path.relpath(path, self.shop.host_top) + ("/" if path.endswith("/") else "") for path in asked}
        return {name: what for name, what in changes.items() if not _asked_for(name, what, asked)}

    def _again(self, task: Task, prediction: Prediction, done: dict[str, Any], after: Snapshot) -> None:
        always = prediction.always or any(
            options.get("recreate") == "always"
            for _unused, options in (task.effective() if isinstance(task, VolumeTask) else ())
        )
        if always and "failed" not in done:
            return
        again, events = self._run(task, False)
        changes = less_locks(differences(after, self._look()), "host")
        assert not changes, f"the second run changed {changes}"
        assert not but_locks(events, self.shop.root), f"the second run did {but_locks(events, self.shop.root)}"
        assert code_of(again) == code_of(done)
        assert not again["changed"]
        if "failed" not in done:
            assert again["plan"] == []
            assert again["diff"] == {"before": "{}\n", "after": "{}\n"} or not any(again["diff"].values()), again[
                "diff"
            ]


class Unforeseen(Exception):
    """The model does not tell what is there now: the sequence ends."""


_PLACES = ("etc/libvirt/storage", "etc/libvirt/storage/autostart", "run/libvirt/storage")


def _asked_for(name: str, what: str, asked: set[str]) -> bool:
    if name in asked or any(name.startswith(path) for path in asked if path.endswith("/")):
        return True
    above = name == "." or any(path.startswith(name + "/") for path in asked)
    if above and what.startswith("other "):
        return set(what[len("other ") :].split(", ")) <= _TIMES
    return above and what == "is new"
