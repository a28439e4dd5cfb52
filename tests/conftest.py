# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What all tests share: how the collection is imported, hypothesis' profiles, and which tests may be skipped.

The same file serves Pythons with ansible-core and without (a managed host's oldest Python has none): the collection
is imported through a tree of its own, as a namespace package, and needs no plugin of pytest's for it.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache"
COLLECTIONS = CACHE / "collections"
HAS_ANSIBLE = importlib.util.find_spec("ansible") is not None
NO_ANSIBLE = "needs ansible-core, of which there is no current version for Python {}.{}".format(*sys.version_info[:2])
NO_ROOT = "needs root"


def _no_binding() -> str:
    """Why the binding can't be imported: only one for another Python is no fault of the machine's."""
    if f"python{sys.version_info[0]}.{sys.version_info[1]}" == os.path.basename(os.path.realpath("/usr/bin/python3")):
        return "libvirt's Python binding is not installed (Debian: apt-get install python3-libvirt)"
    return "libvirt's Python binding is not for this Python"


# -- imports ------------------------------------------------------------------------------------------------------


def _link_collection() -> None:
    link = COLLECTIONS / "ansible_collections" / "virt" / "storage"
    if os.path.lexists(link):
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # another worker was quicker
        link.symlink_to(Path("..") / ".." / ".." / "..")


_link_collection()
sys.path.insert(0, str(COLLECTIONS))
# For what the tests start themselves.
os.environ.setdefault("ANSIBLE_HOME", str(CACHE / "ansible"))
os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(COLLECTIONS)


def _link_binding() -> None:
    """Debian's libvirt binding, and nothing else of its packages, for a Python that its extension fits."""
    packages = Path("/usr/lib/python3/dist-packages")
    files = [packages / "libvirt.py", packages / f"libvirtmod{sysconfig.get_config_var('EXT_SUFFIX')}"]
    if importlib.util.find_spec("libvirt") is not None or not all(file.exists() for file in files):
        return
    private = CACHE / "binding" / str(sys.implementation.cache_tag)
    private.mkdir(parents=True, exist_ok=True)
    for file in files:
        with contextlib.suppress(FileExistsError):
            (private / file.name).symlink_to(file)
    sys.path.append(str(private))


_link_binding()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the clone."""
    return ROOT


@pytest.fixture(scope="session")
def collections_path() -> Path:
    """The folder that holds ansible_collections: for PYTHONPATH and ANSIBLE_COLLECTIONS_PATH of child processes."""
    return COLLECTIONS


# -- hypothesis ---------------------------------------------------------------------------------------------------

try:
    import hypothesis
    from hypothesis.configuration import set_hypothesis_home_dir
    from hypothesis.database import DirectoryBasedExampleDatabase
except ImportError:
    pass
else:
    set_hypothesis_home_dir(CACHE / "hypothesis")
    _examples = DirectoryBasedExampleDatabase(CACHE / "hypothesis" / "examples")
    # The machine may be busy: how long one example takes says nothing.
    hypothesis.settings.register_profile("default", deadline=None, database=_examples)
    hypothesis.settings.register_profile("ci", deadline=None, database=_examples, print_blob=True, max_examples=200)
    hypothesis.settings.register_profile("long", deadline=None, database=_examples, print_blob=True, max_examples=5000)
    hypothesis.settings.load_profile(
        os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default")
    )


# -- what can't run here ------------------------------------------------------------------------------------------

_NEEDS_ANSIBLE = re.compile(r"^pytestmark\s*=[^#]*\bneeds_ansible\b", re.MULTILINE)
_left_out: list[str] = []


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file whose ``pytestmark`` has needs_ansible is not even imported where there is no ansible-core."""
    if HAS_ANSIBLE or collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    if _NEEDS_ANSIBLE.search(collection_path.read_text(encoding="utf-8")):
        name = str(collection_path.relative_to(ROOT))
        if name not in _left_out:
            _left_out.append(name)
        return True
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    is_root = os.geteuid() == 0
    has_binding = importlib.util.find_spec("libvirt") is not None
    for item in items:
        if not HAS_ANSIBLE and item.get_closest_marker("needs_ansible"):
            item.add_marker(pytest.mark.skip(reason=NO_ANSIBLE))
        if not is_root and item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason=NO_ROOT))
        if not has_binding and item.get_closest_marker("libvirt_binding"):
            item.add_marker(pytest.mark.skip(reason=_no_binding()))


# -- what may be skipped ------------------------------------------------------------------------------------------


class AllowedSkips:
    """Where CI is set, a test that is skipped and not on the list (tests/allowed_skips.txt) fails the run."""

    def __init__(self, listed: Path) -> None:
        self.patterns = []
        for line in listed.read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                pattern, separator, why = line.partition("|")
                if not separator or not why.strip():
                    raise pytest.UsageError(f"{listed.name}: a line says 'pattern | why', not {line!r}")
                self.patterns.append(pattern.strip())
        self.unexpected: list[str] = []

    def _look(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason[len("Skipped: ") :] if reason.startswith("Skipped: ") else reason
        if not any(fnmatch.fnmatchcase(text, pattern) for pattern in self.patterns for text in (report.nodeid, reason)):
            self.unexpected.append(f"{report.nodeid}: {reason}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._look(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._look(report)

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        if self.unexpected and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return (yield)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.unexpected:
            terminalreporter.section("skipped, and not on the list tests/allowed_skips.txt", red=True)
            for line in self.unexpected:
                terminalreporter.line(f"FAILED {line}")


def pytest_configure(config: pytest.Config) -> None:
    on_worker = hasattr(config, "workerinput")
    if os.environ.get("CI") and not on_worker:
        config.pluginmanager.register(AllowedSkips(ROOT / "tests" / "allowed_skips.txt"), "allowed-skips")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name in sorted(_left_out):
        terminalreporter.line(f"left out: {name}: {NO_ANSIBLE}")
