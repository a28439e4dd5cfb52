# Copyright: virt.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the virt.storage collection: no stable interface.

"""libvirt's Python binding: distributions have it for their own Python only, and Ansible may have picked another."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NoReturn

from ansible.module_utils.basic import AnsibleModule

from ..host.run import run
from ..model.errors import StorageError

_NEEDED = "libvirt, lxml.etree"
_PROBE = f"import sys; sys.version_info >= (3, 9) or sys.exit(1); import {_NEEDED}"
_CANDIDATES = (
    "/usr/bin/python3",
    "/usr/libexec/platform-python",
    *(f"/usr/bin/python3.{minor}" for minor in range(15, 8, -1)),
    "/usr/local/bin/python3",
)
_HINT = (
    "Install libvirt's binding and lxml for the Python of the distribution: python3-libvirt and python3-lxml on Debian,"
    " Ubuntu, Fedora and Enterprise Linux, python3-libvirt-python and python3-lxml on SUSE, libvirt-python and"
    " python-lxml on Arch Linux; or name an interpreter that has both as ansible_python_interpreter."
)


def ensure_libvirt(module: AnsibleModule) -> None:
    """Returns when the binding and lxml can be imported. Else the whole module runs again, with the same parameters,
    in an interpreter that has both, and this one ends with its result. To be called before anything was done.
    Raises ``library_missing``.
    """
    why = _not_importable()
    if not why:
        return
    looked_at = [] if _ran_again() else _others()
    for interpreter in looked_at:
        if _has_both(interpreter):
            _run_again(interpreter)
    also = f", and none of {', '.join(looked_at)} can import both" if looked_at else ""
    raise StorageError(
        "library_missing",
        f"A libvirt daemon is reached through Python libraries that {sys.executable} can't import: {why}{also}",
        hint=_HINT,
    )


def _not_importable() -> str:
    """Why not; empty when both can be imported."""
    try:
        import libvirt  # noqa: F401
        from lxml import etree  # noqa: F401
    except ImportError as error:
        return str(error)
    return ""


def _ran_again() -> bool:
    """Whether this is the second run already, or no module that could be run again."""
    from ansible.module_utils.common.respawn import has_respawned

    return has_respawned() or not hasattr(sys.modules["__main__"], "_module_fqn")


def _others() -> list[str]:
    """Interpreters to look at. The one of a virtual environment is never one that it links to."""
    found: dict[str, str] = {}
    for path in _CANDIDATES:
        if path != sys.executable and os.access(path, os.X_OK):
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def _has_both(interpreter: str) -> bool:
    # Ansible's own probe_interpreters_for_module takes one module only in older versions, lets tracebacks through to
    # our output and waits for ever.
    try:
        run([interpreter, "-B", "-c", _PROBE], timeout=20)
    except (OSError, StorageError):
        return False
    return True


def _run_again(interpreter: str) -> NoReturn:
    """As Ansible's respawn_module does, which hangs once the parameters don't fit into a pipe (64 KiB): it writes all
    of them before it starts the reader.
    """
    try:
        from ansible.module_utils._internal._ansiballz._respawn import create_payload
    except ImportError:
        from ansible.module_utils.common.respawn import respawn_module

        respawn_module(interpreter)
    # It prints the result to where this one would.
    child = subprocess.Popen([interpreter, "--"], stdin=subprocess.PIPE)  # pylint: disable=ansible-bad-function
    child.communicate(create_payload().encode())
    raise SystemExit(child.returncode)
