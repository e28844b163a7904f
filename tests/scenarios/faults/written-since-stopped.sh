#!/bin/bash
# lab: timeout=120
# `ftdm written-since` is killed, or stopped, within its pause: its guard lets the volume go on, and asking again
# has everything. Needs the feature faults.
on primary lvcreate -q -y -W n -n vm1 -L 16M vg
on primary lvcreate -q -y -W n -n vm1_meta -L 8M vg
on primary ftdm create vm1 --table "0 32768 ft /dev/vg/vm1_meta /dev/vg/vm1 128"
write() { on primary timeout "$1" dd if=/dev/urandom of=/dev/mapper/vm1 bs=64k seek="$2" count=1 oflag=direct conv=notrunc status=none; }
suspended() { on primary dmsetup info -c --noheadings -o suspended vm1 | grep -i "$1" > /dev/null; }
write 5 3
for signal in KILL STOP; do
    step "SIG$signal"
    echo "written-suspended $signal" > "$SHARE/fault"
    background primary env FTDM_FAULT=/share/fault ftdm written-since vm1 1
    eventually 20 test ! -e "$SHARE/fault"
    eventually 10 suspended active
    write 5 7 || fail "SIG$signal: writes do not flow"
    if [[ $signal == STOP ]]; then kill_background "$JOB" CONT; fi
    wait_background "$JOB" && fail "SIG$signal: it gave a result"
    expect_equal "$(on primary ftdm written-since vm1 1 | head -n -2 | tr '\n' ' ')" "384 128 896 128 " "what was written"
done
no_guard() { [[ -z $(on primary bash -c 'pgrep -f "[f]tdm guard" || true') ]]; }
eventually 10 no_guard
