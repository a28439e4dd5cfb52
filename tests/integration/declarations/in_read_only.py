# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Check mode in a process of its own, to which a directory is read-only.

Started as: unshare --mount python in_read_only.py DIRECTORY. Each line that it reads is a JSON list of a module and its
parameters; each line that it writes is the module's result. The mount is one of this process alone, so that the tests
can go on writing to the same directory.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path


def serve(top: str) -> None:
    subprocess.run(["mount", "--bind", top, top], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", top], check=True)
    spec = importlib.util.spec_from_file_location("calling", Path(__file__).parents[1] / "calling.py")
    assert spec is not None
    assert spec.loader is not None
    calling = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(calling)
    for line in sys.stdin:
        module, params = json.loads(line)
        print(json.dumps(calling.call(module, True, **params)), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
