#!/bin/bash
# lab: timeout=240
# Direct I/O from memory that is not aligned to a sector: while captured it is refused, or what the backup has is right; and the
# visible device shows the same alignment while it is captured as before.
VOLUME_MB=32 TLS=off
. "$LAB_REPOSITORY/tests/scenarios/pair.bash"
cat > "$SHARE/odd.py" <<'PY'
import mmap, os
disk = os.open("/dev/mapper/vm1", os.O_RDWR | os.O_DIRECT)
memory = mmap.mmap(-1, 2 << 20)
memory.write(os.urandom(2 << 20))
for number, offset in enumerate((0, 512, 16, 4)):
    for call, name in ((os.preadv, "read"), (os.pwritev, "write")):
        try:
            call(disk, [memoryview(memory)[offset:offset + (1 << 20)]], number << 20)
            print(name, "from page offset", offset, "taken")
        except OSError as error:
            print(name, "from page offset", offset, error)
PY
alignment() { on primary bash -c 'cat /sys/block/$(basename $(readlink -f /dev/mapper/vm1))/queue/dma_alignment 2>/dev/null || echo none'; }
make_volumes
tracking=$(alignment)
on primary python3 /share/odd.py > "$SHARE/tracking"
start_daemons
wait_state primary "in sync" 90
expect_equal "$(alignment)" "$tracking" "the alignment that the visible device shows"
on primary python3 /share/odd.py > "$SHARE/capturing"
cat "$SHARE/capturing"
expect_equal "$(cat "$SHARE/capturing")" "$(cat "$SHARE/tracking")" "what is taken while captured"
on primary ftship checkpoint vm1 --wait
written=$(digest primary /dev/mapper/vm1)
power_off primary
promote
expect_equal "$(digest backup /dev/vg/vm1)" "$written" "what was promoted"
