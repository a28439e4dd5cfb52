# Runs once in the booted guest before its state is saved: what a test does first has been done before, so that modules
# are loaded and programs are in memory. It leaves no service running and nothing on a disk.
set -u
for module in dm_mod dm_snapshot dm_thin_pool dm_multipath dm_crypt nfs nfsv3 nfsv4 nfsd cifs fuse loop sg sd_mod \
    target_core_mod target_core_file target_core_iblock iscsi_target_mod iscsi_tcp zfs xfs btrfs vfat udf isofs overlay; do
    modprobe "$module" || echo "no module $module"
done
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
# A shell script for each event, for names that nobody has given; a program for each device, for NFS to read ahead.
for rules in 69-vdev 99-nfs; do ln -s /dev/null "/etc/udev/rules.d/$rules.rules"; done
mkdir -p /srv/warm /mnt/warm
cat > /etc/samba/smb.conf <<'END'
[global]
map to guest = Bad User
server role = standalone server
disable netbios = yes
load printers = no
END
echo '/srv/warm 127.0.0.0/8(rw,no_root_squash,insecure,no_subtree_check)' > /etc/exports
services='rpcbind nfs-server smbd iscsid libvirtd glusterd'
systemctl start $services
for turn in $(seq 60); do smbclient -N -L 127.0.0.1 >/dev/null 2>&1 && break; sleep 1; done
mount -t nfs -o vers=3 127.0.0.1:/srv/warm /mnt/warm && umount /mnt/warm
mount -t nfs4 127.0.0.1:/srv/warm /mnt/warm && umount /mnt/warm
showmount -e 127.0.0.1
virsh -q pool-list --all
gluster --mode=script volume list
targetcli ls / 1
{ vgs; pvs; lvs; lsblk -J; blkid; parted -l -s; zpool list; zfs list; multipath -ll; iscsiadm -m session; } >/dev/null 2>&1
PYTHONPATH=/root/ansible-core python3 -c 'import json, libvirt, lxml.etree, pytest, rtslib_fb, yaml
import ansible.module_utils.basic, ansible.module_utils.testing'
cat /usr/sbin/mkfs.* /usr/sbin/lvm /usr/sbin/multipathd /usr/bin/qemu-img /usr/sbin/zpool /usr/sbin/zfs /sbin/mount.* \
    > /dev/null 2>&1
# -- and back to the state of a guest in which nothing was done yet
systemctl stop $services smbd nfs-server rpcbind.socket rpc-statd nfs-mountd nfs-idmapd nfsdcld libvirtd.socket \
    libvirtd-ro.socket libvirtd-admin.socket virtlogd.socket virtlockd.socket virtlogd virtlockd iscsid.socket rpcbind
: > /etc/exports
rm -rf /srv/warm /mnt/warm /etc/libvirt/storage/autostart /var/lib/glusterd/glusterd.info
systemctl reset-failed
sync
systemctl --failed --no-legend
