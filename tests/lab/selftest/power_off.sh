#!/bin/bash
# A power cut loses what was not flushed and nothing else, on a raw volume, across power_on.
write() { # write SECTOR CHARACTER: one sector, past the page cache, without a flush
    on primary bash -c "printf '%0512d' 0 | tr 0 $2 | dd of=/dev/vg/raw seek=$1 bs=512 count=1 oflag=direct conv=notrunc iflag=fullblock status=none"
}
read_back() {
    on primary dd if=/dev/vg/raw skip="$1" bs=512 count=1 iflag=direct status=none | head -c 1
}

on primary lvcreate -q -n raw -L 64M vg
settle primary
write 0 a
write 1 a
on primary sync /dev/vg/raw
write 1 b
write 2 b
expect_equal "$(read_back 1)" b "sector 1 before the cut"

step "the power is cut: commands on the host end with their own code"
on primary sleep 100 & waiting=$!
background primary sleep 100
sleep 0.5
power_off primary
expect_code $LAB_HOST_LOST wait $waiting
expect_code $LAB_HOST_LOST wait_background "$JOB"
expect_code $LAB_HOST_OFF on primary true
expect_code $LAB_ERROR power_off primary

step "the host comes back with the same disk and its volumes active"
power_on primary
on primary test -b /dev/vg/raw
expect_equal "$(read_back 0)" a "flushed sector"
expect_equal "$(read_back 1)" a "flushed sector that was overwritten without a flush"
expect_equal "$(read_back 2 | tr '\0' 0)" 0 "sector that was never flushed"
disk_stats primary | grep -q ' lost-sectors=[1-9]'

step "a file system survives with what was synced"
on primary bash -c 'mkfs.ext4 -q /dev/vg/raw && mount /dev/vg/raw /mnt && echo kept > /mnt/kept && sync && echo lost > /mnt/lost'
power_off primary
power_on primary
on primary mount /dev/vg/raw /mnt
expect_equal "$(on primary cat /mnt/kept)" kept
expect_fail on primary test -s /mnt/lost

step "a disk whose flushes alone fail"
on primary umount /mnt
disk_flushes primary 0 fail
write 101 e
expect_fail on primary sync /dev/vg/raw
expect_equal "$(read_back 101)" e "a sector on a disk whose flushes fail"
expect_code $LAB_ERROR disk_flushes primary 7 fail

step "a host that ends by itself loses its cache too"
write 100 c
on primary bash -c 'echo o > /proc/sysrq-trigger' || true
is_off() { # the command may also be lost with the host
    local code=0
    on primary true || code=$?
    ((code == LAB_HOST_OFF))
}
eventually 10 is_off
power_on primary
expect_fail test "$(read_back 100)" = c
expect_fail test "$(read_back 101)" = e
disk_flushes primary 0 work
on primary sync /dev/vg/raw

step "discarded sectors read as zeros"
write 200 d
on primary blkdiscard -o $((192 * 512)) -l $((64 * 512)) /dev/vg/raw
expect_equal "$(read_back 200 | tr '\0' 0)" 0
disk_stats primary | grep -q ' discards=[1-9]'

step "the other host noticed nothing"
on backup true
