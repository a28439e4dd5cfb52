# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ports that somebody listens at, and nobody; and names that take for ever to look up. What is left of a deadline."""

from __future__ import annotations

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
    assert caught.value.code == "operation_failed"


def test_a_name_server_that_does_not_answer(monkeypatch):
    def look_up(address, seconds):
        time.sleep(1)
        raise OSError

    monkeypatch.setattr(reach.socket, "create_connection", look_up)
    began = time.monotonic()
    with pytest.raises(StorageError) as caught:
        reach.ensure_listening("nas1", 24007, 0.2)
    assert caught.value.code == "deadline"
    assert time.monotonic() - began < 0.9
