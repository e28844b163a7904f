#!/bin/bash
# With --keep-random a part of the unflushed sectors survives, and the seed decides which.
on primary lvcreate -q -n raw -L 64M vg
settle primary

survivors() { # survivors SEED: writes 2048 sectors without a flush, cuts the power, lists what is left
    on primary bash -c 'dd if=/dev/zero of=/dev/vg/raw bs=1M count=1 oflag=direct status=none; sync /dev/vg/raw'
    on primary bash -c 'tr "\0" x < /dev/zero | dd of=/dev/vg/raw bs=64k count=16 oflag=direct iflag=fullblock status=none'
    power_off primary --keep-random "$1"
    power_on primary
    on primary dd if=/dev/vg/raw bs=1M count=1 iflag=direct status=none > "$SHARE/left"
    fold -b -w 512 < <(tr '\0' . < "$SHARE/left") | cut -c1,512 | sort | uniq -c | tr -s ' ' | tr '\n' ' ' >&2
    md5sum < "$SHARE/left"
}

first=$(survivors 7)
kept=$(fold -b -w 512 < <(tr '\0' . < "$SHARE/left") | grep -c '^x' || true)
((kept > 600 && kept < 1400)) || fail "$kept of 2048 sectors survived"
expect_equal "$(survivors 7)" "$first" "what survives with the same seed"
[[ $(survivors 8) != "$first" ]] || fail "another seed kept the same sectors"
