#!/bin/bash
# First process of a lab host: makes the root writable but throw-away, brings up the
# network, the disks and LVM, then runs the agent until its channel closes.
#
# Environment (from the kernel's command line): LAB_BACKEND, LAB_HOST, LAB_ADDRESS.
export PATH=/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
overlay=/lab/overlay
case $LAB_BACKEND in
uml)
    modules=/usr/lib/uml/modules
    share=(hostfs -o /share)
    drivers=()
    ;;
qemu)
    modules=/lab/kernel/lib/modules
    # What is written outside is seen at once: nothing of the share is cached.
    share=(9p -o trans=virtio,version=9p2000.L,cache=none,msize=512000)
    drivers=(virtio_net virtio_console virtio_rng)
    ;;
esac
modules=$modules/$(uname -r)

# Everything written anywhere but in /share lands in memory and is lost with the host.
if [[ ${1-} != inside ]]; then
    mount -t proc proc /proc
    mount -t tmpfs -o mode=0755 overlay $overlay
    mkdir -p $overlay/{upper,work,root} $overlay/m/lib/modules
    ln -s "$modules" "$overlay/m/lib/modules/${modules##*/}"
    modprobe -d $overlay/m overlay
    mount -t overlay -o lowerdir=/,upperdir=$overlay/upper,workdir=$overlay/work root $overlay/root
    cd $overlay/root
    mkdir -p lab/lower
    pivot_root . lab/lower
    exec /lab/lower/lab/bin/init.sh inside
fi

cd /
mount --move /lab/lower/proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=0755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t "${share[@]}" share /share
mount --bind /lab/lower/lab/bin /lab/bin
mount -o remount,bind,ro /lab/bin
umount -l /lab/lower
mkdir -p /run/lock /lib/modules
ln -sfn "$modules" "/lib/modules/${modules##*/}"
ln -sfn /proc/self/mounts /etc/mtab

# No program is started for every uevent, and no udevd is waited for.
if [[ -e /sys/kernel/uevent_helper ]]; then echo > /sys/kernel/uevent_helper; fi
export DM_DISABLE_UDEV=1 HOME=/root LANG=C.UTF-8
cat > /etc/lvm/lvmlocal.conf <<'EOF'
devices {
    use_devicesfile = 0
    global_filter = [ "a|^/dev/vd[a-z]*[0-9]*$|", "r|.*|" ]
    obtain_device_list_from_udev = 0
    external_device_info_source = "none"
}
activation {
    udev_sync = 0
    udev_rules = 0
    monitoring = 0
}
global {
    use_lvmpolld = 0
    event_activation = 0
}
backup {
    backup = 0
    archive = 0
}
EOF

echo "$LAB_HOST" > /proc/sys/kernel/hostname
echo "$LAB_HOST" > /etc/hostname
printf '127.0.0.1 localhost\n10.9.0.1 primary\n10.9.0.2 backup\n' > /etc/hosts
modprobe -a virtio_blk dm-mod "${drivers[@]}"
if [[ $LAB_BACKEND == qemu ]]; then
    ip link set eth0 name vec0 mtu 9000
fi
ip link set lo up
ip address add "$LAB_ADDRESS/24" dev vec0
ip link set vec0 up

vgs --noheadings -o vg_name 2>/dev/null | grep -qw vg && vgchange --quiet -ay vg

# The agent ends when its channel does, that is when the driver is gone.
agent=/dev/ttyS0
if [[ $LAB_BACKEND == qemu ]]; then
    # The port is announced some time after its driver is there.
    until agent=$(compgen -G '/dev/vport*'); do sleep 0.1; done
fi
unset LAB_ADDRESS
lab-agent "$agent"
echo o > /proc/sysrq-trigger
sleep 60
