#!/bin/bash
# lab: timeout=300
# With discards off not one is taken, hammered at the visible device while captures begin, exchange their log and
# end, more than 20 changes of tables in all; and the volume, which would take them, has the same content after.
on primary lvcreate -q -y -L 64M -T vg/pool
on primary lvcreate -q -y -V 8M -T vg/pool -n vm1
on primary lvcreate -q -y -W n -n vm1_meta -L 8M vg
on primary ftdm create vm1 --table "0 16384 ft /dev/vg/vm1_meta /dev/vg/vm1 128"
on primary ftdm info vm1 | grep 'Discards: *off'
on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=1M count=8 oflag=direct conv=fsync status=none
digest() { on primary bash -c "dd if=/dev/vg/vm1 iflag=direct bs=1M status=none | sha256sum"; }
cat > "$SHARE/hammer.py" <<'PYTHON'
import fcntl, os, struct, time
device = os.open("/dev/mapper/vm1", os.O_RDWR)
taken = refused = 0
while not os.path.exists("/share/stop"):
    try:
        fcntl.ioctl(device, 0x1277, struct.pack("QQ", refused * 37 % 100 * 65536, 65536 * (1 + refused % 5)))
        taken += 1
    except OSError:
        refused += 1
    if refused % 50 == 0:
        time.sleep(0.001)
print(taken, refused)
PYTHON
before=$(digest)
background primary python3 /share/hammer.py
HAMMER=$JOB
for n in $(seq 6); do
    on primary ftdm-workload exact vm1 --cuts 2 --interval 5 --rotate-above 1 --budget $((400 * LAB_SLOWNESS)) > "$SHARE/said"
done
tail -n 3 "$SHARE/said"
touch "$SHARE/stop"
wait_background "$HAMMER"
read -r taken refused < <(job_output "$HAMMER")
echo "$taken discards taken, $refused refused"
((taken == 0 && refused > 1000)) || fail "$taken discards were taken, $refused refused"
expect_equal "$(digest)" "$before" "the volume"
step "the volume itself would have taken them"
on primary ftdm remove vm1
on primary blkdiscard --force /dev/vg/vm1
[[ $(digest) != "$before" ]] || fail "a discard of the volume has no effect here"
