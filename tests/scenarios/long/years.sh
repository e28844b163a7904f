#!/bin/bash
# lab: timeout=3600 memory=1G
# A pair's life in fast motion: events drawn at random (link, daemons, reboots, power cuts, failovers with a fencing token
# and without, planned switches and such under load, a replaced disk, a whole copy that is broken off, rotten bits,
# overload) under writers; after each the pair comes in sync by itself, both volumes are equal, and every acknowledged
# record is there. Where nothing but a link or a daemon was away, no more is sent than was written. Each event comes up
# once before any comes up again. EVENTS=N, --seed S.
VOLUME_MB=48 JOURNAL_MB=64
EXTRA='[limits]
timeout = "2s"'
. "$(dirname "${BASH_SOURCE[0]}")/../pair.bash"
EVENTS=${EVENTS-30}
RANDOM=$LAB_SEED
P=primary B=backup
declare -A DAEMON
NOTES=0 TOKEN=0 DECK=()

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

# written: bytes that the primary's guest has written since its stack was made.
written() {
    # shellcheck disable=SC2016
    on "$P" bash -c 'awk "{ print \$7 * 512 }" "/sys/block/dm-$(dmsetup info -c --noheadings -o minor vm1)/stat"'
}
last_sync() { status "$P" '.primary.last_sync // empty | "\(.base) \(.bytes) \(.sent) \(.skipped) \(.digests) \(.carrier)"'; }

# account NAME HOST BEFORE SYNC: a line of what the sync behind an event took, beside what was written since the event
# began, unless another host is the primary now, or its stack a new one: that counts from 0.
account() {
    local wrote base bytes sent skipped digests carrier
    wrote=$(($(written) - $3))
    if [[ $P != "$2" || $1 == power_primary ]]; then wrote=unknown; fi
    read -r base bytes sent skipped digests carrier <<< "$(last_sync)"
    if [[ -z $carrier || "$base $bytes $sent $skipped $digests $carrier" == "$4" ]]; then return; fi
    echo "$1: written $wrote; $carrier since epoch $base: covered $bytes, sent $sent, left out $skipped, digests $digests" |
        tee -a "$SHARE/account"
    case $1 in
        link | blink | kill_backup | stop_primary | kill_primary)
            # What was on its way when it began travels again, and frames have heads.
            if [[ $base != null ]] && ((sent > wrote + (4 << 20))); then fail "$sent bytes sent, $wrote were written"; fi
            ;;
    esac
}

# draw: the next event's name, in NAME.
draw() {
    if ((${#DECK[@]} == 0)); then DECK=("${names[@]}"); fi
    local at=$((RANDOM % ${#DECK[@]}))
    NAME=${DECK[at]}
    unset "DECK[at]"
    DECK=("${DECK[@]}")
}

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
# The token is above all before it, and one that is not is refused from then on.
event_token() {
    power_off "$P"
    end_writers lost
    local epoch
    TOKEN=$((TOKEN + 1 + RANDOM % 9))
    epoch=$(on "$B" ftship promote vm1 --token "$TOKEN")
    exchange
    start_writers "$epoch"
    revive "$B"
    wait_state "$P" "in sync" 180
    expect_code 9 on "$B" ftship promote vm1 --token $((TOKEN - 1))
    is_state "$P" "in sync" || fail "a promote that was refused has changed something: $(status "$P" .reason)"
}
# Under the writers, whose file system fails then; on the other side it is whole.
event_stall() {
    on "$P" ftship switch vm1 --stall --timeout 60
    end_writers lost
    on "$P" umount /mnt || on "$P" umount -l /mnt
    exchange
    start_writers
}
event_disk() {
    local name size
    stop_daemon "$B" KILL
    on "$B" ftdm remove vm1
    for name in vm1 vm1_meta vm1_journal vm1_state; do
        case $name in vm1) size=$VOLUME_MB ;; vm1_meta) size=16 ;; vm1_journal) size=$JOURNAL_MB ;; vm1_state) size=4 ;; esac
        on "$B" lvremove -q -y "vg/$name"
        on "$B" lvcreate -q -y -W n -n "$name" -L "${size}M" vg
        on "$B" blkdiscard -z "/dev/vg/$name"
    done
    make_stack "$B" vm1 "$VOLUME_MB"
    # Whatever it was at first.
    on "$B" sed -i 's/^role = .*/role = "backup"/' /etc/ftdm/vm1.toml
    on "$B" ftship format vm1
    start_daemon "$B"
}
event_broken_copy() {
    on "$P" ftship full-sync vm1
    rest 0 0.6
    case $((RANDOM % 3)) in
        0) event_kill_backup ;;
        1) event_kill_primary ;;
        2) event_link ;;
    esac
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
names=(link blink kill_primary stop_primary kill_backup power_backup power_primary failover token switch stall disk
    broken_copy rot overload)
for ((number = 1; number <= EVENTS; number++)); do
    draw
    EVENT="event $number, $NAME"
    step "$EVENT; the primary is the host $P"
    rest 0.2 2
    before=$(written) sync=$(last_sync) host=$P
    "event_$NAME"
    wait_state "$P" "in sync" 180
    account "$NAME" "$host" "$before" "$sync"
    if ((number % 3 == 0)); then
        end_writers
        audit
        start_writers
    fi
done
end_writers
audit
cat "$SHARE/account"
