# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""In a guest, Python keeps what it compiles out of archives: each task of Ansible brings its sources in one, and
compiling them would be nearly all that an emulated processor does for it.
"""

import _frozen_importlib_external as external
import _imp
import marshal
import os
import zipimport

_KEPT = "/root/compiled"
_HEADER = 16
_compile = zipimport._compile_source


def _compiled(path, source):
    hashed = _imp.source_hash(external._RAW_MAGIC_NUMBER, source)
    kept = f"{_KEPT}/{hashed.hex()}.pyc"
    try:
        with open(kept, "rb") as stream:
            data = stream.read()
        if data[:4] != external.MAGIC_NUMBER:
            raise ValueError
        code = marshal.loads(memoryview(data)[_HEADER:])
    except (OSError, EOFError, ValueError, TypeError):  # not there, of another Python, or cut off with the power
        code = _compile(path, source)
        _keep(kept, external._code_to_hash_pyc(code, hashed))
    else:
        _imp._fix_co_filename(code, path)
    return code


def _keep(kept, data):
    unfinished = f"{kept}.{os.getpid()}"
    try:
        with open(unfinished, "wb") as stream:
            stream.write(data)
        os.replace(unfinished, kept)
    except OSError:
        pass


zipimport._compile_source = _compiled
