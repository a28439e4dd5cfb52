# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Many runs of ansible-playbook and ansible, which cost little: each is a fork of a process that has imported Ansible
and the collection, and runs the collection's modules by their entry points, in the process of their task.

Everything else is Ansible's own: parsing, templating, defaults, loops, check mode, what becomes of a result. What is
left out is how a module gets to a host: packed, into another Python. One that goes to a daemon does, since libvirt's
binding may be in another Python only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[2]
_SERVER = """
import importlib, json, os, pkgutil, sys, tempfile, warnings
import ansible.cli.adhoc, ansible.cli.playbook
from ansible.module_utils.common.json import Direction, get_module_decoder
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import init_plugin_loader
sys.path += json.loads(sys.argv[1])
from tests.integration.calling import said
init_plugin_loader()
base = "ansible_collections.virt.storage.plugins"
for room in ("module_utils", "modules"):
    package = importlib.import_module(f"{base}.{room}")
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(found.name)
warnings.filterwarnings("ignore", "AnsibleCollectionFinder has already been configured")
packed = ActionBase._execute_module

def execute(self, module_name=None, module_args=None, *, task_vars=None, **options):
    name = module_name or self._task.action
    params = self._task.args if module_args is None else module_args
    if not name.startswith("virt.storage.") or not params.get("uri", "").startswith("native:"):
        return packed(self, module_name, module_args, task_vars=task_vars, **options)
    self._update_module_args(name, params, task_vars or {})
    text = said(name.rpartition(".")[2], params)
    return json.loads(text, cls=get_module_decoder("legacy", Direction.MODULE_TO_CONTROLLER))

ActionBase._execute_module = execute
programs = {"ansible": ansible.cli.adhoc.AdHocCLI, "ansible-playbook": ansible.cli.playbook.PlaybookCLI}
print("ready", flush=True)
for line in iter(sys.stdin.readline, ""):
    words, directory = json.loads(line)
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if not pid:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output.fileno(), 1)
            os.dup2(1, 2)
            os.chdir(directory)
            status = 99
            try:
                programs[words[0]].cli_executor(words)
            except SystemExit as end:
                status = end.code or 0
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        output.seek(0)
        print(json.dumps([status, output.read().decode()]), flush=True)
"""


class Playbooks:
    """``before`` is what the process is started with, such as into a network."""

    def __init__(self, before: Sequence[str] = ()) -> None:
        environment = {**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml", "ANSIBLE_PIPELINING": "1"}
        paths = [str(_REPOSITORY), *(path for path in sys.path if "/binding/" in path)]
        self._process = subprocess.Popen(
            [*before, sys.executable, "-c", _SERVER, json.dumps(paths)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
        )  # fmt: skip
        self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that runs Ansible has ended"
        return line

    def run(self, command: list[str], directory: Path) -> tuple[int, str]:
        """Exit status and output of ``ansible-playbook …`` or ``ansible …``."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([command, str(directory)]) + "\n")
        self._process.stdin.flush()
        status, output = json.loads(self._line())
        return status, output

    def close(self) -> None:
        self._process.communicate()
