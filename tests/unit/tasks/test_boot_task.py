# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is run at boot: in which order, how long, and that it runs where there is no Ansible."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.virt.storage.plugins.module_utils.engines.boot import _ENTRY
from ansible_collections.virt.storage.plugins.module_utils.engines.places import find_places
from ansible_collections.virt.storage.plugins.module_utils.engines.select import native_engine
from ansible_collections.virt.storage.plugins.module_utils.host.directories import make_link, write_file
from ansible_collections.virt.storage.plugins.module_utils.host.own_code import OwnCode
from ansible_collections.virt.storage.plugins.module_utils.libvirt_xml.pool import render_definition
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.operations import MakeLink, WriteFile
from ansible_collections.virt.storage.plugins.module_utils.model.pool import Pool
from ansible_collections.virt.storage.plugins.module_utils.tasks import boot

PLUGINS = Path(__file__).resolve().parents[3] / "plugins"
ROOM = "ansible_collections.virt.storage.plugins."


class Starter:
    """Starts a pool at the attempt that ``needs`` says, once all that it is ``on`` is started."""

    def __init__(self, needs=None, on=None):
        self.needs, self.on = needs or {}, on or {}
        self.tried, self.started = [], []

    def __call__(self, name):
        self.tried.append(name)
        late = self.tried.count(name) < self.needs.get(name, 1)
        if late or any(other not in self.started for other in self.on.get(name, ())):
            return StorageError("source_missing", f"{name} is not there")
        self.started.append(name)
        return None


class Seeker:
    """What is looked for units in, and what is served by then."""

    def __init__(self, starter=None, **serves):
        self.starter, self.serves = starter, serves
        self.looked = []

    def __call__(self, name):
        self.looked.append(name)
        if self.looked.count(name) == self.serves.get(name):
            self.starter.started.append(f"unit of {name}")


def pools(**paths):
    return {name: Pool(name, kind, path=path) for name, (kind, path) in paths.items()}


def test_what_stands_on_others_comes_after_them():
    marked = pools(a=("fs", "/a"), b=("logical", "/dev/b"), c=("iscsi", "/dev/disk/by-path"))
    starter = Starter(on={"a": ["b"], "b": ["c"]})
    assert boot.start_all(marked, starter, Seeker(), seconds=0, pause=99) == {}
    assert starter.started == ["c", "b", "a"]


def test_nothing_is_started_in_what_is_still_to_be_mounted():
    marked = pools(a=("dir", "/srv/z/images"), z=("netfs", "/srv/z"), b=("dir", "/srv/zz"))
    starter = Starter(needs={"z": 3})
    assert boot.start_all(marked, starter, Seeker(), seconds=9, pause=0) == {}
    assert starter.started == ["b", "z", "a"]
    assert starter.tried.count("a") == 1


def test_what_is_not_there_in_time_is_told():
    marked = pools(a=("dir", "/srv/z/images"), z=("netfs", "/srv/z"), b=("dir", "/b"))
    failed = boot.start_all(marked, Starter(needs={"z": 99}), Seeker(), seconds=0, pause=0)
    assert {name: error.code for name, error in failed.items()} == {"a": "pool_inactive", "z": "source_missing"}
    assert "pool z" in failed["a"].message


def test_units_that_are_served_late_are_looked_for():
    """Where pools are started that may get them, and not in one that waits itself."""
    marked = pools(a=("fs", "/a"), b=("logical", "/dev/b"), c=("iscsi", "/dev"), d=("scsi", "/dev"), e=("dir", "/e"))
    starter = Starter(needs={"d": 3}, on={"a": ["b"], "b": ["unit of c"]})
    seeker = Seeker(starter, c=2)
    assert boot.start_all(marked, starter, seeker, seconds=9, pause=0) == {}
    assert starter.started == ["c", "e", "d", "unit of c", "b", "a"]
    assert seeker.looked == ["c", "c", "d"]


def test_no_units_are_looked_for_where_only_a_server_is_waited_for():
    marked = pools(c=("iscsi", "/dev"), z=("netfs", "/srv/z"))
    seeker = Seeker()
    assert boot.start_all(marked, Starter(needs={"z": 5}), seeker, seconds=9, pause=0) == {}
    assert seeker.looked == []


def test_a_directory_on_a_mounted_one_is_found_through_links(tmp_path):
    (tmp_path / "mounted").mkdir()
    (tmp_path / "link").symlink_to("mounted")
    marked = pools(a=("dir", f"{tmp_path}/link/images"), z=("fs", f"{tmp_path}/mounted"))
    starter = Starter()
    assert boot.start_all(marked, starter, Seeker(), seconds=9, pause=0) == {}
    assert starter.started == ["z", "a"]


# -- the real thing -----------------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path):
    """Marked pools of a host of its own: one that is there, one that is not, and one that is not marked."""
    places = find_places(f"native:///?root={tmp_path / 'root'}")
    for name, marked in (("there", True), ("gone", True), ("other", False)):
        path = os.path.join(places.config, f"{name}.xml")
        pool = Pool(name, "dir", "11111111-2222-3333-4444-555555555555", str(tmp_path / name))
        write_file(WriteFile(path, render_definition(pool, None)))
        if marked:
            make_link(MakeLink(os.path.join(places.config, "autostart", f"{name}.xml"), path))
    for name in ("there", "other"):
        (tmp_path / name).mkdir()
    return places


def state(places, name):
    return os.path.exists(os.path.join(places.run, f"{name}.xml"))


def test_marked_pools_are_started_and_the_rest_is_left_alone(host, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(boot, "_SECONDS", 0)
    monkeypatch.setattr(boot, "_PAUSE", 0)
    assert boot.main([host.uri]) == 1
    assert [state(host, name) for name in ("there", "gone", "other")] == [True, False, False]
    said = capsys.readouterr().err
    assert f"pool there: start it on {tmp_path}/there" in said
    assert "pool gone is not started" in said
    assert not os.path.exists(tmp_path / "gone")
    os.mkdir(tmp_path / "gone")
    assert boot.main([host.uri]) == 0
    assert "pool there: it is active" in capsys.readouterr().err


def test_it_runs_without_ansible(host, tmp_path):
    """As the unit runs it: a file, and the interpreter with what is installed for it."""
    (tmp_path / "gone").mkdir()
    program, nowhere = tmp_path / "autostart.pyz", tmp_path / "nowhere"
    program.write_bytes(OwnCode(_ENTRY).archive())
    (nowhere / "ansible").mkdir(parents=True)
    (nowhere / "ansible/__init__.py").write_text("raise ImportError('there is no Ansible')\n")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(nowhere), "JOURNAL_STREAM": "1:2"}
    done = subprocess.run(
        [sys.executable, program, host.uri], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert [line[:9] for line in done.stderr.splitlines()] == ["<6>pool g", "<6>pool t"]
    assert [state(host, name) for name in ("there", "gone", "other")] == [True, True, False]


def test_a_uri_that_is_none(capsys):
    assert boot.main(["native:///nowhere"]) == 2
    assert "native:///nowhere" in capsys.readouterr().err


def test_who_needs_a_password_is_not_mounted_as_a_guest(host, monkeypatch):
    engine = native_engine(host, 5)
    monkeypatch.setattr(engine, "is_keyless", lambda name: True)
    monkeypatch.setattr(boot, "decide_pool", None)
    down = engine.observe
    monkeypatch.setattr(engine, "observe", lambda scope: _down(down(scope)))
    assert boot.start("there", engine).code == "login_missing"


def _down(found):
    from dataclasses import replace

    return replace(found, storage=replace(found.storage, up=False))


@pytest.mark.parametrize(("units", "sockets"), [(("libvirtd.service",), ()), ((), ("a daemon listens",))])
def test_where_a_daemon_is_it_does_nothing(monkeypatch, capsys, units, sockets):
    monkeypatch.setattr(boot, "daemon_at_boot", lambda: units)
    monkeypatch.setattr(boot, "daemon_listens", lambda: sockets)
    monkeypatch.setattr(boot, "native_engine", None)
    assert boot.main([]) == 0
    assert (*units, *sockets)[0] in capsys.readouterr().err


# -- what goes to the host ----------------------------------------------------------------------------------------


def _imports(path):
    package = path.relative_to(PLUGINS.parent).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else ()
            base = (*up, *(node.module or "").split("."))
            if node.module and node.module.startswith(ROOM):
                base = tuple(node.module.split("."))[3:]
            for alias in node.names:
                for names in (base, (*base, alias.name)):
                    file = PLUGINS.parent.joinpath(*filter(None, names)).with_suffix(".py")
                    if file.is_file():
                        yield file


def reached(start):
    seen, waiting = set(), [start]
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += _imports(path)
    return seen


def test_ansible_sends_all_that_is_left_on_the_host():
    sent = reached(PLUGINS / "modules/storage_pool.py")
    assert reached(PLUGINS / "module_utils/tasks/boot.py") <= sent
    assert PLUGINS / "module_utils/host/own_code.py" in sent
