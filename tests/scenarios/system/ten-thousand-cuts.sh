#!/bin/bash
# Over CUTS cuts, under either numbering of device-mapper's rules, the links to an installed volume stay; what a cut costs udev is counted.
# lab: timeout=3600 root=debian
CUTS=${CUTS-10000}
. "$(dirname "${BASH_SOURCE[0]}")/system.bash"
installed
protected 10ms
cuts() { status primary .epochs.cut; }
spent() { on primary awk '/^usage_usec/ { print $2 }' /sys/fs/cgroup/system.slice/systemd-udevd.service/cpu.stat; }
# In microseconds too: what the service manager has used.
manager() { on primary awk '{ print ($14 + $15) * 10000 }' /proc/1/stat; }
is_cut() { (($(cuts) >= $1)); }

# links_stay NUMBER: over that many cuts under load, and once udev has handled what they made it do.
links_stay() {
    local writer monitor watcher before made cpu managed begun events
    on primary rm -f /run/enough /run/events
    background primary bash -c 'while :; do dd if=/dev/urandom of=/mnt/load bs=4k count=8 conv=fsync status=none; sleep 0.05; done'
    writer=$JOB
    background primary bash -c 'exec udevadm monitor --udev --subsystem-match=block > /run/events'
    monitor=$JOB
    eventually 30 on primary test -s /run/events
    background primary bash -c 'top=$(readlink -f /dev/ftdm/vm1)
        until test -e /run/enough; do
            for link in /dev/ftdm/vm1 /dev/mapper/vm1 /dev/disk/by-id/dm-name-vm1; do
                [[ $link -ef $top ]] || { ls -l $link; exit 1; }
            done
            sleep 0.02
        done'
    watcher=$JOB
    before=$(cuts) cpu=$(spent) managed=$(manager) begun=$SECONDS
    eventually 1500 is_cut $((before + $1))
    made=$(($(cuts) - before)) begun=$((SECONDS - begun))
    kill_background "$writer" TERM
    # Cuts go on, so the queue of udev need not be empty at any time: that it came so far is what tells.
    eventually 600 handled "$made"
    on primary touch /run/enough
    wait_background "$watcher" || fail "a link was gone: $(job_output "$watcher")"
    kill_background "$monitor" TERM
    events=$(on primary grep -c '^UDEV ' /run/events) cpu=$(($(spent) - cpu)) managed=$(($(manager) - managed))
    echo "$made cuts in $begun s: $events events of udev, $((cpu / events)) us of its processor time each;" \
        "the service manager used $((managed / made)) us for each cut"
    on primary bash -c "awk '/^UDEV / { print \$3 }' /run/events | sort | uniq -c"
    on primary bash -c '! grep "^UDEV .* remove .*/$(basename "$(readlink -f /dev/ftdm/vm1)") " /run/events'
}
handled() { (($(on primary grep -c '^UDEV .* change ' /run/events) >= $1)); }

on primary mkfs.ext4 -q -L guest /dev/ftdm/vm1
on primary udevadm trigger --action=change --settle /dev/ftdm/vm1
on primary mount /dev/ftdm/vm1 /mnt
step "$((CUTS / 2)) cuts, rules numbered as Debian does"
links_stay $((CUTS / 2))

step "$((CUTS / 2)) cuts, rules numbered as upstream does"
# A new udevd forgets what it has not handled yet: on a slow host cuts come faster than it works.
on primary systemctl stop ftship@vm1
on primary bash -c 'cd /usr/lib/udev/rules.d && mv 55-dm.rules 10-dm.rules && mv 56-lvm.rules 11-dm-lvm.rules &&
    mv 60-persistent-storage-dm.rules 13-dm-disk.rules && systemctl restart systemd-udevd &&
    udevadm settle --timeout=300 && udevadm trigger --action=change --settle /dev/ftdm/vm1'
on primary systemctl start ftship@vm1
in_sync primary
links_stay $((CUTS / 2))
