# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pools on a Gluster volume, mounted for real (FUSE) from a glusterd of the test's own, in namespaces of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
needs_gluster = pytest.mark.skipif(
    shutil.which("glusterd") is None or shutil.which("mount.glusterfs") is None or os.geteuid() != 0,
    reason="needs root, glusterfs-server and glusterfs-client",
)


@needs_gluster
@pytest.mark.thorough
@pytest.mark.deadline(240)
def test_pools_on_a_gluster_volume(tmp_path: Path) -> None:
    """Every server and mount of it ends with the namespaces."""
    script = HERE / "gluster_cases.py"
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "slave",
         sys.executable, "-m", f"tests.integration.{script.stem}", str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=HERE.parents[1], timeout=230,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "all cases passed"
