# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tools of libiscsi print, with stand-ins that print it. Integration tests have real tools and targets."""

from __future__ import annotations

import socket

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import libiscsi
from ansible_collections.virt.storage.plugins.module_utils.host.iscsi import Portal
from ansible_collections.virt.storage.plugins.module_utils.host.libiscsi import Account, Server, Unit, offered, units
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError
from ansible_collections.virt.storage.plugins.module_utils.model.operations import AskUnits, Secret
from ansible_collections.virt.storage.plugins.module_utils.model.volume import Sought

LISTED = """\
Target:iqn.a Portal:10.0.0.1:3260,1
Lun:0    Type:STORAGE_ARRAY_CONTROLLER
Lun:1    Type:DIRECT_ACCESS (Size:7M)
Lun:16640 Type:DIRECT_ACCESS (Size:15M)
Target:iqn.a Portal:[fd00::1]:3260,2
Lun:1    Type:DIRECT_ACCESS (Size:7M)
Target:iqn.b Portal:10.0.0.1:3260,1
Lun:2    Type:CDROM
"""
REFUSED = "list_luns: iscsi_connect failed. Failed to log in to target. Status: Authentication failure(513)\n"
SIZE = "RETURNED LOGICAL BLOCK ADDRESS:{}\nLOGICAL BLOCK LENGTH IN BYTES:4096\nTotal size:0\n"
NO_UNIT = "Login Failed. SENSE KEY:ILLEGAL_REQUEST(5) ASCQ:LOGICAL_UNIT_NOT_SUPPORTED(0x2500)"
NO_SIZE = "failed to send readcapacity command"


@pytest.fixture
def portal():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Server(Portal("127.0.0.1", server.getsockname()[1]))


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Stand-ins: a script for each tool. What they are started with is in ``log``."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def make(**scripts: str):
        for name, script in scripts.items():
            path = tmp_path / f"iscsi-{name}"
            path.write_text(f'#!/bin/sh\necho "$0 $*" >> {tmp_path}/log\n{script}\n')
            path.chmod(0o755)
        return tmp_path / "log"

    return make


def says(text: str, status: int = 0, to: int = 1) -> str:
    return f"cat >&{to} <<'END'\n{text}\nEND\nexit {status}"


def listing(plain: str, with_units: str, status: int = 0) -> str:
    return f'case "$*" in *--show-luns*) {says(with_units, status)};; *) {says(plain)};; esac'.replace(";;", "\n;;")


def by_unit(**answers: str) -> str:
    cases = "\n".join(f"*/{name[1:]}) {answer}\n;;" for name, answer in answers.items())
    return f'case "$*" in\n{cases}\n*) {says(NO_UNIT, 10, 2)}\n;; esac'


def left() -> float:
    return 20.0


def code(call) -> str:
    with pytest.raises(StorageError) as caught:
        call()
    assert caught.value.hint
    assert caught.value.subject
    return caught.value.code


# -- targets ------------------------------------------------------------------------------------------------------


def test_targets_and_their_disks(tools, portal):
    tools(ls=listing(LISTED, LISTED))
    assert offered(portal, left) == {"iqn.a": (1, 16640), "iqn.b": ()}


def test_one_that_refuses_hides_the_disks_of_the_following(tools, portal):
    tools(ls=listing(LISTED, LISTED.split("Target:iqn.b", maxsplit=1)[0] + "Target:iqn.b Portal:x:1,1\n" + REFUSED, 10))
    assert offered(portal, left) == {"iqn.a": (1, 16640), "iqn.b": None}


def test_disks_that_take_too_long_are_not_told(tools, portal):
    tools(ls=f'case "$*" in *--show-luns*) exec sleep 30;; *) {says(LISTED)}\n;; esac')
    assert offered(portal, lambda: 0.5) == {"iqn.a": None, "iqn.b": None}


def test_nothing_is_offered(tools, portal):
    tools(ls="exit 0")
    assert offered(portal, left) == {}


# -- units --------------------------------------------------------------------------------------------------------


def test_sizes_are_those_of_all_blocks(tools, portal):
    tools(
        ls=listing(LISTED, LISTED),
        readcapacity16=by_unit(_0=says(NO_SIZE, 10, 2), _1=says(SIZE.format(2047)), _16640=says(SIZE.format(0))),
    )
    assert units(portal, "iqn.a", left) == [Unit(1, 2048 * 4096), Unit(16640, 4096)]


def test_a_disk_without_a_size_is_there(tools, portal):
    tools(ls=listing(LISTED, LISTED), readcapacity16=by_unit(_0=says(NO_SIZE, 10, 2), _1=says(NO_SIZE, 10, 2)))
    first, second = units(portal, "iqn.a", left)
    assert (first.number, first.size, second.number) == (1, 0, 16640)
    assert NO_SIZE in first.problem
    assert "LOGICAL_UNIT_NOT_SUPPORTED" in second.problem


def test_where_another_target_refuses_first_each_number_is_asked(tools, portal):
    disk = "Peripheral Qualifier:CONNECTED\nPeripheral Device Type:DIRECT_ACCESS"
    log = tools(
        ls=listing(LISTED, "Target:iqn.b Portal:x:1,1\n" + REFUSED, 10),
        readcapacity16=by_unit(_0=says(NO_SIZE, 10, 2), _3=says(NO_SIZE, 10, 2), _200=says(SIZE.format(9))),
        inq=by_unit(_3=says(disk), _0=says(disk.replace("DIRECT_ACCESS", "STORAGE_ARRAY_CONTROLLER"))),
    )
    first, second = units(portal, "iqn.a", left)
    assert (first.number, first.size, second) == (3, 0, Unit(200, 40960))
    assert len([line for line in log.read_text().splitlines() if "readcapacity16" in line]) == 257


def test_a_target_that_goes_away_meanwhile_is_no_target_without_units(tools, portal):
    gone = "Login Failed. iscsi_service failed with : iscsi_service_reconnect_if_loggedin."
    tools(
        ls=listing(LISTED, "Target:iqn.b Portal:x:1,1\n" + REFUSED, 10),
        readcapacity16=by_unit(_0=says(NO_SIZE, 10, 2), _3=says(gone, 10, 2)),
        inq=says("", 10),
    )
    assert code(lambda: units(portal, "iqn.a", left)) == "command_failed"


def test_what_does_not_tell_what_it_is_may_be_a_disk(tools, portal):
    tools(
        ls=listing(LISTED, "Target:iqn.b Portal:x:1,1\n" + REFUSED, 10),
        readcapacity16=by_unit(_0=says(NO_UNIT, 10, 2), _3=says(NO_SIZE, 10, 2)),
        inq=says("", 10),
    )
    assert [(unit.number, bool(unit.problem)) for unit in units(portal, "iqn.a", left)] == [(3, True)]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Login Failed. Failed to log in to target. Status: Authentication failure(513)", "login_refused"),
        ("Login Failed. Failed to log in to target. Status: Authorization failure(514)", "login_refused"),
        ("Login Failed. Failed to log in to target. Status: Target not found(515)", "source_missing"),
        ("Something else", "command_failed"),
    ],
)
def test_refusals(tools, portal, said, expected):
    tools(readcapacity16=says(said, 10, 2))
    assert code(lambda: units(portal, "iqn.a", left)) == expected


def test_a_tool_that_hangs(tools, portal):
    tools(readcapacity16="exec sleep 30")
    assert code(lambda: units(portal, "iqn.a", lambda: 0.3)) == "deadline"


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = Server(Portal("127.0.0.1", server.getsockname()[1]))
    assert code(lambda: units(closed, "iqn.a", left)) == "source_missing"
    assert code(lambda: offered(closed, left)) == "source_missing"


def test_a_name_that_is_none():
    assert code(lambda: offered(Server(Portal("no-such-host.invalid")), left)) == "deadline"


# -- who asks -----------------------------------------------------------------------------------------------------


def test_the_password_is_in_the_environment_alone(tools, portal, tmp_path):
    log = tools(ls=f'echo "$LIBISCSI_CHAP_USERNAME $LIBISCSI_CHAP_PASSWORD" >> {tmp_path}/told')
    offered(portal._replace(initiator="iqn.us", account=Account("u", Secret("geheim"))), left)
    assert set((tmp_path / "told").read_text().splitlines()) == {"u geheim"}
    assert "geheim" not in log.read_text()
    assert "--initiator-name=iqn.us" in log.read_text()
    assert "geheim" not in repr(Account("u", Secret("geheim")))


@pytest.mark.parametrize(
    ("portal_", "address"),
    [(Portal("nas"), "nas:3260"), (Portal("10.0.0.1", 1), "10.0.0.1:1"), (Portal("fd00::5", 2), "[fd00::5]:2")],
    ids=["name", "port", "ipv6"],
)
def test_addresses(portal_, address):
    assert str(portal_) == address


# -- looking again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        (Sought("unit:0:0:1"), True),
        (Sought("unit:0:0:1", 100), True),
        (Sought("unit:0:0:1", 50, True), True),
        (Sought("unit:0:0:1", 200), False),
        (Sought("unit:0:0:2"), False),
        (Sought("unit:0:0:3"), False),
    ],
    ids=["any", "size", "at-least", "smaller", "none", "broken"],
)
def test_what_is_sought(monkeypatch, wanted, there):
    monkeypatch.setattr(libiscsi, "units", lambda *_asked: [Unit(1, 100), Unit(3, problem="broken")])
    operation = AskUnits("nas", 3260, "iqn.a", sought=(wanted,))
    if there:
        libiscsi.ask_units(operation, 5)
    else:
        assert code(lambda: libiscsi.ask_units(operation, 5)) == "source_missing"


def test_its_command_names_no_password():
    operation = AskUnits("fd00::5", 3260, "iqn.a", "iqn.us", "u", Secret("geheim"))
    assert operation.command == "iscsi-ls --show-luns --initiator-name=iqn.us 'iscsi://[fd00::5]:3260'"
    assert "geheim" not in repr(operation)
