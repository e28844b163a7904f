#!/bin/bash
# lab: timeout=3600 memory=3G disk-size=4G backends=uml,qemu,icount
# How fast a volume is written to: the raw logical volume, the stack that only tracks, ftdm in sync without TLS (DRBD has
# none) and with it, DRBD's protocols A, B and C, and the raw volume again, in turn, several rounds within one run. Prints
# each as the share of the raw volume's, and what the hosts did for it; see `tests/bench/README.md`.
: "${VOLUME_MB:=${BENCH_VOLUME_MB:-256}}"
JOURNAL_MB=256 LOG_SIZE="128 MiB"
. "$LAB_REPOSITORY/tests/scenarios/pair.bash"
. "$LAB_REPOSITORY/tests/bench/drbd.bash"
. "$LAB_REPOSITORY/tests/bench/counts.bash"
ROUNDS=${BENCH_ROUNDS-2} SECONDS_EACH=${BENCH_SECONDS-6} RAMP=${BENCH_RAMP-1} CALLS_SECONDS=${BENCH_CALLS_SECONDS-1}
read -ra SUBJECTS <<< "${BENCH_SUBJECTS:-raw tracked ftdm ftdm-tls drbd-A drbd-B drbd-C raw-again}"
# In this order. What a granule's first write since a roll costs is a figure of its own: afterwards, as through most of
# a `roll-interval`, every granule has been written to.
read -ra ORDER <<< "${BENCH_WORKLOADS:-first-touch random-qd1 random-qd8 fsync-qd8 mixed-qd8 paced sequential}"
declare -A WORKLOADS=(
    [first-touch]="--rw=randwrite --iodepth=1 --ramp_time=0 --number_ios=2000"
    [random-qd1]="--rw=randwrite --iodepth=1"
    [random-qd8]="--rw=randwrite --iodepth=8"
    [fsync-qd8]="--rw=randwrite --iodepth=8 --fsync=32"
    [mixed-qd8]="--rw=randrw --rwmixread=70 --iodepth=8"
    [paced]="--rw=randwrite --iodepth=1 --rate_iops=1000"
    [sequential]="--rw=write --bs=256k --iodepth=4 --rate=20m"
)
# On `icount` a second of the primary is up to a minute of the backup, which would take it for silent.
PATIENT_BACKUP=""
if [[ $LAB_BACKEND == icount ]]; then PATIENT_BACKUP=$'[limits]\ntimeout = "5min"'; fi
mkdir -p "$SHARE/fio"

# prepare SUBJECT: makes it the only one that is active; sets DEVICE.
prepare() {
    case $1 in
        raw | raw-again) DEVICE=/dev/vg/raw ;;
        tracked) DEVICE=/dev/mapper/vm1 ;;
        ftdm | ftdm-tls)
            DEVICE=/dev/mapper/vm1
            TLS=off
            if [[ $1 == ftdm-tls ]]; then TLS=required; fi
            config primary primary 10.9.0.1 10.9.0.2
            EXTRA=$PATIENT_BACKUP config backup backup 10.9.0.2 10.9.0.1
            start_daemons
            wait_state primary "in sync" 120 ;;
        drbd-?)
            DEVICE=/dev/drbd0
            if [[ ! -e $SHARE/r0.primary.res ]]; then make_drbd "$VOLUME_MB"; fi
            drbd_protocol "${1#drbd-}" ;;
    esac
    mkdir -p "$SHARE/counts"
    # Its name in /proc/diskstats; that of the node need not be it.
    on primary bash -c "basename \"\$(readlink /sys/dev/block/\$(mountpoint -x $DEVICE))\"" > "$SHARE/counts/$1.device"
}

# finish SUBJECT: what has to be true of it afterwards.
finish() {
    [[ $1 == ftdm* ]] || return 0
    status primary . > "$SHARE/fio/status.$ROUND.json"
    [[ $(jq -r .state "$SHARE/fio/status.$ROUND.json") == "in sync" ]] \
        || echo "   ftdm did not stay in sync: $(jq -c '[.state, .reason]' "$SHARE/fio/status.$ROUND.json")"
    kill_background "$PRIMARY_JOB" TERM
    wait_background "$PRIMARY_JOB" || fail "the primary's daemon did not stop cleanly"
    stop_backup
}

# load SUBJECT WORKLOAD NAME SECONDS: NAME is of its files.
load() {
    local group=""
    if [[ $1 == ftdm* ]]; then group=vm1; fi
    # shellcheck disable=SC2086
    counted "$3" "$group" fio --name="$2" --filename="$DEVICE" --direct=1 --ioengine=libaio --bs=4k --size=${VOLUME_MB}M \
        --norandommap --randseed="$ROUND" --refill_buffers --time_based --runtime="$4" --ramp_time="$RAMP" \
        --output-format=json --output="/share/fio/$3.json" ${WORKLOADS[$2]} > "$SHARE/fio.log" 2>&1 \
        || fail "fio: $(cat "$SHARE/fio.log")"
}

# measure SUBJECT WORKLOAD: for its speed, and then again, shortly, for its system calls.
measure() {
    load "$1" "$2" "$1.$2.$ROUND" "$SECONDS_EACH"
    if [[ -n $CALLS && $2 != first-touch ]]; then
        count_calls primary on
        count_calls backup on
        load "$1" "$2" "$1.$2.$ROUND.calls" "$CALLS_SECONDS"
        count_calls primary off
        count_calls backup off
    fi
}

# touch_all: a write to every granule, but for the last few: DRBD's device is a little shorter.
touch_all() {
    IS_TOUCHED=yes
    on primary fio --name=touch --filename="$DEVICE" --direct=1 --ioengine=libaio --rw=write:60k --bs=4k --iodepth=8 \
        --number_ios=$((VOLUME_MB * 16 - 32)) > "$SHARE/fio.log" 2>&1 || fail "fio: $(cat "$SHARE/fio.log")"
}

step "setting up: raw volume, ftdm"
on primary lvcreate -q -y -W n -n raw -L "${VOLUME_MB}M" vg
on primary dd if=/dev/zero of=/dev/vg/raw bs=1M count="$VOLUME_MB" oflag=direct status=none
make_volumes
CALLS=
if can_count_calls primary && can_count_calls backup; then CALLS=yes; fi
for host in primary backup; do
    on "$host" ftdm-workload costs > "$SHARE/fio/costs.$host.json"
    on "$host" uname -r > "$SHARE/fio/kernel.$host"
done
for ((ROUND = 1; ROUND <= ROUNDS; ROUND++)); do
    for subject in "${SUBJECTS[@]}"; do
        prepare "$subject"
        IS_TOUCHED=
        for workload in "${ORDER[@]}"; do
            step "round $ROUND of $ROUNDS: $subject, $workload"
            if [[ $workload == first-touch ]]; then IS_TOUCHED=; elif [[ -z $IS_TOUCHED ]]; then touch_all; fi
            measure "$subject" "$workload"
        done
        finish "$subject"
    done
done
"$LAB_REPOSITORY/tests/bench/collect" "$SHARE" "$LAB_BACKEND" > "$SHARE/results.json"
"$LAB_REPOSITORY/tests/bench/table" "$SHARE/results.json"
