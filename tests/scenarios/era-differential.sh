#!/bin/bash
# What was written since an era: `ftdm written-since` against era_invalidate, after writes, rolls and power cuts.
# lab: timeout=240 disk-size=80G
. "$(dirname "${BASH_SOURCE[0]}")/era.bash"

step "4 KiB blocks"
make_tracked fine 1G 8
rounds fine 8 200
step "1 MiB blocks"
make_tracked coarse 20G 2048
rounds coarse 2048 200 6
step "blocks of 24 sectors, which are no power of two, the last one in part"
make_tracked odd 52M 24
rounds odd 24 100 6

step "an era from another history is not taken for this one's"
track fine 8
expect_code 6 on primary ftdm written-since fine 1000000
expect_code 3 on primary ftdm written-since nothing 1
expect_code 2 on primary ftdm written-since fine never
expect_code 2 on primary ftdm written-since fine 4294967296
current() { on primary ftdm status fine | cut -d' ' -f6; }
now=$(current)
on primary ftdm remove fine
sectors=$(on primary blockdev --getsz /dev/vg/fine)
table="0 $sectors ft /dev/vg/fine_meta /dev/vg/fine 8"
expect_code 6 on primary ftdm create fine --table "$table" --recorded-era $((now + 10))
expect_code 1 on primary ftdm status fine
on primary ftdm create fine --table "$table" --recorded-era "$now"
on primary ftdm create fine --table "$table" --recorded-era "$now"
on primary ftdm remove fine
on primary dd if=/dev/zero of=/dev/vg/fine_meta bs=4k count=1 oflag=direct conv=fsync status=none
expect_code 6 on primary ftdm create fine --table "$table" --recorded-era "$now"

step "what a killed process left is cleared; who is at it already is respected"
track odd 24
on primary dmsetup message odd@era 0 take_metadata_snap
on primary ftdm written-since odd 1 > /dev/null
[[ $(on primary ftdm status odd) == *" -" ]] || fail "the metadata snapshot is still held"
expect_code 4 on primary bash -c \
    'flock "/dev/$(dmsetup info -c --noheadings -o blkdevname odd@era)" ftdm written-since odd 1'
on primary dmsetup suspend odd
expect_code 4 on primary ftdm written-since odd 1
on primary dmsetup resume odd
