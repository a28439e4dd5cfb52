# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Our own code in one file."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import own_code
from ansible_collections.virt.storage.plugins.module_utils.host.own_code import OwnCode

CODE = {"tasks/go.py": "from ..host.words import WORDS\n\n\ndef main(more):\n    print(WORDS, more)\n    return 3\n",
        "host/words.py": "WORDS = 'said'\n", "host/own_code.py": ""}  # fmt: skip


@pytest.fixture(params=["files", "archive"])
def code(request, tmp_path, monkeypatch):
    """Made-up code, in files or in an archive as Ansible sends it."""
    top = tmp_path / "top/plugins/module_utils"
    for name, text in CODE.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    (top / "host/data.json").touch()
    if request.param == "archive":
        packed = tmp_path / "payload.zip"
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("ansible/module_utils/basic.py", "nothing = 1\n")
            for name, text in {**CODE, "host/__init__.py": ""}.items():
                archive.writestr(f"some/plugins/module_utils/{name}", text)
        top = packed / "some/plugins/module_utils"
    monkeypatch.setattr(own_code, "__file__", str(top / "host/own_code.py"))
    return OwnCode("tasks.go")


@pytest.fixture
def made(code, tmp_path):
    path = tmp_path / "made.pyz"
    path.write_bytes(code.archive())
    return path


def test_it_runs(made):
    done = subprocess.run([sys.executable, "-I", made, "more"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "said ['more']\n", "")


def test_it_holds_code_and_nothing_else(made):
    with zipfile.ZipFile(made) as archive:
        names = set(archive.namelist())
    assert {name for name in names if not name.endswith("__init__.py")} == {
        "__main__.py", *(f"virt_storage/{name}" for name in CODE),
    }  # fmt: skip


def test_the_same_code_is_the_same_archive(code, made):
    assert OwnCode("tasks.go").archive() == made.read_bytes()
    assert code.is_in(made)


def test_more_may_be_there(code, made):
    with zipfile.ZipFile(made, "a") as archive:
        archive.writestr("virt_storage/host/more.py", "more = 1\n")
    assert code.is_in(made)


def test_another_entry_is_another_archive(made):
    assert not OwnCode("tasks.come").is_in(made)


def test_other_code_is_not_in_it(code, made, tmp_path, monkeypatch):
    other = tmp_path / "other/module_utils"
    (other / "host").mkdir(parents=True)
    (other / "host/words.py").write_text("WORDS = 'told'\n")
    monkeypatch.setattr(own_code, "__file__", str(other / "host/own_code.py"))
    assert not OwnCode("tasks.go").is_in(made)


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_what_is_gone_or_damaged_is_no_archive(code, made, spoil):
    spoil(made)
    assert not code.is_in(made)


def test_code_that_is_nowhere(monkeypatch, tmp_path):
    monkeypatch.setattr(own_code, "__file__", str(tmp_path / "gone/host/own_code.py"))
    with pytest.raises(OSError, match=r"gone|directory"):
        OwnCode("tasks.go")
