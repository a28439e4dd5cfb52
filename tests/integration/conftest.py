# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the integration tests share: hosts to call the modules on, and a real libvirtd."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from . import daemon as private_daemon
from . import loops
from .calling import call
from .crash_support import ModuleServer, deadline
from .daemon import Daemon
from .disk_scenarios import MIB, Disk, run
from .servers import Servers
from .servers import missing as no_servers


@pytest.fixture(autouse=True)
def _deadline(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test with the marker ``deadline(seconds)`` fails when it takes longer."""
    marker = request.node.get_closest_marker("deadline")
    with deadline(*marker.args) if marker else contextlib.nullcontext():
        yield


class Host:
    """An engine; without a uri the native one with a root of its own. ``name`` is the pool that most tests use, and
    ``images`` its directory.
    """

    def __init__(self, root: Path, uri: str = "", name: str = "images") -> None:
        self.root = root
        self.uri = uri or f"native:///?root={root}"
        self.name = name
        self.images = root / "images"

    def pool(self, check: bool = False, **params: Any) -> dict[str, Any]:
        return call("storage_pool", check, uri=self.uri, **params)

    def volume(self, check: bool = False, **params: Any) -> dict[str, Any]:
        return call("storage_volume", check, uri=self.uri, **{"pool": self.name, **params})

    def pool_info(self, **params: Any) -> list[dict[str, Any]]:
        return call("storage_pool_info", uri=self.uri, **params)["pools"]

    def volume_info(self, **params: Any) -> list[dict[str, Any]]:
        return call("storage_volume_info", uri=self.uri, **params)["volumes"]

    def start_images(self) -> None:
        result = self.pool(name=self.name, type="dir", path=str(self.images))
        assert "failed" not in result, result


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Nothing is there yet."""
    return Host(tmp_path / "host")


@pytest.fixture(scope="session", autouse=True)
def shared_mounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test unmounts goes from the copies that daemons of other tests have, too (mount(8), "Shared subtree").

    Their namespaces are slaves; what was copied of a private mount would keep its device in use.
    """
    directory = tmp_path_factory.getbasetemp()
    if os.geteuid() != 0:
        yield
        return
    run("mount", "--bind", directory, directory)
    run("mount", "--make-shared", directory)
    yield
    run("umount", "--lazy", directory)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Callable[..., Disk]]:
    """Makes loop devices on sparse files."""
    made: list[str] = []

    def make(size: int = 128 * MIB, partitions: bool = True, sector: int = 512) -> Disk:
        file = tmp_path / f"device{len(made)}"
        file.touch()
        os.truncate(file, size)
        scan = ["--partscan"] if partitions else []
        node = loops.attach(file, "--sector-size", sector, *scan)
        made.append(node)
        return Disk(node, node, os.path.basename(node) + "p")

    yield make
    for device in made:
        loops.detach(device)


@pytest.fixture
def images(host: Host) -> Host:
    """The pool images is active."""
    host.start_images()
    return host


def keep_private(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's locks and records below ``root``, for modules that this process runs."""
    places = importlib.import_module("ansible_collections.virt.storage.plugins.module_utils.engines.places")
    system = places._system

    def private(why: str) -> object:
        found = system(why)
        return dataclasses.replace(found, locks=f"{root}{found.locks}", records=f"{root}{found.records}")

    monkeypatch.setattr(places, "_system", private)


@pytest.fixture(scope="session")
def server(collections_path: Path) -> Iterator[ModuleServer]:
    """Runs modules in processes of their own, one at a time."""
    made = ModuleServer(collections_path)
    yield made
    made.close()


# -- real servers -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """NFS, Gluster and CIFS, in a network of their own."""
    why = no_servers()
    if why:
        pytest.skip(why)
    made = Servers()
    try:
        made.start_nfs()
        made.start_gluster()
        made.start_cifs()
        yield made
    finally:
        made.close()


# -- a real libvirtd ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def session_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    why = private_daemon.missing()
    if why:
        pytest.skip(why)
    made = Daemon(tmp_path_factory.mktemp("daemon"))
    made.start()
    yield made
    made.close()


@pytest.fixture
def daemon(session_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A real libvirtd, private and running, without pools; one per worker of pytest. The locks and records of who works
    through it are private too.
    """
    keep_private(session_daemon.files, monkeypatch)
    session_daemon.start()
    yield session_daemon
    session_daemon.start()
    session_daemon.remove_pools()
    session_daemon.remove_secrets()


_numbers = itertools.count(1)


class DaemonHost(Host):
    """As ``Host``, through libvirtd. The name of its pool is its own in each test."""

    def __init__(self, root: Path, daemon: Daemon) -> None:
        super().__init__(root, daemon.uri, f"images{next(_numbers)}")
        self.daemon = daemon


@pytest.fixture
def native_host(daemon: Daemon) -> Host:
    """A native engine on the files of the daemon. The directory ``images`` is the daemon's own, so give a path."""
    return Host(daemon.files, daemon.native_uri)


@pytest.fixture
def daemon_host(tmp_path: Path, daemon: Daemon) -> DaemonHost:
    """Nothing is there yet. What a test makes is removed after it."""
    return DaemonHost(tmp_path / "host", daemon)


@pytest.fixture
def daemon_images(daemon_host: DaemonHost) -> DaemonHost:
    """The pool ``daemon_host.name`` is active."""
    daemon_host.start_images()
    return daemon_host
