# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A module that Ansible runs in a Python without libvirt's binding runs again in the one that has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.needs_ansible, pytest.mark.each_python]

PASSWORD = "open-sesame-4711"


@pytest.fixture
def run_module(tmp_path, collections_path):
    """Ansible runs tests/integration/library/needs_binding.py on this machine; its result and all that was printed."""

    def run(count: int, *options: str, before: tuple[str, ...] = ()) -> tuple[dict, str]:
        names = [f"volume-with-a-rather-long-name-{number:06}" for number in range(count)]
        task = {"needs_binding": {"names": names, "password": PASSWORD}}
        (tmp_path / "play.json").write_text(
            json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}])
        )
        argv = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", str(tmp_path / "play.json"), *options]
        argv += ["-e", f"ansible_python_interpreter={sys.executable}"]
        env = {
            **os.environ,
            "ANSIBLE_LIBRARY": str(Path(__file__).parent / "library"),
            "ANSIBLE_COLLECTIONS_PATH": str(collections_path),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
            "ANSIBLE_REMOTE_TMP": str(tmp_path / "remote"),
        }
        done = subprocess.run(
            [*before, *argv, "-v"], env=env, capture_output=True, text=True, timeout=120, check=False
        )  # fmt: skip
        printed = done.stdout + done.stderr
        (line,) = [line for line in done.stdout.splitlines() if " => {" in line]
        return json.loads(line.partition(" => ")[2]), printed

    return run


@pytest.mark.thorough
@pytest.mark.parametrize("count", [1, 10_000], ids=["small", "more than a pipe holds"])
def test_it_runs_again_with_its_parameters(run_module, count):
    result, printed = run_module(count)
    assert result["executable"] not in ("", sys.executable)
    assert result["binding"] > 0
    assert result["count"] == count
    assert result["length"] == len(PASSWORD)
    assert not result["check_mode"]
    assert PASSWORD not in printed


@pytest.mark.thorough
def test_check_mode_and_diff_survive(run_module):
    result, printed = run_module(1, "--check", "--diff")
    assert result["check_mode"]
    assert "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER" in result["said"]
    assert "+1 volumes" in printed
    assert PASSWORD not in printed


@pytest.mark.thorough
@pytest.mark.root
def test_where_no_python_has_it_the_error_names_the_package(run_module):
    hidden = "/usr/lib/python3/dist-packages"
    before = (
        "unshare",
        "--mount",
        "--propagation",
        "slave",
        "sh",
        "-c",
        f'mount -t tmpfs tmpfs {hidden} && exec "$@"',
        "hidden",
    )
    result, _printed = run_module(1, before=before)
    assert result["error"]["code"] == "library_missing"
    assert f"{sys.executable} can't import: No module named 'libvirt'" in result["msg"]
    assert "none of /usr/bin/python3" in result["msg"]
    assert "python3-libvirt" in result["error"]["hint"]


def test_a_test_that_calls_a_module_gets_the_error_at_once(monkeypatch):
    """There is no module to run again."""
    from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
    from ansible_collections.virt.storage.plugins.module_utils.tasks.binding import ensure_libvirt

    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(StorageError) as caught:
        ensure_libvirt(None)
    assert caught.value.code == "library_missing"


@pytest.mark.thorough
@pytest.mark.root
def test_a_play_through_a_daemon(daemon, tmp_path, collections_path):
    """With the tests' own Python as the interpreter, which has no binding: both runs, and a dry one before."""
    tasks = [
        {"virt.storage.storage_pool": {"name": "images", "type": "dir", "path": str(tmp_path / "images")}},
        {"virt.storage.storage_volume": {"pool": "images", "volumes": [{"name": "a", "capacity": "1MiB"}]}},
        {"virt.storage.storage_volume_info": {"pool": "images"}, "register": "seen"},
        {"ansible.builtin.assert": {"that": ["ansible_check_mode or seen.volumes | length == 1"]}},
    ]
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
    play["module_defaults"] = {"group/virt.storage.storage": {"uri": daemon.uri}}
    (tmp_path / "play.json").write_text(json.dumps([play]))
    argv = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", str(tmp_path / "play.json")]
    argv += ["-e", f"ansible_python_interpreter={sys.executable}"]
    env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(collections_path), "ANSIBLE_REMOTE_TMP": str(tmp_path / "r")}
    env["ANSIBLE_LOCAL_TEMP"] = str(tmp_path / "l")
    for options, changed in ((["--check", "--diff"], 2), ([], 2), ([], 0)):
        done = subprocess.run([*argv, *options], env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"changed={changed} " in done.stdout, done.stdout
        if options:
            assert daemon.pools("--all") == []
            assert not (tmp_path / "images").exists()
    assert daemon.pools() == ["images"]
    assert daemon.virsh("vol-list", "images").split()[0] == "a"
