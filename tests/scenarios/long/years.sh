#!/bin/bash
# lab: timeout=3600 memory=1G
# A pair's life in fast motion: events drawn at random (link, daemons, reboots, power cuts, failovers, planned switches,
# rotten bits, overload) under writers; after each the pair comes in sync by itself, both volumes are equal, and every
# acknowledged record is there. EVENTS=N, --seed S.
VOLUME_MB=48 JOURNAL_MB=64
EXTRA='[limits]
timeout = "2s"'
. "$(dirname "${BASH_SOURCE[0]}")/../pair.bash"
EVENTS=${EVENTS-30}
RANDOM=$LAB_SEED
P=primary B=backup
declare -A DAEMON
NOTES=0

start_daemon() { # HOST
    background "$1" ftship run vm1
    DAEMON[$1]=$JOB
}

# stop_daemon HOST SIGNAL
stop_daemon() {
    kill_background "${DAEMON[$1]}" "$2"
    wait_background "${DAEMON[$1]}" || [[ $2 == KILL ]] || fail "the daemon on $1 did not stop cleanly"
}

# rest A B: some time between, in seconds.
rest() { sleep "$(awk "BEGIN { print $1 + ($2 - $1) * $RANDOM / 32768 }")"; }

start_writers() {
    on "$P" mount /dev/mapper/vm1 /mnt
    # What was acknowledged earlier is on the volume, wherever it is now.
    if [[ -s $SHARE/notes.$NOTES ]]; then
        on "$P" ftdm-workload check "/mnt/records.$NOTES" --notes "/share/notes.$NOTES" --epoch "${1-9999999999}" \
            > "$SHARE/checked" || fail "records are lost: $(cat "$SHARE/checked")"
        on "$P" rm -f "/mnt/records.$NOTES"
    fi
    NOTES=$((NOTES + 1))
    # It ends when a checkpoint fails, as all do while replication is degraded.
    background "$P" bash -c "while :; do ftdm-workload records /mnt/records.$NOTES --group vm1 \
        --notes /share/notes.$NOTES --every 9 2> /dev/null; sleep 0.3; done"
    RECORDS=$JOB
    background "$P" bash -c 'while :; do dd if=/dev/urandom of=/mnt/noise bs=4k count=200 seek=$((RANDOM % 2000)) \
        conv=notrunc,fsync status=none; sleep 0.05; done'
    NOISE=$JOB
}

# end_writers: both have ended when this returns, and the volume is not mounted.
end_writers() {
    kill_background "$RECORDS" KILL 2> /dev/null || true
    kill_background "$NOISE" KILL 2> /dev/null || true
    wait_background "$RECORDS" || true
    wait_background "$NOISE" || true
    if [[ ${1-} != lost ]]; then on "$P" umount /mnt; fi
}

revive() { # HOST: powers it on, and all that runs there
    power_on "$1"
    install_config "$1"
    make_stack "$1" vm1 "$VOLUME_MB"
    start_daemon "$1"
}

exchange() { local p=$P; P=$B B=$p; }

has_applied() { [[ $(status "$B" .epochs.applied) -ge $1 ]]; }

# audit: nobody writes; what the backup holds is what the primary has.
audit() {
    local epoch tries
    # That the link is gone may not have been noticed yet: then this is what notices.
    for tries in 1 2 3 4 5; do
        epoch=$(on "$P" ftship checkpoint vm1 --wait) && break
        wait_state "$P" "in sync" 180
    done
    ((tries < 5)) || fail "no checkpoint is committed"
    eventually 60 has_applied "$epoch"
    expect_equal "$(digest "$B" /dev/vg/vm1)" "$(digest "$P" /dev/vg/vm1)" "the backup's volume after: $EVENT"
}

event_link() { link down; rest 0.1 4; link up; }
event_blink() { link down; link up; }
event_kill_primary() { stop_daemon "$P" KILL; rest 0 2; start_daemon "$P"; }
event_stop_primary() { stop_daemon "$P" TERM; rest 0 2; start_daemon "$P"; }
event_kill_backup() { stop_daemon "$B" KILL; rest 0 2; start_daemon "$B"; }
event_power_backup() { power_off "$B"; rest 0 3; revive "$B"; }
event_overload() {
    on "$P" dd if=/dev/urandom of=/mnt/burst bs=1M count=24 conv=fsync status=none
    on "$P" rm -f /mnt/burst
}
event_power_primary() {
    power_off "$P"
    end_writers lost
    revive "$P"
    start_writers
}
event_failover() {
    power_off "$P"
    end_writers lost
    local epoch
    epoch=$(on "$B" ftship promote vm1)
    exchange
    start_writers "$epoch"
    rest 0 3
    revive "$B"
}
event_switch() {
    end_writers
    on "$P" ftship switch vm1
    exchange
    start_writers
}
event_rot() {
    end_writers
    audit
    stop_daemon "$B" TERM
    on "$B" ftdm remove vm1
    on "$B" bash -c 'printf "\\x5a" | dd of=/dev/vg/vm1 bs=1 seek='$((RANDOM * 997))' conv=notrunc,fsync status=none'
    make_stack "$B" vm1 "$VOLUME_MB"
    start_daemon "$B"
    wait_state "$P" "in sync" 120
    expect_code 8 on "$P" ftship verify vm1 --repair > "$SHARE/verified"
    on "$P" ftship verify vm1
    start_writers
}

EVENT="the first full sync"
make_volumes
on "$P" mkfs.ext4 -q -E nodiscard /dev/mapper/vm1
start_daemon "$B"
start_daemon "$P"
wait_state "$P" "in sync" 60
start_writers
names=(link link blink kill_primary stop_primary kill_backup power_backup power_primary failover failover switch rot overload)
for ((number = 1; number <= EVENTS; number++)); do
    EVENT="event $number, ${names[RANDOM % ${#names[@]}]}"
    step "$EVENT; the primary is the host $P"
    rest 0.2 2
    "event_${EVENT##* }"
    wait_state "$P" "in sync" 180
    if ((number % 3 == 0)); then
        end_writers
        audit
        start_writers
    fi
done
end_writers
audit
