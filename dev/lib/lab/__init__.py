# Copyright: contributors to the virt.storage collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab: guests with real kernels' storage, for tests that a developer's machine could not bear.

====================  ================================================================
``guest/``            what a guest is made of: packages, settings, what is warmed up
``image.py``          builds the disk image and its kernel
``zfs.py``            builds the ZFS module for that kernel
``initrd.py``         the little system that mounts the image
``qemu.py``           the virtual machine: its devices, its process, its monitor
``network.py``        the wire between guests
``guests.py``         a guest: started, resumed, asked over ssh, cut off, stopped
``saved.py``          the guest that all others are resumed from
``suites.py``         test groups, each in a guest of its own
====================  ================================================================

Debian's own Python runs it, with nothing but its standard library.
"""
