#!/bin/bash
# First process of a lab host: makes the root writable but throw-away, brings up the
# network, the disks and LVM, then runs the agent until its channel closes. A host with a root disk
# (LAB_ROOT) is handed over to the systemd on it, which starts the agent.
#
# Environment (from the kernel's command line): LAB_BACKEND, LAB_HOST, LAB_ADDRESS, LAB_ROOT,
# LAB_CLOCK (instructions: the host's clock counts them).
export PATH=/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
overlay=/lab/overlay
case $LAB_BACKEND in
uml)
    # A kernel that was fetched brings its modules along.
    modules=/lab/kernel/lib/modules
    if [[ ! -d $modules ]]; then modules=/usr/lib/uml/modules; fi
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

network() {
    if [[ $LAB_BACKEND == qemu ]]; then
        # As large as a packet can be: QEMU's link cannot cut large ones up as every server's network card does, and in
        # its place the kernel would make a packet's way for each 9,000 bytes.
        ip link set eth0 name vec0 mtu 65535
    fi
    ip link set lo up
    ip address add "$LAB_ADDRESS/24" dev vec0
    ip link set vec0 up
}

# agent_device: prints the agent's channel.
agent_device() {
    if [[ $LAB_BACKEND == uml ]]; then
        echo /dev/ttyS0
    else
        # The port is announced some time after its driver is there.
        until compgen -G '/dev/vport*'; do sleep 0.1; done
    fi
}

# memory_disk: /dev/nullb0, whose requests take 60 us of the host's own time: a good NVMe disk's with a cache that
# outlives power cuts, so that a flush has nothing to do. This one outlives nothing.
memory_disk() {
    modprobe null_blk nr_devices=0
    mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
    local disk=/sys/kernel/config/nullb/nullb0
    mkdir "$disk"
    echo 8192 > "$disk/size"
    echo 1 > "$disk/memory_backed"
    echo 2 > "$disk/irqmode"
    echo 60000 > "$disk/completion_nsec"
    echo 1 > "$disk/power"
}

# never_idle: a CPU that halts skips to its next timer. A host that waits for the other would see seconds pass between
# two frames, and its time-outs with them.
never_idle() {
    # Else each new thread waits for its first turn until a tick takes the CPU from that process.
    mount -t debugfs debugfs /sys/kernel/debug
    echo NO_START_DEBIT > /sys/kernel/debug/sched/features
    chrt --idle 0 sh -c 'while :; do :; done' &
}

names() { # names FOLDER: who is who
    echo "$LAB_HOST" > "$1/hostname"
    printf '127.0.0.1 localhost\n10.9.0.1 primary\n10.9.0.2 backup\n' > "$1/hosts"
}

# Its files stay; its kernel's modules, the agent and the share are the lab's.
if [[ -n ${LAB_ROOT-} ]]; then
    mount -t proc proc /proc
    mount -t tmpfs -o mode=0755 work $overlay
    mkdir -p $overlay/root $overlay/m/lib/modules
    ln -s "$modules" "$overlay/m/lib/modules/${modules##*/}"
    mount -t devtmpfs dev /dev
    modprobe -d $overlay/m -a virtio_blk ext4 "${drivers[@]}"
    until [[ -b $LAB_ROOT ]]; do sleep 0.05; done
    cd $overlay/root
    mount -t ext4 "$LAB_ROOT" .
    cd $overlay/root
    mount --bind /lab/bin lab/bin
    mount --bind "${modules%/*}" usr/lib/modules
    mount -t "${share[@]}" share share
    mount -t tmpfs -o mode=0755,nosuid,nodev run run
    names etc
    network
    ln -s "$(agent_device)" run/lab-agent
    mount --move /dev dev
    umount -l /proc
    exec switch_root . /usr/lib/systemd/systemd
fi

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
    global_filter = [ "a|^/dev/vd[a-z]*[0-9]*$|", "a|^/dev/nullb[0-9]$|", "r|.*|" ]
    types = [ "nullb", 16 ]
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
names /etc
modprobe -a virtio_blk dm-mod "${drivers[@]}"
network
if [[ ${LAB_CLOCK-} == instructions ]]; then
    memory_disk
    never_idle
fi

vgs --noheadings -o vg_name 2>/dev/null | grep -qw vg && vgchange --quiet -ay vg

# The agent ends when its channel does, that is when the driver is gone.
agent=$(agent_device)
unset LAB_ADDRESS
lab-agent "$agent"
echo o > /proc/sysrq-trigger
sleep 60
