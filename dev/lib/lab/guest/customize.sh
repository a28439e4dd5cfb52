# Runs inside the fresh tree of the guest, before it becomes an image. Its standard input is this text.
set -eu

echo lab > /etc/hostname
{ echo '127.0.0.1 localhost lab'; for number in $(seq 9); do echo "10.9.0.$number guest$number"; done; } > /etc/hosts
sed -i 's/^hosts:.*/hosts: files/' /etc/nsswitch.conf
rm -f /etc/resolv.conf /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/ssh/ssh_host_*
: > /etc/resolv.conf
printf '/dev/vda / ext4 noatime 0 0\n' > /etc/fstab
[ -s /etc/machine-id ] || systemd-machine-id-setup

# -- ssh: root by the lab's key, and nothing that asks the network
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
chmod 700 /root/.ssh
chmod 600 /root/.ssh/authorized_keys
cat > /etc/ssh/sshd_config.d/lab.conf <<'END'
UseDNS no
UsePAM no
GSSAPIAuthentication no
PermitRootLogin prohibit-password
MaxSessions 100
MaxStartups 100
AcceptEnv *
END

# -- the network: eth0 leads to the host's loopback, eth1 to the other guests (its address is set on resuming)
cat > /usr/local/sbin/lab-network <<'END'
#!/bin/sh
modprobe virtio_net
for turn in $(seq 200); do
    [ -e /sys/class/net/eth1 ] && break
    sleep 0.1
done
ip link set lo up
ip address replace 10.0.2.15/24 dev eth0
ip link set eth0 up
number=$(sed -n 's/.*lab\.number=\([0-9]*\).*/\1/p' /proc/cmdline)
[ -z "$number" ] || lab-identity "$number"
END
# Who this guest is among several: all are resumed from one, with its name, addresses and ids.
cat > /usr/local/sbin/lab-identity <<'END'
#!/bin/sh
number=$1
name=${2:-$(hostname)}
hostname "$name"
echo "$name" > /etc/hostname
printf '%032d\n' "$number" > /etc/machine-id
printf 'InitiatorName=iqn.2026-01.lab.example:guest%s\n' "$number" > /etc/iscsi/initiatorname.iscsi
ip address flush dev eth1
ip link set eth1 down
ip link set eth1 address "$(printf '52:54:00:09:00:%02x' "$number")"
ip address replace "10.9.0.$number/24" dev eth1
ip link set eth1 up
END
chmod 755 /usr/local/sbin/lab-network /usr/local/sbin/lab-identity
cat > /etc/systemd/system/lab-network.service <<'END'
[Unit]
DefaultDependencies=no
After=systemd-remount-fs.service
Before=network.target ssh.service
Wants=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/lab-network
[Install]
WantedBy=multi-user.target
END
systemctl -q enable lab-network.service ssh.service

# -- what a test needs it starts itself: a guest comes up with no service but sshd and udev
for unit in smbd nmbd samba-ad-dc winbind nfs-server nfs-blkmap rpcbind.service rpcbind.socket rpc-statd nfs-client.target \
    fsidd libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirt-guests \
    multipathd.service multipathd.socket open-iscsi iscsid.service iscsid.socket \
    rtslib-fb-targetctl targetclid.service targetclid.socket glusterd ocfs2 o2cb mdmonitor \
    virtlogd.socket virtlogd-admin.socket virtlockd.socket virtlockd-admin.socket \
    zfs-zed zfs-mount zfs-share zfs-import-cache zfs-import-scan zfs-volume-wait zfs.target zfs-import.target; do
    systemctl -q disable "$unit" 2>/dev/null || true
done
# -- what no test needs, and what would change the machine while a test runs
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer logrotate.timer mdcheck_start.timer mdcheck_continue.timer mdmonitor-oneshot.timer \
    systemd-tmpfiles-clean.timer getty@tty1.service serial-getty@ttyS0.service systemd-timesyncd.service \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-logind.service \
    systemd-random-seed.service systemd-binfmt.service systemd-machine-id-commit.service systemd-pstore.service \
    sys-kernel-debug.mount sys-kernel-tracing.mount dev-hugepages.mount dev-mqueue.mount lvm2-monitor.service \
    systemd-hwdb-update.service systemd-journal-catalog-update.service systemd-journal-flush.service ldconfig.service \
    modprobe@drm.service apparmor.service systemd-udev-settle.service zfs-load-module.service; do
    ln -sf /dev/null "/etc/systemd/system/$unit"
done
mkdir -p /etc/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\n' > /etc/systemd/journald.conf.d/lab.conf
systemctl -q set-default multi-user.target
# multipath takes what a test gives it: never the disks of the virtual machine
cat > /etc/multipath.conf <<'END'
defaults {
    user_friendly_names yes
    find_multipaths no
}
blacklist {
    devnode "^vd"
    device {
        vendor "QEMU"
    }
}
END
: > /etc/mdadm/mdadm.conf
depmod "$(ls /lib/modules)"
rm -rf /boot/initrd.img* /var/cache/apt/* /var/lib/apt/lists/* /var/log/*.log
