# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs ansible-test's sanity tests, with no ignore file, on a copy of the tree.

dev/ansible_test                          all tests; compile and import tests with every Python that is found
dev/ansible_test --quick                  all tests, but of what users get only; compile tests with the oldest Python
dev/ansible_test --test pylint ...        arguments go to one run of "ansible-test sanity"

ansible-test wants to stand in .../ansible_collections/virt/storage, keeps its environments in HOME, and clears the
environment variables: it gets a copy of the tree (with what is not committed yet), a HOME in the cache folder, and
uv instead of pip, with the settings that pip has here.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import environments
import places
import pythons
from places import CACHE, HOME, ROOT, VENVS, Stop, say

# ansible-test starts each of its environments with a script that it would download from a host of its own, and which
# puts pip there. This script puts there what hands pip's work to uv: ansible-test makes a dozen environments, and pip
# takes several seconds to start in each, three times.
GET_PIP = """\
import os, sysconfig
os.symlink({package!r}, os.path.join(sysconfig.get_path("purelib"), "pip"))
"""
INSTEAD_OF_PIP = """\
import os, sys, sysconfig
command, *rest = sys.argv[1:]
if command == "uninstall":
    os.unlink(os.path.join(sysconfig.get_path("purelib"), "pip"))
else:
    rest = [word for word in rest if word != "--disable-pip-version-check"]
    os.environ.update({settings!r})
    os.execv({uv!r}, [{uv!r}, "pip", command, "--quiet", "--python", sys.executable, *rest])
"""

QUICK = "--quick"
OURS = ("dev/", "tests/")  # what only those need who change the collection
_NETWORK = ("ssl_cert_file", "http_proxy", "https_proxy", "all_proxy", "no_proxy")

_ASK_PIP_VERSION = """
import sys
from types import SimpleNamespace
from ansible_test._internal.python_requirements import get_venv_packages
print(get_venv_packages(SimpleNamespace(version=sys.argv[1]))["pip"])
"""


def _pip_versions(python: pythons.Python, for_versions: list[str]) -> set[str]:
    """The versions of pip that the installed ansible-test puts into its environments."""
    wanted = set()
    interpreter = str(VENVS / python.name / "bin" / "python")
    for version in for_versions:
        asked = subprocess.run(
            [interpreter, "-c", _ASK_PIP_VERSION, version], capture_output=True, text=True, check=False
        )
        if asked.returncode == 0:
            wanted.add(asked.stdout.strip())
    if not wanted:
        # Its insides have moved: look for the pins in the text.
        for source in (VENVS / python.name).glob("lib/python3*/site-packages/ansible_test/_internal/*.py"):
            wanted.update(re.findall(r"""\bpip=["'](\d+(?:\.\d+)+)["']""", source.read_text(encoding="utf-8")))
    return wanted


def prepare_home(choice: pythons.Choice) -> None:
    cache, package = HOME / ".ansible" / "test" / "cache", HOME / "instead-of-pip"
    cache.mkdir(parents=True, exist_ok=True)
    package.mkdir(exist_ok=True)
    for version in _pip_versions(choice.main, [choice.main.short, *(python.short for python in choice.found)]):
        script = GET_PIP.format(package=str(package))
        (cache / f"get_pip_{version.replace('.', '_')}.py").write_text(script, encoding="utf-8")
    # ansible-test clears the environment, in which uv is told of the index, certificates and caches. What it installs
    # it is to compile, since what Python says of it when it does would fail a test.
    settings = {"UV_COMPILE_BYTECODE": "1"}
    settings |= {
        name: value
        for name, value in environments.uv_environment().items()
        if name.startswith("UV_") or name.lower() in _NETWORK
    }
    program = package / "__main__.py"
    program.touch(mode=0o600)  # an index's address may hold a password
    text = INSTEAD_OF_PIP.format(settings=settings, uv=str(environments.UV))
    program.write_text(text, encoding="utf-8")


def copy_tree(without: tuple[str, ...]) -> Path:
    """A copy of all that git tracks or would track, less some folders, at a path that is the same each time (tools
    cache by path).
    """
    base = CACHE / "trees" / hashlib.sha256(str(ROOT).encode()).hexdigest()[:12]
    tree = base / "ansible_collections" / "virt" / "storage"
    shutil.rmtree(base, ignore_errors=True)
    tree.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        raise Stop("The sanity tests need a git clone: " + listed.stderr.decode(errors="replace"))
    for name in sorted(set(os.fsdecode(listed.stdout).split("\0"))):
        source, target = ROOT / name, tree / name
        if name and not name.startswith(without) and os.path.lexists(source):  # a tracked file may have been removed
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return tree


def entry(arguments: list[str]) -> int:
    if arguments[:1] in (["-h"], ["--help"]):
        say(str(__doc__))
        return 0
    choice = environments.prepare("test")
    env = places.tool_environment(choice.main.name, choice.directories())
    program = str(VENVS / choice.main.name / "bin" / "ansible-test")
    failed = []
    # The environments that ansible-test makes are shared by all clones: one at a time.
    with (HOME / "ansible-test.lock").open("w", encoding="utf-8") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        prepare_home(choice)
        quick = arguments == [QUICK]
        tree = copy_tree(OURS if quick else ())
        try:
            for run in _runs(choice, [] if quick else arguments, quick):
                say("$ ansible-test " + " ".join(run))
                if subprocess.run([program, *run], cwd=tree, env=env, check=False).returncode != 0:
                    failed.append(run)
        finally:
            shutil.rmtree(tree.parents[2], ignore_errors=True)
    for run in failed:
        say("FAILED: ansible-test " + " ".join(run))
    return 1 if failed else 0


def _runs(choice: pythons.Choice, arguments: list[str], quick: bool) -> list[list[str]]:
    full = ["sanity", "--color", "no", "--venv", "--python", choice.main.short, *arguments]
    if arguments:
        return [full]
    others = [python for python in choice.found if python.minor != choice.main.minor and _supports(choice.main, python)]
    tests = ["--test", "compile", "--test", "import"]
    if quick:
        others, tests = others[:1], tests[:2]
    of = ["sanity", "--color", "no", "--local", "--python"]
    return [full, *([*of, python.short, *tests] for python in others)]


def _supports(main: pythons.Python, target: pythons.Python) -> bool:
    """ansible-core for Python 3.11 knows no Python newer than 3.13."""
    return not (main.minor == (3, 11) and target.minor > (3, 13))


if __name__ == "__main__":
    places.main(entry)
