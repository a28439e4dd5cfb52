# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The examples of the documentation and of the modules are run, page by page, each page on a host of its own.

* A YAML block that is a list is a play or a list of tasks; a page's blocks run one after the other. A block
  whose first line is ``# refused: CODE`` ends in a task that must be refused with that code.
* A block that begins with ``tasks:`` needs what this machine has not, such as units of an adapter: only Ansible's
  syntax check reads it. Those about disks are run, on loop devices with partitions.
* Lines of ``sh`` blocks that start with ``ansible `` are run too. What an example downloads is a file of this machine.
* The host is this machine with a root of its own: below it are the paths under /srv and /var that the examples name.
  The disk that a page names by its id is a loop device, and so are sdb and sdc of the page about disks.
* With the main environment they are run; with another Python only Ansible's syntax check is, which is quick.
* Those of the README are run as a user would; the others as ``playbooks.py`` runs them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from . import loops
from .disk_scenarios import Disk
from .playbooks import Playbooks
from .servers import HOST, Servers
from .targets import Targets

pytestmark = [pytest.mark.needs_ansible, pytest.mark.each_python, pytest.mark.thorough]

REPOSITORY = Path(__file__).resolve().parents[2]
ROLES = sorted((REPOSITORY / "roles").glob("*/README.md"))
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md")), *ROLES]
MODULES = sorted((REPOSITORY / "plugins" / "modules").glob("*.py"))
GROUP = "group/virt.storage.storage"
MAIN = REPOSITORY / ".venv" / "main"
RUN = not MAIN.exists() or MAIN.resolve() == Path(sys.prefix).resolve()
_BLOCK = re.compile(r"^```(yaml|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_REFUSED = re.compile(r"# refused: ([a-z_]+)\n")
_DISK = re.compile(r"/dev/disk/by-id/[\w.-]+")
_DOWNLOAD = re.compile(r"https://\S+/([\w.-]+\.qcow2)")
_INVENTORY = re.compile(r" -i \S+")
_WHOLE_DISK = re.compile(r"\bsd([bc])(\d*)\b")
_PATH = re.compile(r"(?<![\w.])/(srv|var)/")
_SYSTEM = "qemu:///system"
_NAS = "nas1.example.com"  # is asked for what it exports: a real server stands for it
_SAN = re.compile(r"san\.example\.com(:\d+)?")  # is asked for its targets, likewise
_TARGET = "iqn.2026-01.com.example:guests"
_VAULT = {
    "vault_san": "of 12 letters or more",
    "vault_san_back": "of 12 others or more",
    "vault_ceph": "AQBSdFhcAAAAABAAYQ9PoUTGT0jXbFGqjrGJCQ==",
}
#: What they show takes a kernel's NFS client, or installs packages: their tests are the lab's.
_ELSEWHERE = (REPOSITORY / "docs" / "pools" / "netfs.md", *ROLES)
#: Their disks are loop devices here.
_ON_DISKS = (REPOSITORY / "docs" / "pools" / "disk.md",)
_NOT_HERE = ("hosts", "become", "gather_facts", "connection")  # of a play: said anew


def blocks(page: Path) -> list[tuple[str, str]]:
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def has_examples(page: Path) -> bool:
    return bool(blocks(page))


def needs_more(text: str) -> bool:
    """Whether an example needs what is not there in the page's own host."""
    return isinstance(yaml.safe_load(text), dict)


class Page:
    """Runs the examples of one page."""

    def __init__(self, root: Path, files: Path, playbooks: Playbooks) -> None:
        self.root, self.files = root, files
        self.playbooks: Playbooks | None = playbooks
        self.uri = f"native:///?root={root}"
        self.system = _SYSTEM
        self.disk = ""
        self.disks: dict[str, Disk] = {}
        self.nas, self.san = _NAS, ""
        self.here = True
        words = {"ansible_python_interpreter": sys.executable, **_VAULT}
        self.local = [f"--extra-vars={json.dumps(words)}", "--connection=local"]

    def moved(self, text: str) -> str:
        if os.geteuid() != 0:  # then nothing can be given to root
            mine = {"owner": os.geteuid(), "group": os.getegid()}
            text = re.sub(r"\b(owner|group): root\b", lambda found: f"{found[1]}: {mine[found[1]]}", text)
        text = _DOWNLOAD.sub(r"file:///var/tmp/\1", text)
        text = _DISK.sub(self.disk, text) if self.disk else text
        text = _WHOLE_DISK.sub(self._on_loop, text) if self.disks else text
        text = _SAN.sub(self.san, text) if self.san else text
        return _PATH.sub(rf"{self.root}/\1/", text).replace(_SYSTEM, self.system).replace(_NAS, self.nas)

    def _on_loop(self, found: re.Match[str]) -> str:
        disk = self.disks[found[1]]
        return disk.name(int(found[2])) if found[2] else os.path.basename(disk.node)

    def plays(self, text: str) -> list[dict[str, Any]]:
        """A block as plays on this host."""
        items = yaml.safe_load(self.moved(text))
        items = items["tasks"] if isinstance(items, dict) else items
        plays = items if "hosts" in items[0] else [{"tasks": items}]
        plays = [{key: value for key, value in play.items() if key not in _NOT_HERE} for play in plays]
        for play in plays:
            play.update(hosts="localhost", gather_facts=False)
            play.setdefault("module_defaults", {}).setdefault(GROUP, {"uri": self.uri})
            assert play["module_defaults"][GROUP]["uri"].startswith(self.uri)
        refused = _REFUSED.match(text)
        if refused:
            self._expect(plays[-1]["tasks"], refused.group(1))
        return plays

    def _expect(self, tasks: list[dict[str, Any]], code: str) -> None:
        tasks[-1].update(register="refused", ignore_errors=True)
        told = "{{ refused.error.code | default('nothing was refused') }}"
        tasks.append(
            {"ansible.builtin.assert": {"that": [f"refused.error.code | default('') == '{code}'"], "fail_msg": told}}
        )

    def command(self, line: str) -> list[str]:
        """An ad-hoc command on this host: ansible PATTERN … -a OPTIONS."""
        words = [word for word in shlex.split(_INVENTORY.sub("", self.moved(line))) if word not in ("-b", "--become")]
        words[1] = "localhost"
        told = words.index("-a") + 1
        in_json = words[told].startswith("{")
        words[told] = (
            json.dumps({**json.loads(words[told]), "uri": self.uri}) if in_json else f"{words[told]} uri={self.uri}"
        )
        return [*words, *self.local]

    def run(self, command: list[str]) -> None:
        status, told = self.playbooks.run(command, self.files) if self.playbooks else self._as_a_user(command)
        assert status == 0, f"{shlex.join(command)}\n{told}"

    def _as_a_user(self, command: list[str]) -> tuple[int, str]:
        done = subprocess.run(
            command, cwd=self.files, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        return done.returncode, f"{done.stdout}\n{done.stderr}"

    def serve(self, text: str, request: pytest.FixtureRequest) -> None:
        """Servers and daemons that examples name."""
        if RUN and _SYSTEM in text:
            self.system = request.getfixturevalue("daemon").uri
        if RUN and _NAS in text:
            self.nas, self.playbooks = HOST, request.getfixturevalue("beside_servers")
        if RUN and _SAN.search(text):
            self.san, self.playbooks = request.getfixturevalue("san"), request.getfixturevalue("beside_servers")

    def play(self, plays: list[dict[str, Any]], run: bool = True) -> None:
        if plays:
            playbook = self.files / "page.yml"
            playbook.write_text(yaml.safe_dump(plays, sort_keys=False), encoding="utf-8")
            check = [] if RUN and self.here and run else ["--syntax-check"]
            self.run(["ansible-playbook", "--inventory=localhost,", *check, *self.local, str(playbook)])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """A loop device; what is mounted below the test's directory is unmounted first."""
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(1 << 30)
    if not os.path.exists(loops.CONTROL):
        pytest.skip("no loop devices here")
    device = loops.attach(image)
    yield device
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        if line.split()[1].startswith(f"{tmp_path}/"):
            subprocess.run(["umount", line.split()[1]], check=True)
    loops.detach(device)


@pytest.fixture(scope="module")
def san(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an iSCSI server, in the network of the others."""
    made = Targets(tmp_path_factory.mktemp("san"), into=servers.network)
    made.serve(_TARGET, {1: 1 << 20}, ("kvm1", _VAULT["vault_san"]))
    yield made.address
    made.close()


@pytest.fixture(scope="module")
def playbooks() -> Iterator[Playbooks]:
    made = Playbooks()
    yield made
    made.close()


@pytest.fixture(scope="module")
def beside_servers(servers: Servers) -> Iterator[Playbooks]:
    made = Playbooks(servers.network)
    yield made
    made.close()


@pytest.fixture
def page(tmp_path: Path, playbooks: Playbooks) -> Page:
    """A host with an image to import, and the files that examples look up."""
    root, files = tmp_path / "host", tmp_path / "files"
    for directory in (root / "srv", root / "var" / "tmp", files):
        directory.mkdir(parents=True)
    for name, form in (("debian-12-generic-amd64.qcow2", "qcow2"), ("installer.img", "raw")):
        subprocess.run(["qemu-img", "create", "-q", "-f", form, str(root / "var" / "tmp" / name), "64M"], check=True)
    definition = f"<pool type='dir'><name>printed</name><target><path>{root}/srv/printed</path></target></pool>"
    (files / "images.xml").write_text(definition, encoding="utf-8")
    return Page(root, files, playbooks)


@pytest.fixture
def disks(loop: Callable[[], Disk]) -> dict[str, Disk]:
    """By the last letters of the names that examples have for them."""
    return {letter: loop() for letter in "bc"}


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.root] if path in _ON_DISKS else []) for path in PAGES if has_examples(path)],
    ids=lambda path: str(path.relative_to(REPOSITORY)),
)
def test_the_examples_of_a_page(page: Page, path: Path, request: pytest.FixtureRequest) -> None:
    page.here = path not in _ELSEWHERE
    if RUN and path == PAGES[0]:
        page.playbooks = None
    page.serve("".join(text for _language, text in blocks(path)), request)
    if RUN and any(_DISK.search(text) for _language, text in blocks(path)):
        page.disk = request.getfixturevalue("disk")
    if RUN and path in _ON_DISKS:
        page.disks = request.getfixturevalue("disks")
    waiting: list[dict[str, Any]] = []
    read: list[dict[str, Any]] = []
    for language, text in blocks(path):
        if language == "yaml":
            (read if needs_more(text) and path not in _ON_DISKS else waiting).extend(page.plays(text))
            continue
        page.play(waiting)
        waiting = []
        for line in text.replace("\\\n", "").splitlines():
            if RUN and page.here and line.startswith("ansible "):
                page.run(page.command(line))
    page.play(waiting)
    page.play(read, run=False)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_the_links_of_a_page(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)", text):
        other = (path.parent / target).resolve() if target else path
        assert other.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor[1:] in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, anchor
    lines = [
        line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("|")
    ]  # no table wraps
    assert max(map(len, lines)) <= 120


def documentation(module: Path, name: str) -> str:
    return re.search(
        rf'^{name} = r"""\n(.*?)^"""$', module.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ).group(1)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_the_examples_of_a_module(page: Page, module: Path, request: pytest.FixtureRequest) -> None:
    examples = documentation(module, "EXAMPLES")
    pool = {"name": "images", "type": "dir", "path": "/srv/images"}
    first = [{"name": "A pool", "virt.storage.storage_pool": pool}]
    page.serve(examples, request)
    if _SYSTEM in examples:
        through = {**pool, "uri": _SYSTEM, "path": "/srv/through"}
        first.append({"name": "One of the daemon", "virt.storage.storage_pool": through})
    started = [] if module.stem == "storage_pool" else page.plays(yaml.safe_dump(first))
    page.play([*started, *page.plays(examples)])


#: Debian builds libvirt without them.
NOT_IN_DEBIAN = ("sheepdog", "vstorage")


def through_a_daemon(row: Any) -> str:
    """What the README says of it."""
    if set(row.daemon) & {"create", "remove"}:
        volumes = "make and delete volumes" if "create" in row.daemon else "delete volumes"
    else:
        volumes = "list volumes"
    told = f"{'build, ' if 'build' in row.daemon else ''}start, {volumes}"
    return told + (" (not in Debian's daemon)" if row.name in NOT_IN_DEBIAN else "")


DECLARATIONS = PAGES[0].parent / "tests" / "lab" / "guest" / "declarations"


def test_the_table_of_pool_types() -> None:
    from ansible_collections.virt.storage.plugins.module_utils.backends.by_type import backend_of
    from ansible_collections.virt.storage.plugins.module_utils.model.types import POOL_TYPES

    rows = re.findall(
        r"^\| (?:\[([a-z-]+)\]\(\S+\)|([a-z-]+)) \| (all|define)[^|]* \| ([^|]+) \| ([^|]+) \|$",
        PAGES[0].read_text("utf-8"),
        re.MULTILINE,
    )
    assert {linked or plain: (can == "all", daemon) for linked, plain, can, daemon, _proof in rows} == {
        name: (backend_of(name) is not None, "the same" if row.beside else through_a_daemon(row))
        for name, row in POOL_TYPES.items()
    }
    declared = {"dir", *(file.stem[len("test_") :] for file in DECLARATIONS.glob("test_*.py"))} - {"layers"}
    assert {linked or plain for linked, plain, *_can, proof in rows if " D" in proof} == declared
