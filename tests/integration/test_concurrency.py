# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Several tasks on one host at the same time: one after the other, each on what the one before has left."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from .crash_support import MIB, ModuleServer, leftovers, qemu_img, refused, unchanged

pytestmark = [pytest.mark.needs_ansible, pytest.mark.deadline(90), pytest.mark.thorough]

ROUNDS = 5


@pytest.fixture(scope="module")
def servers(collections_path, server):
    others = [ModuleServer(collections_path) for _unused in range(2)]
    yield [server, *others]
    for other in others:
        other.close()


def at_once(servers, host, *tasks, **env):
    """Starts (module, params) in processes of their own, all let go together. Their results, in order."""
    children = [
        server.start(module, {"uri": host.uri, **params}, **env) for server, (module, params) in zip(servers, tasks)
    ]
    for child in children:
        child.go()
    outcomes = [child.wait() for child in children]
    assert all(status in (0, 1) for status, _unused in outcomes), outcomes
    return [result for _unused, result in outcomes]


def volume(name, **declared):
    return ("storage_volume", {"pool": "images", "name": name, **declared})


def pool(host, **declared):
    return ("storage_pool", {"name": "images", "type": "dir", "path": str(host.images), **declared})


def slow_qemu_img(top, seconds=0.5, then=""):
    folder = top / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "qemu-img"
    program.write_text(f'#!/bin/bash\n{then}\nsleep {seconds}\nexec {shutil.which("qemu-img")} "$@"\n')
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize("declared", [{"capacity": "1M"}, {"capacity": "1M", "format": "qcow2"}], ids=["raw", "qcow2"])
def test_the_same_volume(images, servers, declared):
    """One makes it, the others find it there."""
    for number in range(ROUNDS):
        results = at_once(servers, images, *[volume(f"v{number}", **declared)] * 3)
        assert not [result for result in results if result.get("failed")], results
        assert sorted(result["changed"] for result in results) == [False, False, True]
    assert leftovers(images.root) == []


def test_the_same_volume_differently(images, servers):
    """Whoever is second is refused or grows it; nothing is lost."""
    for number in range(ROUNDS):
        name = f"v{number}"
        first, second = at_once(servers, images, volume(name, capacity="1M"), volume(name, capacity="2M"))
        size = (images.images / name).stat().st_size
        if first.get("failed"):
            refused(first, "shrink_refused")
        else:
            assert first["changed"]
        assert second["changed"]
        assert size == 2 * MIB
    assert leftovers(images.root) == []


def test_different_volumes(images, servers):
    for number in range(ROUNDS):
        tasks = [volume(f"v{number}-{n}", capacity="1M", format="qcow2") for n in range(3)]
        results = at_once(servers, images, *tasks)
        assert [result.get("changed") for result in results] == [True, True, True], results
    assert len(os.listdir(images.images)) == 3 * ROUNDS
    for path in images.images.iterdir():
        qemu_img("check", "-q", "-f", "qcow2", path)


def test_bulks_that_overlap(images, servers):
    def bulk(names):
        entries = [{"name": name, "capacity": "1M", "format": "qcow2"} for name in names]
        return ("storage_volume", {"pool": "images", "volumes": entries})

    results = at_once(servers, images, bulk("abcd"), bulk("cdef"), bulk("efab"))
    assert not [result for result in results if result.get("failed")], results
    made = [entry["name"] for result in results for entry in result["volumes"] if entry["status"] == "changed"]
    assert sorted(made) == list("abcdef")
    assert leftovers(images.root) == []


def test_creating_and_deleting(images, servers):
    for _unused in range(ROUNDS):
        created, deleted = at_once(servers, images, volume("a", capacity="1M"), volume("a", state="absent"))
        assert created["changed"], created
        assert not deleted.get("failed"), deleted
        assert (images.images / "a").exists() != deleted["changed"]
        images.volume(name="a", state="absent")
    assert leftovers(images.root) == []


def test_growing_twice(images, servers):
    images.volume(name="a", format="qcow2", capacity="1M")
    results = at_once(servers, images, *[volume("a", format="qcow2", capacity="1G")] * 3)
    assert sorted(result["changed"] for result in results) == [False, False, True], results
    qemu_img("check", "-q", "-f", "qcow2", images.images / "a")


def test_a_volume_in_a_pool_that_is_being_deleted(images, servers):
    """Either the volume is first, and the pool is not empty; or the pool is gone, and the volume can't be made."""
    for _unused in range(ROUNDS):
        images.start_images()
        made, deleted = at_once(servers, images, volume("a", capacity="1M"), pool(images, state="deleted"))
        if made.get("failed"):
            assert made["error"]["code"] in ("pool_missing", "pool_inactive"), made["error"]
            assert deleted["changed"], deleted
            assert not images.images.exists()
        else:
            refused(deleted, "pool_nonempty")
            images.volume(name="a", state="absent")
    assert leftovers(images.root) == []


def test_the_same_pool(host, servers):
    for number in range(ROUNDS):
        declared = {"name": f"p{number}", "type": "dir", "path": str(host.root / f"p{number}")}
        results = at_once(servers, host, *[("storage_pool", declared)] * 3)
        assert not [result for result in results if result.get("failed")], results
        assert sorted(result["changed"] for result in results) == [False, False, True]
        assert len({result["pool"]["uuid"] for result in results}) == 1
    assert leftovers(host.root) == []


def test_two_pools_in_one_directory(host, servers):
    """The definitions have one lock: only one gets the directory, only one gets the uuid."""
    for number in range(ROUNDS):
        path = str(host.root / f"d{number}")
        tasks = [("storage_pool", {"name": f"{letter}{number}", "type": "dir", "path": path}) for letter in "ab"]
        results = at_once(servers, host, *tasks)
        failed = [result for result in results if result.get("failed")]
        assert len(failed) == 1, results
        refused(failed[0], "source_conflict")
        uuid = f"11111111-2222-3333-4444-{number:012}"
        tasks = [
            ("storage_pool", {"name": f"{letter}{number}", "type": "dir", "path": f"{path}{letter}", "uuid": uuid})
            for letter in "cd"
        ]
        failed = [result for result in at_once(servers, host, *tasks) if result.get("failed")]
        assert len(failed) == 1
        refused(failed[0], "uuid_conflict")


def test_looking_takes_no_lock(images, servers, tmp_path):
    """While a task works, check mode and the listings answer at once, and see no half volume."""
    env = slow_qemu_img(tmp_path, 1.5)
    child = servers[0].start(
        "storage_volume", {"uri": images.uri, **volume("a", format="qcow2", capacity="1M")[1]}, **env
    )
    child.go()
    wait_for((images.images / ".virt-storage").exists)
    start = time.monotonic()
    assert images.volume_info(pool="images") == []
    assert images.pool_info(name="images")[0]["state"] == "active"
    planned = images.volume(True, name="b", capacity="1M")
    assert [entry["action"] for entry in planned["plan"]] == ["create"], (
        "what another task is working in is no leftover"
    )
    assert time.monotonic() - start < 1
    assert child.wait()[1]["changed"]
    assert leftovers(images.root) == []


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("other", ["volume", "pool"])
def test_lock_timeout(images, servers, tmp_path, other):
    env = slow_qemu_img(tmp_path, 2.5)
    child = servers[0].start(
        "storage_volume", {"uri": images.uri, **volume("a", format="qcow2", capacity="1M")[1]}, **env
    )
    child.go()
    wait_for((images.images / ".virt-storage").exists)
    start = time.monotonic()
    if other == "volume":
        result = images.volume(name="b", capacity="1M", timeout=1)
    else:
        result = images.pool(name="images", state="inactive", timeout=1)
    error = refused(result, "locked")
    assert 0.9 < time.monotonic() - start < 2
    assert error["hint"]
    assert child.wait()[1]["changed"]
    assert not (images.images / "b").exists()
    assert images.volume(name="b", capacity="1M", timeout=1)["changed"]


def test_other_pools_are_not_held_up(images, servers, tmp_path):
    images.pool(name="other", type="dir", path=str(images.root / "other"))
    env = slow_qemu_img(tmp_path, 1.5)
    child = servers[0].start(
        "storage_volume", {"uri": images.uri, **volume("a", format="qcow2", capacity="1M")[1]}, **env
    )
    child.go()
    wait_for((images.images / ".virt-storage").exists)
    start = time.monotonic()
    assert images.volume(pool="other", name="a", capacity="1M")["changed"]
    unchanged(images.pool(name="other", type="dir", path=str(images.root / "other")))
    assert time.monotonic() - start < 1
    assert child.wait()[1]["changed"]


def test_a_killed_owner_frees_its_lock(images, servers, tmp_path):
    """Killed between two of its calls: nothing holds the lock any more."""
    child = servers[0].start("storage_volume", {"uri": images.uri, **volume("a", capacity="1M")[1]})
    child.kill()
    child.go()
    assert child.wait()[0] == -9
    assert images.volume(name="a", capacity="1M", timeout=1)["changed"]


def test_a_surviving_program_keeps_the_lock(images, servers, tmp_path):
    """Its parent is dead, qemu-img still writes: nobody else may, until it ends."""
    env = slow_qemu_img(tmp_path, 2.5, "kill -9 $PPID")
    child = servers[0].start(
        "storage_volume", {"uri": images.uri, **volume("a", format="qcow2", capacity="1M")[1]}, **env
    )
    child.go()
    assert child.wait()[0] == -9
    refused(images.volume(name="b", capacity="1M", timeout=1), "locked")
    planned = images.volume(True, name="b", capacity="1M")
    assert not planned.get("failed"), planned
    assert images.volume(name="a", format="qcow2", capacity="1M", timeout=20)["changed"]
    qemu_img("check", "-q", "-f", "qcow2", images.images / "a")
    assert leftovers(images.root) == []
