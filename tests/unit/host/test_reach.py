# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ports that somebody listens at, and nobody; and names that take for ever to look up. What is left of a deadline."""

from __future__ import annotations

import errno
import os
import socket
import time

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import reach
from ansible_collections.virt.storage.plugins.module_utils.model.errors import StorageError


def test_somebody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach.ensure_listening("127.0.0.1", server.getsockname()[1], 10)


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(StorageError, match="Connection refused") as caught:
        reach.ensure_listening("127.0.0.1", port, 10)
    assert caught.value.code == "source_missing"


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETUNREACH])
def test_who_can_not_be_reached(monkeypatch, number):
    def connect(address, seconds):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(reach.socket, "create_connection", connect)
    with pytest.raises(StorageError, match="can't be reached") as caught:
        reach.ensure_listening("nas1", 3260, 10)
    assert caught.value.code == "deadline"


def test_a_name_server_that_does_not_answer(monkeypatch):
    def look_up(address, seconds):
        time.sleep(60)
        raise OSError

    monkeypatch.setattr(reach.socket, "create_connection", look_up)
    began = time.monotonic()
    with pytest.raises(StorageError) as caught:
        reach.ensure_listening("nas1", 24007, 0.2)
    assert caught.value.code == "deadline"
    assert time.monotonic() - began < 30


def test_who_refuses():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert reach.refusal("127.0.0.1", port, 10) == ""
    assert reach.refusal("127.0.0.1", port, 10) == "Connection refused"


def test_who_can_not_be_asked_does_not_refuse(monkeypatch):
    def connect(address, seconds):
        time.sleep(60)
        raise OSError

    monkeypatch.setattr(reach.socket, "create_connection", connect)
    began = time.monotonic()
    assert reach.refusal("nas1", 2049, 0.1) == ""
    assert time.monotonic() - began < 30


def test_names_are_looked_up_once(tmp_path):
    names, asked = reach.Names(), tmp_path / "asked"

    def look_up():
        with asked.open("a") as file:
            file.write("x")
        return ["192.0.2.1"]

    assert [names.addresses("nas1", 10, look_up) for _again in range(3)] == [("192.0.2.1",)] * 3
    assert asked.read_text() == "x"


def test_names_that_nobody_answers_for_take_no_longer_than_one():
    names = reach.Names(2)
    began = time.monotonic()
    for number in range(5):
        assert names.addresses(f"nas{number}", 10, lambda: time.sleep(60)) == ()
    assert time.monotonic() - began < 8
    assert reach.Names().addresses("nas1", 0.1, lambda: time.sleep(60)) == ()
    assert reach.Names().addresses("nas1", 10, lambda: 1 / 0) == ()
