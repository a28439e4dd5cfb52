# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""qemu-img as the independent reader; tests that need it are skipped where it is not installed."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest


class QemuImg:
    def __init__(self, program):
        self.program = program

    def run(self, *argv):
        """Runs ``qemu-img …`` (with or without the program's name in front); the completed process."""
        words = [str(word) for word in argv]
        if words[0] == "qemu-img":
            words = words[1:]
        return subprocess.run([self.program, *words], capture_output=True, text=True, check=False)

    def make(self, *argv):
        done = self.run(*argv)
        assert done.returncode == 0, done.stderr

    def info(self, path, driver=None):
        """What ``qemu-img info`` says, None when it refuses the file."""
        done = self.run("info", "--output=json", *(["-f", driver] if driver else []), path)
        return json.loads(done.stdout) if done.returncode == 0 else None


@pytest.fixture(scope="session")
def qemu_img():
    program = shutil.which("qemu-img")
    if program is None:
        pytest.skip("qemu-img is not installed")
    return QemuImg(program)
