# One case after the other: the backup's or the primary's daemon is killed, its host loses its power, or the
# link is cut, just where a fault point is, or at any time; then what the backup promotes is compared
# with what was recorded and acknowledged. Needs the feature faults.
# shellcheck shell=bash
LOG_SIZE=${LOG_SIZE-"48 MiB"} APPLY_DELAY=${APPLY_DELAY-200ms} JOURNAL_MB=${JOURNAL_MB-16}
. "$LAB_REPOSITORY/tests/scenarios/faults/backup.bash"
CASES=0

# What each point needs to be met: nothing (epochs flow), a full sync, or a promote.
# shellcheck disable=SC2034
{
    BACKUP_EPOCH_POINTS="epoch-begin-received epoch-data-received frame-written epoch-end-received journal-written
        journal-synced staged-sent apply-begun apply-half apply-written apply-synced superblock-written
        superblock-synced space-freed"
    BACKUP_SYNC_POINTS="hello-received welcome-sent sync-begin-received state-written state-synced sync-ready-sent
        base-data-received base-written base-end-received base-flushed"
    BACKUP_PROMOTE_POINTS="promote-begun state-written state-synced promote-before-writable promote-writable"
    PRIMARY_EPOCH_POINTS="after-suspend after-mark before-resume epoch-begin-sent epoch-data-sent epoch-end-sent
        staged-received"
    PRIMARY_SYNC_POINTS="hello-sent welcome-received sync-begin-sent sync-ready-received base-data-sent base-end-sent"
}

# begin [COMMAND]: from nothing to in sync, with writers; COMMAND is to exchange further devices. The journal has a disk of its own: else its flushes would make
# durable what is written to the volume, and a flush that is missing there would not be noticed.
begin() {
    make_volumes
    on backup vgcreate -q -y second /dev/vdb
    on backup lvcreate -q -y -W n -n vm1_journal -L "${JOURNAL_MB}M" second
    exchange /dev/vg/vm1_journal /dev/second/vm1_journal
    "${@-:}"
    on backup ftship format --force vm1
    settle primary
    settle backup
    start_backup
    start_primary
    follow
    start_writers
    eventually 120 goes_on ""
}

start_writers() {
    background primary ftdm-workload churn /dev/mapper/vm1 --seed $((LAB_SEED + CASES)) --seconds 3000 --rate 12
}

# arm HOST POINT SIGNAL
arm() {
    local file=$SHARE/fault
    if [[ $1 == backup ]]; then file=$SHARE/fault-backup; fi
    echo "$2 $3" > "$file.new"
    chmod 666 "$file.new"
    mv "$file.new" "$file"
    ARMED=$file
}

# is_met: the point was. A machine that is too slow for its writers degrades: then, for a point that epochs meet, they
# have to flow again first; during a full sync it would not be met.
is_met() {
    if [[ ! -e $ARMED ]]; then return 0; fi
    if [[ $host == backup && $provocation == epoch && $(status primary .state 2>/dev/null) == degraded ]]; then
        mv "$ARMED" "$ARMED.later" 2>/dev/null || return 0
        local before
        before=$(acknowledged)
        eventually 120 goes_on "$before"
        mv "$ARMED.later" "$ARMED"
    fi
    return 1
}

# provoke WHAT: what makes the point come.
provoke() {
    case $1 in
        epoch) ;;
        sync)
            # Only where nothing is replicated is there anything to sync.
            degrade_primary
            full_sync || true
            ;;
        reconnect) link_flap ;;
        promote) begin_promote ;;
    esac
}

begin_promote() { background backup ftship promote vm1 --timeout 20; }

# A connection that ends: the primary greets again.
link_flap() {
    kill_background "$BACKUP_JOB" TERM
    wait_background "$BACKUP_JOB" || true
    start_backup
}

# strike HOST KIND: the process has stopped or is dead there; now the rest of the fault.
strike() {
    local host=$1 job=$BACKUP_JOB
    if [[ $host == primary ]]; then job=$PRIMARY_JOB; fi
    case $2 in
        kill)
            kill_background "$job" KILL || true
            wait_background "$job" || true
            ;;
        power)
            if ((CASES % 2)); then power_off "$host" --keep-random $((LAB_SEED + CASES)); else power_off "$host"; fi
            ;;
        link)
            link down
            kill_background "$job" CONT
            # Longer than `timeout`: both sides give the connection up.
            sleep 5
            link up
            ;;
    esac
}

# revive HOST KIND: the host and its daemon are back.
revive() {
    case $1.$2 in
        backup.power)
            power_on backup
            on backup vgchange --quiet -ay
            install_config backup
            start_backup
            ;;
        backup.kill) start_backup ;;
        primary.power)
            power_on primary
            install_config primary
            on primary ftdm create vm1 --table "0 $((VOLUME_MB * 2048)) ft /dev/vg/vm1_meta /dev/vg/vm1 128"
            ;;
    esac
    if [[ $1 == backup ]]; then eventually 30 is_up; fi
}

# judge LAST SYNCING: the backup promotes to exactly one epoch, LAST or a later one. Where a full sync was under
# way, which destroys what was there before, it may refuse instead.
judge() {
    local code=0
    if [[ -n $2 ]]; then
        on backup ftship promote vm1 > /dev/null || code=$?
        if ((code == 4)); then
            [[ $(status backup .state) =~ ^(inconsistent|syncing|in sync)$ ]] || fail "$NAME: it is $(status backup .state)"
            return
        fi
    fi
    expect_promoted "$1" "$NAME"
}

# renew HOST KIND: in sync for the next case.
renew() {
    if [[ $1.$2 == primary.* && $2 != link ]]; then
        start_primary
        eventually 30 is_served
        # Writers outlive a daemon, but not a power cut.
        if [[ $2 == power ]]; then
            follow
            start_writers
        fi
    fi
    renew_backup
}

# crash HOST KIND POINT PROVOCATION
crash() {
    local host=$1 kind=$2 point=$3 provocation=$4 signal=STOP last
    CASES=$((CASES + 1))
    NAME="$host, $kind, $point ($provocation)"
    step "$NAME"
    if [[ $kind == kill ]]; then signal=KILL; fi
    arm "$host" "$point" "$signal"
    provoke "$provocation"
    eventually 120 is_met
    last=$(acknowledged)
    strike "$host" "$kind"
    # What was acknowledged on its way meanwhile counts as well.
    if [[ $host == backup || $kind == link ]]; then sleep 0.5; last=$(acknowledged); fi
    if [[ $host == primary && $kind != link ]]; then
        judge "$last" "$(is_sync "$provocation")"
        revive "$host" "$kind"
    else
        revive "$host" "$kind"
        judge "$last" "$(is_sync "$provocation")"
    fi
    renew "$host" "$kind"
}

is_sync() { if [[ $1 == sync ]]; then echo yes; fi; }

# crash_at HOST KIND PROVOCATION POINT...
crash_at() {
    local point
    for point in "${@:4}"; do crash "$1" "$2" "$point" "$3"; done
}

# crash_sometime HOST KIND SECONDS: at any time.
crash_sometime() {
    local last
    CASES=$((CASES + 1))
    NAME="$1, $2, after $3 s"
    step "$NAME"
    sleep "$3"
    last=$(acknowledged)
    strike "$1" "$2"
    if [[ $1 == primary && $2 != link ]]; then
        judge "$last" ""
        revive "$1" "$2"
    else
        revive "$1" "$2"
        judge "$last" ""
    fi
    renew "$1" "$2"
}

# every_point HOW: each point of the protocol, on either host.
every_point() {
    local how=$1
    # The lists are to be split.
    # shellcheck disable=SC2086
    {
        crash_at backup "$how" epoch $BACKUP_EPOCH_POINTS
        crash_at backup "$how" reconnect hello-received welcome-sent
        crash_at backup "$how" sync ${BACKUP_SYNC_POINTS#*welcome-sent }
        crash_at backup "$how" promote $BACKUP_PROMOTE_POINTS
        crash_at primary "$how" epoch $PRIMARY_EPOCH_POINTS
        crash_at primary "$how" reconnect hello-sent welcome-received
        crash_at primary "$how" sync ${PRIMARY_SYNC_POINTS#*welcome-received }
    }
    echo "$CASES cases"
}
