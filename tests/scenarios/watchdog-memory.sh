#!/bin/bash
# lab: timeout=200 memory=1G
# What a stopped daemon costs the kernel: log-writes keeps every completed write in memory until a flush
# comes. At full write speed, until the watchdog acts: the most that was taken, and that it is given back.
VOLUME_MB=64 LOG_SIZE="16 MiB"
EXTRA='[limits]
log-watermark = 90'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
. "$(dirname "${BASH_SOURCE[0]}")/watchdog.bash"
protect
# sample SECONDS: MB of memory available, every 50 ms, one a line.
cat > "$SHARE/sample.py" <<'PY'
import sys, time
end = time.time() + float(sys.argv[1])
with open("/share/samples", "w") as out:
    while time.time() < end:
        fields = dict(line.split(":") for line in open("/proc/meminfo"))
        used = int(fields["MemTotal"].split()[0]) - int(fields["MemAvailable"].split()[0])
        out.write("%.2f %d %d\n" % (time.time(), used // 1024, int(fields["SUnreclaim"].split()[0]) // 1024))
        out.flush()
        time.sleep(0.05)
PY
background primary python3 /share/sample.py 9
SAMPLES=$JOB
sleep 1
degraded=$(degradations)
step "the daemon stops, and writes go on at full speed, without a flush"
kill_background "$PRIMARY_JOB" STOP
on primary bash -c 'begun=$(date +%s%N)
    for i in $(seq 100); do
        dd if=/dev/zero of=/dev/mapper/vm1 bs=1M count=32 oflag=direct conv=notrunc status=none
        spent=$((($(date +%s%N) - begun) / 1000000))
        if ((spent > 4000)); then echo "wrote $((i * 32)) MB in $spent ms"; break; fi
    done'
mode() { on primary ftdm status vm1 | cut -d' ' -f4; }
expect_equal "$(mode)" tracking "where writes go after the watchdog acted"
wait_background "$SAMPLES"
before=$(head -n 10 "$SHARE/samples" | sort -n -k2 | head -n 1 | cut -d' ' -f2)
peak=$(sort -n -k2 "$SHARE/samples" | tail -n 1 | cut -d' ' -f2)
slab=$(sort -n -k3 "$SHARE/samples" | tail -n 1 | cut -d' ' -f3)
after=$(tail -n 1 "$SHARE/samples" | cut -d' ' -f2)
echo "memory in use: $before MB before, $peak MB at the peak (unreclaimable slab $slab MB), $after MB at the end"
# What stays is the log's RAM disk, which the log filled.
((after <= before + 40)) || fail "$((after - before)) MB were not given back"
kill_background "$PRIMARY_JOB" CONT
eventually 30 more_degradations "$degraded"
