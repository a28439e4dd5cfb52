#!/bin/sh
# The Python of a host. As long as /usr/untouched is there, it is that of a host on which nothing is installed that the
# roles install: no tools, no Python libraries, and the package database does not have them.
[ -e /usr/untouched ] || exec /usr/bin/python3 "$@"
exec unshare --mount sh -c '
    mount --bind /usr/untouched/status /var/lib/dpkg/status
    mount -t tmpfs tmpfs /usr/lib/python3/dist-packages
    mount --bind /usr/untouched/sbin /usr/sbin
    mount --bind /usr/untouched/bin /usr/bin
    exec /usr/bin/python3 "$@"' untouched "$@"
