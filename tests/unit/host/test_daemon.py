# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a daemon's errors come to, and what starting a pool may build: with a stand-in for libvirt's library.

With a real daemon: tests/integration/test_daemon_failures.py and test_daemon_types.py.
"""

from __future__ import annotations

import sys
import time

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import daemon, daemon_calls
from ansible_collections.virt.storage.plugins.module_utils.model.daemon_calls import DaemonCall
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Sought

BUILT, PROBE, INVALID, OPERATION_INVALID, UNSUPPORTED = 76, 75, 8, 55, 3


class Refused(Exception):
    def __init__(self, text, code):
        super().__init__(text)
        self.code = code

    def get_error_code(self):
        return self.code


class Library:
    """The part of libvirt that the module names."""

    libvirtError = Refused
    VIR_ERR_STORAGE_POOL_BUILT = BUILT
    VIR_ERR_INVALID_ARG = INVALID
    VIR_ERR_OPERATION_INVALID = OPERATION_INVALID
    VIR_ERR_NO_SUPPORT = UNSUPPORTED
    VIR_ERR_NO_CONNECT = 5
    VIR_ERR_AUTH_FAILED, VIR_ERR_AUTH_CANCELLED, VIR_ERR_AUTH_UNAVAILABLE, VIR_ERR_ACCESS_DENIED = 45, 79, 80, 88
    VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT = 1024
    VIR_STORAGE_POOL_BUILD_NO_OVERWRITE = 4
    VIR_STORAGE_POOL_BUILD_OVERWRITE = 8

    def __init__(self, connection=None):
        self.connection = connection

    def open(self, uri):
        if isinstance(self.connection, Exception):
            raise self.connection
        return self.connection

    def openReadOnly(self, uri):
        return self.open(uri)

    @staticmethod
    def registerErrorHandler(handler, context):
        pass


class Pool:
    """``starts``: whether it can be started before and after each build; ``builds``: what each build ends with."""

    def __init__(self, starts, builds=(), capacity=1):
        self.starts, self.builds, self.capacity = list(starts), list(builds), capacity
        self.done: list[str] = []

    def create(self, flags):
        self.done.append("create")
        if not self.starts.pop(0):
            raise Refused("can't be started", 38)

    def build(self, flags):
        self.done.append(f"build {flags}")
        error = self.builds.pop(0) if self.builds else None
        if error is not None:
            raise error
        self.capacity = 1

    def destroy(self):
        self.done.append("destroy")

    def info(self):
        return [2, self.capacity, 0, 0]


class Connection:
    def __init__(self, pool=None, alive=True):
        self.pool, self.alive, self._o = pool, alive, object()

    def storagePoolLookupByName(self, name):
        return self.pool

    def isAlive(self):
        return int(self.alive)

    def getLibVersion(self):
        return 9

    def close(self):
        pass


def opened(connection, timeout=1.0, monkeypatch=None):
    made = daemon.Daemon("test:///x", timeout)
    made._library, made._connection = Library(connection), connection
    return made


def start(pool, *words):
    opened(Connection(pool)).call(DaemonCall("pool-start", "test:///x", "p", words=words))
    return pool.done


# -- what is not shown ----------------------------------------------------------------------------------------------


def test_a_daemon_that_prints_a_password_is_not_repeated():
    class Mounting(Pool):
        def create(self, flags):
            raise Refused("(mount -o 'guest,pass=it'\\''s s3cret' -t cifs) unexpected exit status 32", 38)

    op = DaemonCall("pool-start", "test:///x", "p", told=("ro,pass=it's s3cret",))
    with pytest.raises(StorageError) as caught:
        opened(Connection(Mounting(()))).call(op)
    assert "s3cret" not in str(caught.value)
    assert "pass=(private)' -t cifs) unexpected exit status 32" in caught.value.message


def test_a_definition_is_shown_without_its_secrets():
    op = DaemonCall("pool-define", "u", "p", xml="<a>s3cret</a>\n", shown="<a>(private)</a>\n")
    assert op.command == "virsh -c u pool-define /dev/stdin <<'XML'\n<a>(private)</a>\nXML"


# -- starting -------------------------------------------------------------------------------------------------------

OTHER = Refused("Format of device does not match, forced overwrite is necessary", BUILT)
SAME = Refused("Device is already formatted", BUILT)
FLAGS = Refused("unsupported flags", INVALID)


@pytest.mark.parametrize(
    ("pool", "words", "done"),
    [
        pytest.param(Pool([True]), ["build"], ["create"], id="there"),
        pytest.param(Pool([False, True]), ["build"], ["create", "build 4", "create"], id="built"),
        pytest.param(Pool([False, True], [SAME]), ["build"], ["create", "build 4", "create"], id="built-already"),
        pytest.param(
            Pool([False, True], [SAME]),
            ["build", "overwrite"],
            ["create", "build 4", "create"],
            id="never-built-over-own",
        ),
        pytest.param(
            Pool([False, True], [OTHER]),
            ["build", "overwrite"],
            ["create", "build 4", "build 8", "create"],
            id="built-over",
        ),
        pytest.param(
            Pool([False, True], [FLAGS]), ["build"], ["create", "build 4", "build 0", "create"], id="without-flags"
        ),
        pytest.param(Pool([False, True]), ["directory"], ["create", "build 0", "create"], id="only-its-directory"),
        pytest.param(Pool([True]), ["first"], ["build 0", "create"], id="with-permissions"),
        pytest.param(
            Pool([True, True], [FLAGS], 0),
            ["build", "sized"],
            ["create", "destroy", "build 4", "build 0", "create"],
            id="zpool-that-is-not-there",
        ),
        pytest.param(Pool([True], capacity=0), ["build"], ["create"], id="of-no-size"),
        pytest.param(Pool([True]), ["build", "sized"], ["create"], id="zpool-that-is-there"),
    ],
)
def test_starting(pool, words, done):
    assert start(pool, *words) == done


@pytest.mark.parametrize(
    ("pool", "words", "code", "done"),
    [
        pytest.param(Pool([False]), ["check"], "daemon_failed", ["create"], id="nothing-to-build"),
        pytest.param(Pool([False], [OTHER]), ["build"], "storage_foreign", ["create", "build 4"], id="not-built-over"),
        pytest.param(
            Pool([False, False]),
            ["build"],
            "daemon_failed",
            ["create", "build 4", "create"],
            id="built-and-not-started",
        ),
        pytest.param(
            Pool([True], [], 0), ["check", "sized"], "source_missing", ["create", "destroy"], id="zpool-not-to-be-built"
        ),
        pytest.param(
            Pool([False], [Refused("probe", PROBE)]), ["build"], "daemon_failed", ["create", "build 4"], id="not-probed"
        ),
    ],
)
def test_not_starting(pool, words, code, done):
    with pytest.raises(StorageError) as caught:
        start(pool, *words)
    assert (caught.value.code, pool.done) == (code, done)


# -- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number", "code"),
    [
        ("no such function", 3, "daemon_cannot"),
        ("not for this type", 84, "daemon_cannot"),
        ("operation failed", 9, "daemon_failed"),
        ("who knows", 4242, "daemon_failed"),
        ("denied", 88, "not_permitted"),
        ("read only", 29, "not_permitted"),
        ("pool is gone", 49, "changed_meanwhile"),
        ("volume is gone", 50, "changed_meanwhile"),
        ("volume is there", 90, "changed_meanwhile"),
        ("other format", 76, "storage_foreign"),
        ("cannot write: No space left on device", 38, "no_space"),
    ],
)
def test_what_an_error_comes_to(monkeypatch, text, number, code):
    def fail(library, connection, op):
        raise Refused(text, number)

    monkeypatch.setitem(daemon_calls.CALLS, "pool-destroy", fail)
    with pytest.raises(StorageError) as caught:
        opened(Connection()).call(DaemonCall("pool-destroy", "test:///x", "p"))
    error = caught.value
    assert error.code == code
    assert error.subject == "pool p"
    assert error.hint
    assert error.command == "virsh -c test:///x pool-destroy p"
    assert text in error.message


def test_a_daemon_that_went_away(monkeypatch):
    connection = Connection()

    def fail(library, connection, op):
        connection.alive = False
        raise Refused("end of file", 38)

    monkeypatch.setitem(daemon_calls.CALLS, "pool-refresh", fail)
    with pytest.raises(StorageError) as caught:
        opened(connection).call(DaemonCall("pool-refresh", "test:///x", "p", "v"))
    assert caught.value.code == "daemon_lost"
    assert caught.value.subject == "volume p/v"


@pytest.mark.parametrize(
    ("uri", "error", "code"),
    [
        ("test:///x", Refused("Connection refused", 38), "daemon_down"),
        ("qemu+ssh://h/system", Refused("Connection refused", 38), "daemon_down"),
        ("qmeu:///system", Refused("Connection refused", 38), "invalid_uri"),
        ("test:///x", Refused("authentication failed", 45), "not_permitted"),
        ("test:///x", Refused("Failed to connect socket: Permission denied", 38), "not_permitted"),
        ("test:///x", Refused("no connection driver available", 5), "invalid_uri"),
    ],
)
def test_no_connection(monkeypatch, uri, error, code):
    monkeypatch.setattr(daemon, "_library", lambda: Library(error))
    with pytest.raises(StorageError) as caught:
        daemon.Daemon(uri, 1).open(changing=True)
    assert caught.value.code == code
    assert caught.value.hint


def test_no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(StorageError) as caught:
        daemon.Daemon("test:///x", 1).open(changing=False)
    assert caught.value.code == "library_missing"
    assert "python3-libvirt" in caught.value.hint


# -- time -----------------------------------------------------------------------------------------------------------


def test_what_is_busy_is_tried_again(monkeypatch):
    tries = []

    def busy(library, connection, op):
        tries.append(1)
        if len(tries) < 3:
            raise Refused("pool 'p' has asynchronous jobs running.", 1)

    monkeypatch.setitem(daemon_calls.CALLS, "pool-destroy", busy)
    opened(Connection()).call(DaemonCall("pool-destroy", "test:///x", "p"))
    assert len(tries) == 3


def test_what_stays_busy(monkeypatch):
    def busy(library, connection, op):
        raise Refused("volume 'v' is still in use.", 55)

    monkeypatch.setitem(daemon_calls.CALLS, "pool-destroy", busy)
    with pytest.raises(StorageError) as caught:
        opened(Connection(), 0.3).call(DaemonCall("pool-destroy", "test:///x", "p"))
    assert caught.value.code == "daemon_failed"
    assert "timeout" in caught.value.hint


def test_a_call_may_take_longer_while_the_daemon_answers(monkeypatch):
    monkeypatch.setitem(daemon_calls.CALLS, "pool-refresh", lambda library, connection, op: time.sleep(0.5))
    opened(Connection(), 0.1).call(DaemonCall("pool-refresh", "test:///x", "p"))


def test_a_call_ends_where_the_daemon_does_not_answer(monkeypatch):
    connection = Connection()
    made = opened(connection, 0.1)
    monkeypatch.setitem(daemon_calls.CALLS, "pool-refresh", lambda library, connection, op: time.sleep(1))
    monkeypatch.setattr(made._library, "openReadOnly", lambda uri: time.sleep(1))
    with pytest.raises(StorageError) as caught:
        made.call(DaemonCall("pool-refresh", "test:///x", "p"))
    assert caught.value.code == "deadline"
    assert connection._o is None  # never to be closed
    made.close()


def test_a_look_ends_in_time():
    made = opened(Connection(), 0.1)
    with pytest.raises(StorageError) as caught:
        made._look("pool p", lambda connection: time.sleep(1))
    assert caught.value.code == "deadline"
    made.close()


def test_what_else_goes_wrong_is_handed_on():
    with pytest.raises(ZeroDivisionError):
        opened(Connection())._look("pool p", lambda connection: 1 / 0)


@pytest.mark.parametrize(
    ("names", "used", "holds", "message"),
    [
        (["a"], 5, None, ""),
        (["a"], 5, (("a", "b"), 5), ""),
        (["a", "new"], 5, (("a",), 9), "pool p turned out to hold new after it was looked at"),
        (["a"], 6, (("a",), 5), "pool p turned out to hold more than its daemon lists after it was looked at"),
        (["a"], 6, (("a",), None), ""),
    ],
)
def test_what_a_pool_turns_out_to_hold(names, used, holds, message):
    class Filled:
        @staticmethod
        def refresh(flags):
            assert flags == 0

        @staticmethod
        def listVolumes():
            return names

        @staticmethod
        def info():
            return [2, 9, used, 4]

    class Connection:
        @staticmethod
        def storagePoolLookupByName(name):
            return Filled

    op = DaemonCall("pool-refresh", "u", "p", holds=holds)
    if not message:
        daemon_calls._refresh(Library(), Connection(), op)
        return
    with pytest.raises(StorageError) as raised:
        daemon_calls._refresh(Library(), Connection(), op)
    assert (raised.value.code, raised.value.message) == ("changed_meanwhile", message)


@pytest.mark.parametrize(
    ("sought", "wrong"),
    [
        (Sought("unit:0:0:1"), ""),
        (Sought("unit:0:0:1", 9), ""),
        (Sought("unit:0:0:1", 5, at_least=True), ""),
        (Sought("unit:0:0:1", 5), " has 9"),
        (Sought("unit:0:0:7"), "unit:0:0:7 of pool p is not there"),
    ],
)
def test_what_is_sought_in_a_pool(sought, wrong):
    class Unit:
        @staticmethod
        def info():
            return [1, 9, 9]

    class Pool:
        @staticmethod
        def refresh(flags):
            assert flags == 0

        @staticmethod
        def listVolumes():
            return ["unit:0:0:1"]

        @staticmethod
        def storageVolLookupByName(name):
            assert name == "unit:0:0:1"
            return Unit

    class Connection:
        @staticmethod
        def storagePoolLookupByName(name):
            return Pool

    op = DaemonCall("pool-refresh", "u", "p", sought=(Sought("unit:0:0:1"), sought))
    if not wrong:
        daemon_calls._refresh(Library(), Connection(), op)
        return
    with pytest.raises(StorageError) as raised:
        daemon_calls._refresh(Library(), Connection(), op)
    assert (raised.value.code, wrong in raised.value.message) == ("source_missing", True)


class Guests:
    """A connection with two guests, the second of which has a snapshot."""

    def listAllDomains(self, flags=0):
        return [Guest("a"), Guest("b")][1 if flags == Library.VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT else 0 :]


class Guest:
    def __init__(self, name):
        self.name = name

    def isPersistent(self):
        return 1

    def isActive(self):
        return 0

    def XMLDesc(self, flags):
        return f"<{self.name}/>"

    def listAllSnapshots(self):
        assert self.name == "b"
        return [self]

    def getXMLDesc(self):
        return f"<snapshot-of-{self.name}/>"


def test_snapshots_of_guests_are_told_and_only_those_who_have_some_are_asked(monkeypatch):
    asked = daemon.Daemon("qemu:///system", 5)
    asked._library = Library()
    monkeypatch.setattr(asked, "_look", lambda uri, look: look(Guests()))
    assert asked.guests() == ["<a/>", "<b/>", "<snapshot-of-b/>"]
