# A pair whose backup's devices can be exchanged, broken and mended. Source it before `make_volumes`.
# shellcheck shell=bash
BARE_BACKUP=${BARE_BACKUP-yes}  # devices for faults come between
VOLUME_MB=${VOLUME_MB-8} JOURNAL_MB=${JOURNAL_MB-32} LOG_SIZE=${LOG_SIZE-"48 MiB"} EPOCH=${EPOCH-150ms}
EXTRA=${EXTRA-'[audit]
digest-file = "/share/digests"

[limits]
timeout = "'${TIMEOUT-10s}'"

# No watchdog is to step in because the machine is slow.
[watchdog]
timeout = "30s"
pause-timeout = "5s"'}
. "$LAB_REPOSITORY/tests/scenarios/pair.bash"
. "$LAB_REPOSITORY/tests/scenarios/watchdog.bash"

# exchange FROM TO: another device or file in the backup's configuration.
exchange() {
    sed -i "s|\"$1\"|\"$2\"|" "$SHARE/config/backup.toml"
    install_config backup
}

# over NAME LV: a device-mapper device NAME that leads to the logical volume, for faults to come between.
over() {
    on backup bash -c "echo 0 \$(blockdev --getsz /dev/vg/$2) linear /dev/vg/$2 0 | dmsetup create $1"
}

# table NAME LV TARGET: what it leads to from now on; `%` in TARGET stands for the volume.
table() {
    on backup bash -c "dmsetup suspend --noflush $1 &&
        echo 0 \$(blockdev --getsz /dev/vg/$2) ${3//%//dev/vg/$2} | dmsetup load $1; dmsetup resume $1"
}

mend() { table "$1" "$2" "linear % 0"; }

# start_backup: with its fault points, where it was built with them, fed by $SHARE/fault-backup.
start_backup() {
    background backup env FTDM_FAULT=/share/fault-backup ftship run vm1
    BACKUP_JOB=$JOB
}

is_up() { on backup ftship status vm1 > /dev/null 2>&1; }

# restart_killed: the backup's daemon after it was killed or has failed.
restart_killed() {
    kill_background "$BACKUP_JOB" KILL || true
    wait_background "$BACKUP_JOB" || true
    start_backup
    eventually 30 is_up
}

# follow: notes each acknowledged epoch in $SHARE/acknowledged, for the rest of the scenario.
follow() {
    : > "$SHARE/acknowledged"
    chmod 666 "$SHARE/acknowledged"
    # shellcheck disable=SC2016
    background primary bash -c 'while true; do
        if epoch=$(timeout 20 ftship checkpoint vm1 --wait 2>/dev/null); then echo "$epoch" >> /share/acknowledged
        else sleep 0.2; fi
    done'
}

# acknowledged: the last epoch that was.
acknowledged() { tail -n 1 "$SHARE/acknowledged"; }

more_acknowledged() { [[ $(acknowledged) != "$1" ]]; }

# goes_on EPOCH: in sync, and something else than EPOCH was acknowledged.
goes_on() { is_state primary "in sync" && more_acknowledged "$1"; }

# renew_backup: what it holds is forgotten, and synced anew; needs `follow`.
renew_backup() {
    stop_backup
    on backup ftship format --force vm1 > /dev/null
    settle backup
    start_backup
    local last
    last=$(acknowledged)
    eventually 120 goes_on "$last"
}

# expect_promoted EPOCH WHAT: promotes; that epoch is there, and the volume is exactly one recorded epoch.
expect_promoted() {
    promote
    ((EPOCH_PROMOTED >= $1)) || fail "$2: acknowledged epoch $1 is lost: promoted at epoch $EPOCH_PROMOTED"
    expect_equal "$(digest backup /dev/vg/vm1)" "$(recorded "$EPOCH_PROMOTED" | tail -n 1)" \
        "$2: volume of epoch $EPOCH_PROMOTED"
}
