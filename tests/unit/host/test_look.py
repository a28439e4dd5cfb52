# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One look runs each command once, ends in time, and reads the notes that were left."""

from __future__ import annotations

import hashlib
import sys
import time

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host.look import Look
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError


@pytest.fixture
def look(tmp_path):
    return Look(10, str(tmp_path / "records"), str(tmp_path / "started"))


def refusal(function, *args):
    with pytest.raises(StorageError) as caught:
        function(*args)
    return caught.value


def counting(path, rest="true"):
    return ["sh", "-c", f"echo x >> {path}; {rest}"]


def test_a_command_runs_once(look, tmp_path):
    argv = counting(tmp_path / "count", "echo said")
    assert [look.run(argv), look.run(list(argv))] == ["said\n", "said\n"]
    assert (tmp_path / "count").read_text() == "x\n"
    assert Look(10, "", "").run(argv) == "said\n"
    assert (tmp_path / "count").read_text() == "x\nx\n"


def test_a_command_that_fails_runs_once(look, tmp_path):
    argv = counting(tmp_path / "count", "exit 3")
    assert [refusal(look.run, argv).rc, refusal(look.run, argv).rc] == [3, 3]
    assert (tmp_path / "count").read_text() == "x\n"


def test_json(look):
    assert look.json(["echo", '{"a": [1]}']) == {"a": [1]}
    assert look.json(["true"]) is None
    error = refusal(look.json, ["echo", "{"])
    assert (error.code, error.subject) == ("command_failed", "echo")


def test_what_is_left(look):
    assert 9 < look.left() <= 10
    assert look.rest == round(look.rest, 1)
    over = Look(0, "", "")
    time.sleep(0.01)
    error = refusal(over.left, "pool x")
    assert (error.code, error.subject) == ("deadline", "pool x")
    assert error.hint
    assert over.rest > 0  # a command may be given that
    assert refusal(over.run, ["true"]).code == "deadline"


def test_no_command_outlasts_the_look():
    look, start = Look(0.5, "", ""), time.monotonic()
    assert refusal(look.run, ["sleep", "60"]).code == "deadline"
    assert refusal(look.run, ["sleep", "61"]).code == "deadline"
    assert time.monotonic() - start < 5


def test_the_table_of_mounts_is_read_once(look):
    assert look.mounts() is look.mounts()
    assert any(mount.point == "/" for mount in look.mounts())


def test_notes(look, tmp_path):
    name = hashlib.sha256("/srv/ä".encode()).hexdigest()
    assert look.record_path("/srv/ä") == str(tmp_path / "records" / name)
    assert look.started_path("/srv/ä") == str(tmp_path / "started" / name)
    assert (look.made("/srv/ä"), look.started("/srv/ä")) == (None, None)
    for directory, text in (("records", "12 /srv/ä\n"), ("started", "")):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / name).write_text(text)
    assert (look.made("/srv/ä"), look.started("/srv/ä")) == ("12 /srv/ä\n", "")
    assert look.made("/srv/b") is None
    if sys.getfilesystemencoding() == "utf-8":
        assert look.made("/srv/\udcff") is None


def test_a_note_that_is_no_file(look, tmp_path):
    (tmp_path / "records" / hashlib.sha256(b"x").hexdigest()).mkdir(parents=True)
    assert refusal(look.made, "x").code == "not_readable"
