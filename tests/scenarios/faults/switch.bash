# The roles are exchanged under load, and one of the daemons is killed, or stopped with its link cut, at a point of that:
# there is one primary or none, never two, and nothing that was acknowledged is lost. Needs the feature faults.
# shellcheck shell=bash
VOLUME_MB=8 JOURNAL_MB=32 LOG_SIZE="16 MiB" EPOCH=150ms
EXTRA='[limits]
timeout = "3s"
switch-hold = "8s"'
. "$LAB_REPOSITORY/tests/scenarios/pair.bash"
P=primary B=backup CASES=0
declare -A DAEMON

# shellcheck disable=SC2034
{
    GIVING_POINTS="switch-held switch-yielded state-written state-synced take-over-sent shut-loaded shut-resumed shut-told shut-discards"
    TAKING_POINTS="take-over-received state-written state-synced promote-before-writable promote-writable"
}

run_daemon() {
    background "$1" env "FTDM_FAULT=/share/fault-$1" ftship run vm1
    DAEMON[$1]=$JOB
}

begin() {
    make_volumes
    run_daemon backup
    run_daemon primary
    wait_state primary "in sync" 60
}

role() { status "$1" .role 2>/dev/null; }
roles_are() { [[ $(role "$P")-$(role "$B") == "$1" ]]; }
wrote() { (($(status "$P" .epochs.committed) >= $1 + 3)); }

# arm HOST POINT SIGNAL
arm() {
    echo "$2 $3" > "$SHARE/fault.new"
    chmod 666 "$SHARE/fault.new"
    mv "$SHARE/fault.new" "$SHARE/fault-$1"
}

# strike HOST KIND: the daemon there is dead, or has stopped.
strike() {
    case $2 in
        KILL)
            wait_background "${DAEMON[$1]}" || true
            run_daemon "$1"
            ;;
        STOP)
            link down
            # Longer than the watchdog waits, and both sides.
            sleep 4
            kill_background "${DAEMON[$1]}" CONT
            link up
            ;;
    esac
}

settled() { ! roles_are primary-primary && [[ $(role "$P") && $(role "$B") ]] && ! status "$P" .reason | grep -q 'exchanged\|not known'; }

# attempt HOST SIGNAL POINT
attempt() {
    local host=$1 before
    CASES=$((CASES + 1))
    step "$(if [[ $host == "$P" ]]; then echo "who gives"; else echo "who takes"; fi): $2 at $3"
    background "$P" ftdm-workload churn /dev/mapper/vm1 --seed $((LAB_SEED + CASES)) --seconds 3000 --rate 20
    WRITER=$JOB
    background "$P" bash -c 'exec 9<> /dev/mapper/vm1; sleep 1000'
    HOLDER=$JOB
    before=$(status "$P" .epochs.committed)
    eventually 60 wrote "$before"
    arm "$host" "$3" "$2"
    background "$P" ftship switch vm1 --stall --timeout 40
    SWITCH=$JOB
    eventually 60 test ! -e "$SHARE/fault-$host"
    strike "$host" "$2"
    wait_background "$SWITCH" || true
    eventually 60 settled
    if roles_are backup-backup; then
        echo "there is no primary"
        on "$B" ftship promote vm1 > /dev/null
        eventually 20 roles_are backup-primary
    fi
    judge
    kill_background "$WRITER" TERM || true
    wait_background "$WRITER" || true
    kill_background "$HOLDER" KILL || true
    wait_background "$HOLDER" || true
    if roles_are backup-primary; then read -r P B <<< "$B $P"; fi
    wait_state "$P" "in sync" 90
}

# judge: what was acknowledged is where the primary is. Nobody has written to a new one yet, and the old one's volumes
# are open still, so that nothing overwrites them.
judge() {
    if roles_are backup-primary; then
        echo "the roles are exchanged"
        expect_equal "$(digest "$P" /dev/vg/vm1)" "$(digest "$B" /dev/vg/vm1)" "what was acknowledged, and what took over"
        expect_code 1 on "$P" dd if=/dev/zero of=/dev/mapper/vm1 bs=4k count=1 oflag=direct conv=notrunc status=none
    else
        roles_are primary-backup || fail "the roles are $(role "$P") and $(role "$B")"
        echo "the roles are as before"
        on "$P" timeout 30 dd if=/dev/zero of=/dev/mapper/vm1 bs=4k count=1 oflag=direct conv=notrunc status=none ||
            fail "writes do not flow"
    fi
}

# attempts SIDE SIGNAL POINT...
attempts() {
    local point
    for point in "${@:3}"; do
        if [[ $1 == giving ]]; then attempt "$P" "$2" "$point"; else attempt "$B" "$2" "$point"; fi
    done
}

# finish: what the last primary has, both have.
finish() {
    on "$P" ftship checkpoint vm1 --wait
    same() { [[ $(digest primary /dev/vg/vm1) == $(digest backup /dev/vg/vm1) ]]; }
    eventually 20 same
    echo "$CASES cases"
}
