#!/bin/bash
# lab: timeout=240
# A volume that nobody writes to rests: about one cut a second, no suspend, flush or write for epochs that do not exist. The first
# tick after a write cuts, so single writes are committed at once. Where the kernel does not count, every tick cuts.
VOLUME_MB=32 EPOCH=100ms
. "$LAB_REPOSITORY/tests/scenarios/pair.bash"
protect
flushes() { disk_stats "$1" | sed -n "s,^disk=0 .* flushes=\([0-9]*\).*,\1,p"; }
# Each resume sends one event.
events() { on primary cat /sys/kernel/uevent_seqnum; }
cuts() { status primary .epochs.cut; }

step "nothing is written for ten seconds"
sleep 2
c=$(cuts) e=$(events) p=$(flushes primary) b=$(flushes backup)
sleep 10
b=$(($(flushes backup) - b)) p=$(($(flushes primary) - p)) e=$(($(events) - e)) c=$(($(cuts) - c))
echo "$c cuts, $e resumes, $p flushes on the primary, $b on the backup; idle ticks: $(status primary .primary.idle_ticks)"
# A cut that is void, as on a busy machine, resumes once more.
if ((c < 8 || c > 13 || e > 2 * c)); then fail "$c cuts and $e resumes in ten idle seconds"; fi
# The backup writes a superblock to two slots, with a flush after each.
if ((p > 4 * c || b > 7 * c)); then fail "$p flushes on the primary, $b on the backup"; fi

step "the first tick after a single write cuts"
written() { status primary .primary.bytes_written; }
before=$(written)
# Without a fork, which may take as long as several ticks.
on primary bash -c 'for n in {1..10}; do
        read -r before < /sys/kernel/uevent_seqnum
        dd if=/dev/urandom of=/dev/mapper/vm1 bs=4k count=1 seek=$n oflag=direct conv=notrunc status=none
        begun=${EPOCHREALTIME/./} now=$before
        until ((now > before)); do read -r now < /sys/kernel/uevent_seqnum; done
        took=$(((${EPOCHREALTIME/./} - begun) / 1000))
        echo "cut after $took ms"
        ((took < 700)) || exit 1
        sleep 1.$n
    done' || fail "a write after a rest waited for its cut"
expect_equal "$(($(written) - before))" $((10 * 4096)) "bytes written in epochs"

step "counting is switched off: every tick cuts"
number=$(on primary dmsetup info -c --noheadings -o major,minor --separator : vm1)
on primary bash -c "echo 0 > /sys/dev/block/$number/queue/iostats"
c=$(cuts)
sleep 4
c=$(($(cuts) - c))
((c > 15)) || fail "$c cuts in four seconds"
on primary bash -c "echo 1 > /sys/dev/block/$number/queue/iostats"

step "the backup has what was written"
written=$(digest primary /dev/mapper/vm1)
sleep 1.5
power_off primary
promote
expect_equal "$(digest backup /dev/vg/vm1)" "$written" "what was promoted"
