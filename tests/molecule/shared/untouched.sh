#!/bin/sh
# The Python of a host. As long as /run/untouched is there, it is that of a host on which nothing is installed that the
# roles install: no tools, no Python libraries, and the package database does not have them.
[ -e /run/untouched ] || exec /usr/bin/python3 "$@"
exec unshare --mount sh -c '
    PATH=/usr/sbin:/usr/bin:/sbin:/bin
    for tool in mount.nfs showmount exportfs lvm thin_check qemu-img; do
        mount --bind /dev/null "$(command -v "$tool")"
    done
    mount -t tmpfs tmpfs /usr/lib/python3/dist-packages
    mount --bind /run/untouched /var/lib/dpkg/status
    exec /usr/bin/python3 "$@"' untouched "$@"
