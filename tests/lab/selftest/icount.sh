#!/bin/bash
# The primary's clock counts instructions: the same work takes the same time, and time passes only as it works.
# lab: timeout=600 backends=icount
step "the volume group is in the primary's memory, and a request to it takes 60 us of the primary's time"
expect_equal "$(on primary vgs --noheadings -o vg_name,pv_name --separator ' ' | xargs)" "vg /dev/nullb0"
expect_equal "$(on backup vgs --noheadings -o pv_name | xargs)" /dev/vda
on primary fio --name=one --filename=/dev/nullb0 --offset=1g --size=1m --direct=1 --rw=write --bs=4k --ioengine=psync \
    --output-format=json --output=/share/fio.json > /dev/null
took=$(jq '.jobs[0].write.clat_ns.mean | round' "$SHARE/fio.json")
((took > 60000 && took < 80000)) || fail "a write takes $took ns"

step "a system call costs what it did before, beside a machine that works"
cost() { on primary ftdm-workload costs | jq '."system-call" * 1000 | round'; }
alone=$(cost)
for job in 1 2 3 4; do timeout 300 bash -c 'while :; do :; done' & done
busy=$(cost)
kill $(jobs -p)
echo "$alone ns, then $busy ns"
((alone > 100 && alone < 2000)) || fail "a system call costs $alone ns"
((busy * 100 >= alone * 98 && busy * 100 <= alone * 102)) || fail "$alone ns, then $busy ns"

step "a host that waits does not skip ahead"
uptime_ms() { on primary awk '{ printf "%d", $1 * 1000 }' /proc/uptime; }
was=$(uptime_ms)
sleep 5
now=$(uptime_ms)
echo "$((now - was)) ms of its time in 5 s"
((now - was < 10000)) || fail "its clock is $((now - was)) ms ahead"
((now > was)) || fail "its clock stands"
