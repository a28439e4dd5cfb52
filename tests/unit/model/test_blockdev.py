# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files that QEMU's words for a disk name: all of them, or it is said that there may be others."""

from __future__ import annotations

import pytest

from ansible_collections.virt.storage.plugins.module_utils.model.blockdev import NamedFiles, files_of_words

UNKNOWN = NamedFiles((), False)


@pytest.mark.parametrize(
    ("words", "files"),
    [
        ("file:/p/a", NamedFiles(("/p/a",))),
        ("file:///p/a", NamedFiles(("///p/a",))),
        ("host_device:/dev/a", NamedFiles(("/dev/a",))),
        ("file:a", UNKNOWN),
        ("fat:rw:/p", UNKNOWN),
        ("nbd://h/a", NamedFiles(())),
        ("rbd:pool/a:id=x", NamedFiles(())),
        ('json:{"driver": "qcow2", "file": {"driver": "file", "filename": "/p/a"}}', NamedFiles(("/p/a",))),
        ('json:{"file.driver": "file", "file.filename": "/p/a"}', NamedFiles(("/p/a",))),
        ('json:{"file": {"file": {"filename": "/p/a"}}, "backing": {"filename": "/p/b"}}', {"/p/a", "/p/b"}),
        ('json:{"children": [{"filename": "/p/a"}, {"filename": "/p/b"}]}', {"/p/a", "/p/b"}),
        ('json:{"file": {"driver": "https", "url": "https://h/a"}}', NamedFiles(())),
        ('json:{"file": {"driver": "null-co"}}', UNKNOWN),
        ('json:{"file": "node"}', UNKNOWN),
        ('json:{"filename": "a"}', UNKNOWN),
        ('json:{"filename": 7}', UNKNOWN),
        ('json:{"filename": "/p/a\\u0000"}', UNKNOWN),
        ('json:{"filename": "/p/\\ud800"}', UNKNOWN),
        ('json:{"filename": "/p/a", "file": {"filename": "b"}}', NamedFiles(("/p/a",), False)),
        ("json:7", UNKNOWN),
        ("json:{", UNKNOWN),
        ("json:" + "[" * 4000, UNKNOWN),
        ("json:" + '{"a":' * 900 + "1" + "}" * 900, UNKNOWN),
    ],
)
def test_files_of_words(words, files):
    found = files_of_words(words)
    assert found == files if isinstance(files, NamedFiles) else (set(found.paths), found.all) == (files, True)
