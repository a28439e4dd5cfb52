# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What systemd is asked, and told."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.host import systemd
from ansible_collections.virt.storage.plugins.module_utils.host.run import Ended

TOLD = """\
libvirtd.service enabled  enabled
libvirtd.socket  disabled enabled
virtstoraged.socket enabled-runtime
virtstoraged.service static -
"""


@pytest.mark.parametrize(
    ("printed", "expected"), [(TOLD, ("libvirtd.service", "virtstoraged.socket")), ("", ()), ("\n\n", ())]
)
def test_which_units_are_enabled(monkeypatch, printed, expected):
    asked = []

    def finish(argv, timeout):
        asked.append(argv)
        return Ended("", 0 if printed else 1, printed, "")

    monkeypatch.setattr(systemd, "finish", finish)
    assert systemd.enabled(("libvirtd.service", "x.service")) == expected
    assert asked[0][-2:] == ("libvirtd.service", "x.service")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("/usr/bin/python3", "/usr/bin/python3"),
        ("/srv/my python/python3", '"/srv/my python/python3"'),
        ("/srv/100%/p", '"/srv/100%%/p"'),
        ('/srv/a"b\\c', '"/srv/a\\"b\\\\c"'),
    ],
)
def test_words_of_command_lines(word, expected):
    assert systemd.quoted(word) == expected
