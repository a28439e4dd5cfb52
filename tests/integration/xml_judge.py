# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""libvirt's own parser and printer: by its test driver in this process, where no host is touched, or by a daemon.

Runs under the system's Python, which has the binding. A line of JSON in, a line of JSON out: ``{"pool": XML}`` or
``{"pool": XML, "volume": XML}`` becomes ``{"shown": XML}`` or ``{"refused": message}``.
"""

from __future__ import annotations

import json
import sys

import libvirt


def pool_shown(connection, asked):
    pool = connection.storagePoolDefineXML(asked["pool"], 0)
    try:
        return pool.XMLDesc(0) if "volume" not in asked else volume_shown(pool, asked["volume"])
    finally:
        pool.undefine()


def volume_shown(pool, text):
    pool.create(0)
    try:
        volume = pool.createXML(text, 0)
        shown = volume.XMLDesc(0)
        volume.delete(0)
        return shown
    finally:
        pool.destroy()


def main():
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    connection = libvirt.open(sys.argv[1])
    for line in sys.stdin:
        try:
            answer = {"shown": pool_shown(connection, json.loads(line))}
        except libvirt.libvirtError as error:
            answer = {"refused": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
