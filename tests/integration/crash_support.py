# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the safety and crash tests share: refusals, images made by hand, an independent look."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

CHECK = pytest.mark.parametrize("check", [False, True], ids=["real", "check"])
KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40


def refused(result: dict[str, Any], code: str) -> dict[str, Any]:
    """A task that was refused, or failed, with this code and without having changed anything. Returns its error."""
    assert result.get("failed"), result
    assert result["error"]["code"] == code, result["error"]
    assert result["error"].get("subject"), result["error"]
    assert result["changed"] is False, result
    return result["error"]


def done(result: dict[str, Any]) -> dict[str, Any]:
    """A task that changed something, as it claimed to."""
    assert not result.get("failed"), result
    assert result["changed"] is True, result
    assert not [text for text in result["warnings"] if text.startswith("verification")], result["warnings"]
    return result


def unchanged(result: dict[str, Any]) -> dict[str, Any]:
    assert not result.get("failed"), result
    assert result["changed"] is False, result
    return result


def qemu_img(*words: object) -> str:
    return subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True, text=True).stdout


def image_info(path: Path) -> dict[str, Any]:
    return json.loads(qemu_img("info", "-U", "--output=json", path))


def qcow2(path: Path, size: object = "1M", *options: object) -> Path:
    qemu_img("create", "-q", "-f", "qcow2", *options, path, size)
    return path


def raw(path: Path, size: int = MIB, data: bytes = b"") -> Path:
    with path.open("wb") as file:
        file.write(data)
        file.truncate(size)
    return path


def snapshot(top: Path) -> dict[str, tuple[Any, ...]]:
    """Every entry below a directory: its kind, mode, owner, identity, time and content."""
    entries: dict[str, tuple[Any, ...]] = {}
    for directory, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content: Any = None
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest() if status.st_size < 64 * MIB else ""
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            fixed = (status.st_mode, status.st_uid, status.st_gid, status.st_ino)
            entries[os.path.relpath(path, top)] = (*fixed, status.st_mtime_ns, status.st_size, content)
    return entries


def without_locks(entries: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """A real run may take locks, and these are files."""
    return {name: entry for name, entry in entries.items() if not name.startswith("run") or "libvirt" in name}


def names(top: Path) -> set[str]:
    """The names of everything below a directory, less the locks."""
    return set(without_locks(snapshot(top)))


def leftovers(top: Path) -> list[str]:
    """What no task may leave behind."""
    return sorted(name for name in names(top) if name.endswith(".new") or ".virt-storage" in name)


def define_guest(root: Path, name: str, disks: str, running: bool = False, where: str = "etc/libvirt/qemu") -> Path:
    """A guest's definition, as libvirt keeps it, or the status file of a running one."""
    text = f"<domain type='kvm'><name>{name}</name><memory>65536</memory><devices>{disks}</devices></domain>"
    if running:
        text = f"<domstatus state='running' reason='booted' pid='1'>\n{text}\n</domstatus>"
    path = root / where / f"{name}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def disk_file(path: Path) -> str:
    return f"<disk type='file' device='disk'><source file='{path}'/><target dev='vda' bus='virtio'/></disk>"


def disk_volume(pool: str, volume: str) -> str:
    return f"<disk type='volume' device='disk'><source pool='{pool}' volume='{volume}'/><target dev='vda'/></disk>"


@contextlib.contextmanager
def deadline(seconds: int = 30) -> Iterator[None]:
    """What hangs fails, instead of holding up the whole suite."""

    def ring(number: int, frame: object) -> None:
        raise TimeoutError(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# -- modules in processes of their own ----------------------------------------------------------------------------

_SERVER = """
import importlib, json, os, pkgutil, sys, tempfile
from ansible.module_utils.testing import patch_module_args
base = "ansible_collections.virt.storage.plugins"
package = importlib.import_module(base + ".module_utils")
for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(found.name)
for name in ("storage_pool", "storage_volume", "storage_pool_info", "storage_volume_info"):
    importlib.import_module(base + ".modules." + name)
importlib.import_module(base + ".module_utils.engines.native")  # another user may not read the interpreter's files
import ctypes, concurrent.futures.thread, glob, uuid, xml.etree.ElementTree, zipfile, lxml.etree
import ansible.module_utils.common.warnings

def die_before(operation):
    # the one of this number is not carried out
    from ansible_collections.virt.storage.plugins.module_utils.host.apply import Applier
    left, plain = [operation], Applier.apply
    def apply(self, operation):
        if not left[0]:
            os.kill(os.getpid(), 9)
        left[0] -= 1
        plain(self, operation)
    Applier.apply = apply

def child(request, output, gate):
    os.dup2(output, 1)
    os.read(gate, 1)
    os.environ.update(request["env"])
    if request["uid"] is not None:
        os.setgroups([])
        os.setresgid(request["uid"], request["uid"], request["uid"])
        os.setresuid(request["uid"], request["uid"], request["uid"])
    if request["dies_before"] is not None:
        die_before(request["dies_before"])
    internal = {"_ansible_check_mode": request["check"], "_ansible_diff": True, "_ansible_no_log": True}
    with patch_module_args({**request["params"], **internal}):
        importlib.import_module(base + ".modules." + request["module"]).main()

print("{}", flush=True)
for line in iter(sys.stdin.readline, ""):
    request = json.loads(line)
    with tempfile.TemporaryFile() as output:
        gate, opener = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.close(opener)
                child(request, output.fileno(), gate)
            except SystemExit as end:
                sys.stdout.flush()
                os._exit(end.code or 0)
            except BaseException:
                import traceback
                traceback.print_exc()
            os._exit(99)
        os.close(gate)
        print(json.dumps({"pid": pid}), flush=True)
        sys.stdin.readline()
        os.close(opener)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        output.seek(0)
        text = output.read().decode()
        print(json.dumps({"status": status, "result": json.loads(text) if text else None}), flush=True)
"""


class Child:
    """One module run in a process of its own, which waits until it is let go."""

    def __init__(self, server: ModuleServer, pid: int) -> None:
        self.pid = pid
        self._server = server

    def go(self) -> None:
        self._server.tell({})

    def kill(self) -> None:
        """It may have ended already."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> tuple[int, dict[str, Any]]:
        """Its exit status (negative: the signal that killed it), and what it printed."""
        answer = self._server.answer()
        return answer["status"], answer["result"]


class ModuleServer:
    """Starts modules in fresh processes at once: everything is imported before, once."""

    def __init__(self, collections: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(collections), "PYTHONWARNINGS": "ignore"},
        )
        self.answer()

    def tell(self, what: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def start(
        self,
        module: str,
        params: dict[str, Any],
        check: bool = False,
        uid: int | None = None,
        dies_before: int | None = None,
        **env: str,
    ) -> Child:
        request = {"module": module, "params": params, "check": check, "uid": uid, "dies_before": dies_before}
        self.tell({**request, "env": env})
        return Child(self, self.answer()["pid"])

    def run(self, module: str, params: dict[str, Any], **how: Any) -> tuple[int, dict[str, Any]]:
        child = self.start(module, params, **how)
        child.go()
        return child.wait()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


# -- strace -------------------------------------------------------------------------------------------------------

_CHANGING = """
    mkdir mkdirat link linkat rename renameat renameat2 unlink unlinkat rmdir symlink symlinkat ftruncate fallocate
    fsync fdatasync fchmod fchmodat chmod fchown fchownat chown pwrite64 pwritev pwritev2 copy_file_range
"""
CHANGING = ",".join(f"?{name}" for name in _CHANGING.split())
_CALL = re.compile(r"^([0-9]+) +([a-z0-9_]+)\((.*)$")


class Call(NamedTuple):
    """One system call, as strace shows it."""

    thread: int
    name: str
    text: str

    @property
    def file(self) -> str:
        """What its first descriptor refers to (strace -y)."""
        match = re.match(r"[0-9]+<([^>]*)>", self.text)
        return match.group(1) if match else ""

    @property
    def paths(self) -> list[str]:
        return re.findall(r'"([^"]*)"', self.text)


def traced(
    server: ModuleServer, log: Path, module: str, params: dict[str, Any], trace: str, *options: str, **env: str
) -> tuple[int, dict[str, Any], list[Call]]:
    """Runs a module under strace, with everything that it starts. Returns when the last process is gone."""
    child = server.start(module, params, **env)
    argv = ["strace", "-f", "-y", "-s", "200", "-o", str(log), "-e", f"trace={trace}", *options, "-p", str(child.pid)]
    strace = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    assert strace.stderr is not None
    line = strace.stderr.readline()
    while "attached" not in line:
        assert line, "strace could not attach"
        line = strace.stderr.readline()
    child.go()
    status, result = child.wait()
    strace.communicate()
    return status, result, parsed(log)


Point = tuple[str, int]


def points_of(calls: list[Call]) -> list[Point]:
    """Every point at which a thread can be killed: the N-th of its calls of a name, in the order in which they came."""
    counted: Counter[tuple[int, str]] = Counter()
    points: dict[Point, None] = {}
    for entry in calls:
        counted[entry.thread, entry.name] += 1
        points[entry.name, counted[entry.thread, entry.name]] = None
    return list(points)


def killing(point: Point) -> str:
    """What strace must inject (it counts each system call of each thread by itself). The call is not carried out."""
    name, number = point
    return f"inject={name}:signal=KILL:when={number}"


def parsed(log: Path) -> list[Call]:
    found = map(_CALL.match, log.read_text(errors="replace").splitlines())
    return [Call(int(m.group(1)), m.group(2), m.group(3)) for m in found if m]
