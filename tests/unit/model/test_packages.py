# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One table says what to install: the code's tools are in it, and the page shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ansible_collections.virt.storage.plugins.module_utils.backends.filesystems import FILESYSTEMS
from ansible_collections.virt.storage.plugins.module_utils.model.packages import FAMILIES, PACKAGES, installing

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "packages.md"
RUNS = re.compile(r'\b(?:run|Run|finish|json|_lvm)\(\s*[(\[]{0,2}\s*"([a-z][a-z0-9.-]+)"')
ARGV = re.compile(r'(?:\b(?:argv|_[A-Z]+)(?:: [^=]+)? = |return )[(\[]+\s*"([a-z][a-z0-9.-]+)"[, ]["f(*i -]')


def test_every_tool_that_is_run_has_its_packages():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "plugins" / "module_utils").rglob("*.py")]
    run = {tool for text in sources for tool in RUNS.findall(text)}
    named = {tool for text in sources for tool in ARGV.findall(text)}
    made = {known.making[0] for known in FILESYSTEMS.values() if known.making}
    assert {"umount", "partx"} <= run
    assert {"parted", "sfdisk", "blkid", "wipefs", "vgcreate"} <= run | named
    assert run | (named & set(PACKAGES)) | made <= set(PACKAGES), (run | made) - set(PACKAGES)


def test_the_page_shows_the_table():
    shown: dict[str, tuple[str, ...]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 6 and cells[1] and "---" not in cells[1]:
            shown.update({tool: tuple(cells[2:]) for tool in cells[1].split(", ")})
    assert shown == PACKAGES


def test_each_family_has_a_name_or_none():
    assert all(len(names) == len(FAMILIES) for names in PACKAGES.values())


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("mkfs.xfs", "package xfsprogs"),
        (
            "mount.nfs",
            "package nfs-common on Debian and Ubuntu, nfs-utils on Fedora, RHEL and Arch Linux, nfs-client on SUSE",
        ),
        ("mkfs.ocfs2", "package ocfs2-tools on Debian, Ubuntu and SUSE"),
        ("who-knows", ""),
    ],
)
def test_in_words(tool, words):
    assert installing(tool) == words
