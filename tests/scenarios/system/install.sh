#!/bin/bash
# The real package on two hosts that boot systemd and udevd: install, init, start, reboot, power cut, fail over, upgrade, purge.
# lab: timeout=1800 root=debian
#
# What is done by hand is what README says. Needs the packages of `make packages` ($FTDM_PACKAGES, else target/packages).
. "$(dirname "${BASH_SOURCE[0]}")/system.bash"
installed
on primary bash -c 'for u in ftdm-setup@vm1 ftship@vm1 ftship-watchdog@vm1; do
    systemd-analyze security --no-pager --threshold=30 $u.service | tail -n 1; done'
protected
on primary systemctl is-active ftship@vm1 ftship-watchdog@vm1 ftdm-setup@vm1 ftdm.target
on primary bash -c 'journalctl -o verbose FTDM_GROUP=vm1 | grep -q FTDM_MODULE=ftship'

step "udev: links lead to the visible volume by its name, none by what is in it, and stay while it is cut"
on primary mkfs.ext4 -q -L guest /dev/ftdm/vm1
on primary udevadm trigger --action=change --settle /dev/ftdm/vm1
top=$(on primary readlink -f /dev/ftdm/vm1)
links="/dev/mapper/vm1 /dev/ftdm/vm1 /dev/disk/by-id/dm-name-vm1"
on primary bash -c "for link in $links; do [[ \$link -ef $top ]] || { ls -l \$link; exit 1; }; done; ! ls /dev/disk/by-label/guest 2> /dev/null"
cuts() { status primary .epochs.cut; }
before=$(cuts)
on primary bash -c "end=\$((SECONDS + 10)); while ((SECONDS < end)); do for link in $links; do
    [[ \$link -ef $top ]] || { ls -l \$link; exit 1; }; done
    dd if=/dev/zero of=/dev/ftdm/vm1 bs=4k count=1 seek=10000 oflag=direct conv=notrunc status=none; done"
on primary udevadm settle
(($(cuts) > before + 20)) || fail "only $(($(cuts) - before)) cuts while the links were watched"
expect_equal "$(property primary "$top" TAGS)" :ftdm: "whom a cut's event is told"
on primary bash -c 'for device in /sys/block/dm-*; do
    uuid=$(< $device/dm/uuid) node=/dev/${device##*/}
    links=$(udevadm info --query=symlink $node) properties=$(udevadm info --query=property $node)
    case $uuid in
        LVM-ftdm*-*) [[ -z $links ]] ;;
        LVM-ftdm*) [[ $links == *ftdm/vm1* && $links != *by-label* && $links != *by-uuid* ]] ;;
        LVM-*) [[ $links == *vg/vm1* && $links != *by-label* && $links != *by-uuid* ]] ;;
        *) continue ;;
    esac && grep -qx SYSTEMD_READY=0 <<< "$properties" && grep -qx UDISKS_IGNORE=1 <<< "$properties" &&
        grep -qx "DM_UUID=$uuid" <<< "$properties" && grep -qx DM_UDEV_DISABLE_OTHER_RULES_FLAG=1 <<< "$properties" ||
        { echo "$uuid: $links"; echo "$properties"; exit 1; }
done'

step "write"
on primary bash -c 'mount /dev/ftdm/vm1 /mnt && cd /mnt && dd if=/dev/urandom of=data bs=1M count=8 status=none &&
    sha256sum data > sum && cd / && umount /mnt'
on primary ftship checkpoint vm1 --wait

step "reboot one, then the other"
for host in primary backup; do
    on $host systemctl poweroff || true
    eventually 120 power_on $host
    in_sync $host
    checked primary
done

step "power cuts"
for host in primary backup; do
    power_off $host
    power_on $host
    in_sync $host
done
checked primary

step "killed, the daemon is started again"
on primary systemctl kill --signal=KILL ftship@vm1
in_sync primary

step "upgrade under load: nothing is interrupted"
rm -rf newer && dpkg-deb -R "$SHARE/ftdm.deb" newer
sed -i 's/^Version: .*/&+upgrade/' newer/DEBIAN/control
dpkg-deb --root-owner-group -b newer "$SHARE/newer.deb" > /dev/null
on primary mount /dev/ftdm/vm1 /mnt
background primary bash -c 'while test -e /mnt/sum; do dd if=/dev/urandom of=/mnt/load bs=64k count=16 conv=fsync status=none; sleep 0.2; done'
writer=$JOB
pids=$(for unit in ftship@vm1 ftship-watchdog@vm1; do main_pid primary $unit; done)
degraded() { on primary bash -c 'journalctl -b -u ftship@vm1 | grep -c "state: degraded"' || true; }
was=$(degraded)
for host in primary backup; do apt_install $host /share/newer.deb; done
expect_equal "$(for unit in ftship@vm1 ftship-watchdog@vm1; do main_pid primary $unit; done)" "$pids" "the processes"
expect_equal "$(degraded)" "$was" "times of being degraded"
for host in backup primary; do
    on $host systemctl restart ftship-watchdog@vm1 ftship@vm1
    in_sync $host
done
kill_background "$writer" TERM
on primary bash -c 'until umount /mnt; do sleep 0.2; done'
on primary ftship checkpoint vm1 --wait

step "fail over, and back in as the backup"
power_off primary
on backup ftship promote vm1
checked backup
power_on primary
eventually 180 is_role primary backup
in_sync backup

step "purge, on the backup's old host of a package that was unpacked and never configured"
on primary dpkg --unpack /share/newer.deb
for host in primary backup; do
    on $host apt-get purge -q -y ftdm > "apt.$host" 2>&1 || { cat "apt.$host"; fail "purging on $host"; }
    on $host bash -c '! dmsetup info -c --noheadings -o uuid | grep ^LVM-ftdm && ! ls -d /etc/ftdm /dev/ftdm /usr/sbin/ftship 2>/dev/null &&
        ! systemctl --plain --no-legend list-units "ft*" | grep . && lvs vg/vm1 vg/vm1_journal > /dev/null'
    on $host bash -c '! find /etc/systemd/system -type l -name "ft*" | grep .'
    # The logical volumes are like any others again: the file system in one is found.
    on $host udevadm settle
    [[ $(property $host /dev/vg/vm1 SYSTEMD_READY) != 0 ]] || fail "$host: the service manager still passes over vg/vm1"
    expect_equal "$(property $host /dev/vg/vm1 FTDM_GROUP)" "" "whose vg/vm1 is"
    expect_equal "$(on $host readlink -f /dev/disk/by-label/guest)" "$(on $host readlink -f /dev/vg/vm1)" "the link by its label"
done
