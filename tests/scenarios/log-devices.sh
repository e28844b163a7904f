#!/bin/bash
# lab: timeout=240
# A machine that has brd loaded for purposes of its own: its RAM disks are left alone, and every group gets its log,
# whatever others loaded. Free ones are used, brd makes more where there are too few, and smaller ones are joined.
VOLUME_MB=8 LOG_SIZE="8 MiB" TLS=off
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
on primary modprobe brd rd_nr=4 rd_size=8192 max_part=0
on primary mkfs.ext4 -q /dev/ram0
on primary mount /dev/ram0 /mnt
on primary mkfs.ext4 -q /dev/ram1
protect
on primary dmsetup table vm1@log | grep ' 1:[23]$'

step "a second group beside it, with a larger log than any RAM disk of this machine has"
second_group() {
    sed 's/vm1/vm2/g; s/:7789/:7790/; /\[log\]/,$ s/^size = .*/size = "20 MiB"/' "$SHARE/config/$1.toml" > "$SHARE/config/$1-vm2.toml"
    on "$1" install -m 644 "/share/config/$1-vm2.toml" /etc/ftdm/vm2.toml
    on "$1" lvcreate -q -y -W n -n vm2 -L 48M vg
    make_meta "$1" vm2
    on "$1" lvcreate -q -y -W n -n vm2_journal -L 64M vg
    on "$1" lvcreate -q -y -W n -n vm2_state -L 4M vg
    make_stack "$1" vm2 48
    on "$1" ftship format vm2
}
second_group primary
second_group backup
background backup ftship run vm2
background primary ftship run vm2
SECOND_JOB=$JOB
second_state() { on primary ftship status vm2 --json | jq -r .state; }
second_in_sync() { [[ $(second_state) == "in sync" ]]; }
eventually 60 second_in_sync
expect_equal "$(on primary dmsetup table vm2@ram0 | wc -l)" 3 "RAM disks of the first log"
expect_equal "$(on primary dmsetup table vm2@ram1 | awk '{ sum += $2 } END { print sum }')" 40960 "sectors of the second log"
expect_equal "$(status primary .state)" "in sync" "the first group"
# Through all parts of both logs: no more than the log holds in one epoch.
for _ in 1 2 3 4 5 6; do
    on primary dd if=/dev/urandom of=/dev/mapper/vm2 bs=1M count=12 oflag=direct conv=fsync status=none
    on primary ftship checkpoint vm2 --wait
done
second_in_sync || fail "the second group is $(second_state)"
expect_equal "$(digest primary /dev/mapper/vm2)" "$(on backup ftship promote vm2 > /dev/null; digest backup /dev/vg/vm2)" "vm2"
kill_background "$SECOND_JOB" KILL
wait_no_log() { ! on primary dmsetup info vm2@ram0 > /dev/null 2>&1; }
eventually 20 wait_no_log
on primary ftdm remove vm2

step "what others have there is untouched"
on primary e2fsck -fn /dev/ram1
expect_equal "$(on primary findmnt -n -o FSTYPE /dev/ram0)" ext4 "what is mounted"

step "none is left: brd makes more, with the first numbers that are free"
kill_background "$PRIMARY_JOB" TERM
wait_background "$PRIMARY_JOB"
taken() { on primary bash -c 'ls -d /sys/block/ram* | wc -l'; }
before=$(taken)
on primary bash -c 'for disk in /sys/block/ram*; do mkfs.ext4 -q -F /dev/${disk##*/} 2> /dev/null || true; done'
background primary ftship run vm1
wait_state primary "in sync" 60
expect_equal "$(taken)" $((before + 2)) "RAM disks"
on primary e2fsck -fn /dev/ram3

step "named ones are made too"
kill_background "$JOB" TERM
wait_background "$JOB"
sed -i '/^\[log\]/a devices = ["/dev/ram40", "/dev/ram41"]' "$SHARE/config/primary.toml"
install_config primary
background primary ftship run vm1
wait_state primary "in sync" 60
on primary dmsetup table vm1@log | grep ' 1:4[01]$'
