#!/bin/bash
# What a guest writes to its disk is not taken for the host's: LVM, blkid and mount on both hosts, by hand, at boot, and after a failover.
# lab: timeout=1200 root=debian
. "$(dirname "${BASH_SOURCE[0]}")/system.bash"
installed
protected
# The documented way to look into a guest's disk.
look=(--devices /dev/ftdm/vm1 --config devices/scan_lvs=1)

# hands_off HOST: whatever is asked of LVM in general, nothing of the guest's is seen or activated, and nothing is said of it.
hands_off() {
    on "$1" bash -c '
        seen() { echo "LVM on $(uname -n) after $1: $2"; exit 1; }
        for without in "" "devices/obtain_device_list_from_udev=0 devices/external_device_info_source=none"; do
            for command in "pvscan --cache -aay" "vgchange -ay" "vgchange -aay --sysinit" "vgscan --mknodes" "lvs -a" "vgs" "pvs -a" \
                "pvs -a --devicesfile none"; do
                said=$(lvm $command ${without:+--config "$without"} 2>&1)
                ! grep -E "guest|duplicate|WARNING|@" <<< "$said" || seen "$command $without" "$said"
                ! dmsetup info -c --noheadings -o name | grep "^guest" || seen "$command $without" "it is active"
            done
        done
        # Asked for what is on logical volumes too, LVM still looks at no hidden layer.
        said=$(pvs -a --config devices/scan_lvs=1 2>&1)
        ! grep -E "@(era|log|gate|outlet)" <<< "$said" || seen "pvs -a of all" "$said"'
}

# no_mount HOST BY: nothing but the visible device is mounted by what is in it, and on a backup nothing.
no_mount() {
    on "$1" bash -c 'if mount "$2" /mnt 2> /dev/null; then
            source=$(readlink -f "$(findmnt -no SOURCE /mnt)") && umount /mnt
            [[ $1 == primary && $source -ef /dev/ftdm/vm1 ]] || { echo "mount $2 on $1 took $source"; exit 1; }
        fi
        ! blkid -c /dev/null | grep -E "@(era|log|gate|outlet)" || { echo "blkid on $1 sees a hidden layer"; exit 1; }
        for layer in /dev/mapper/vm1@*; do [[ -z $(blkid -p "$layer") ]] || { echo "$layer was probed"; exit 1; }; done' x "$1" "$2"
}

step "a guest that makes a file system of its whole disk: nobody mounts it by label or UUID"
on primary mkfs.ext4 -q -L guest -U 11111111-2222-3333-4444-555555555555 /dev/ftdm/vm1
on primary ftship checkpoint vm1 --wait
eventually 30 on backup bash -c '[[ $(ftship status vm1 --json | jq .epochs.applied) -ge $(ftship status vm1 --json | jq .epochs.committed) ]]'
for host in primary backup; do
    on $host bash -c 'udevadm trigger --action=change --settle /sys/block/dm-*'
    on $host bash -c '! ls /dev/disk/by-label/guest /dev/disk/by-uuid/11111111* 2> /dev/null'
    for by in LABEL=guest UUID=11111111-2222-3333-4444-555555555555; do no_mount $host $by; done
done

step "a guest that makes a physical volume of it"
on primary wipefs -q -a /dev/ftdm/vm1
on primary bash -c 'pvcreate -q "$@" /dev/ftdm/vm1 && vgcreate -q "$@" guest /dev/ftdm/vm1 && lvcreate -q -y "$@" -n in -L 20M guest &&
    mkfs.ext4 -q /dev/guest/in && mount /dev/guest/in /mnt && echo kept > /mnt/word && umount /mnt && vgchange -q -an "$@" guest' x "${look[@]}"
on primary ftship checkpoint vm1 --wait
for host in primary backup; do hands_off $host; done
on primary ftship verify vm1

step "both hosts boot: nothing of the guest is activated, and nothing is busy"
for host in primary backup; do
    on $host systemctl poweroff || true
    eventually 120 power_on $host
    in_sync $host
    expect_equal "$(on $host systemctl show --property=NRestarts --value ftship@vm1)" 0 "starts of the daemon of $host"
    on $host bash -c '! dmsetup info -c --noheadings -o name | grep "^guest"'
    hands_off $host
done
on primary ftship verify vm1

step "after a failover one looks into the disk as documented"
power_off primary
on backup ftship promote vm1
on backup bash -c 'vgchange -q -ay "$@" guest && mount /dev/guest/in /mnt && grep -qx kept /mnt/word && umount /mnt' x "${look[@]}"
on backup bash -c '[[ $(dmsetup deps -o devno guest-in) == *"($(dmsetup info -c --noheadings -o major,minor --separator ", " vm1))"* ]]' ||
    fail "the guest's volume is not on the visible device: $(on backup dmsetup deps guest-in)"
on backup vgchange -q -an "${look[@]}" guest
hands_off backup
