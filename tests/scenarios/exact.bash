# What the scenarios about exactness share: a stack whose flushes are slow, cut under writers.
# shellcheck shell=bash

# slow_flushes NAME SIZE DELAY [BLOCK]: a stack over a volume whose flushes take DELAY milliseconds; with
# logical blocks of BLOCK bytes.
slow_flushes() {
    local name=$1 sectors meta below=/dev/vg/$1
    on primary lvcreate -q -y -W n -n "$name" -L "$2" vg
    sectors=$(on primary blockdev --getsz "/dev/vg/$name")
    meta=$(on primary ftdm metadata-size "$sectors" 128)
    on primary lvcreate -q -y -W n -n "${name}_meta" -L "${meta}s" vg
    on primary dd if=/dev/zero of="/dev/vg/${name}_meta" bs=4k count=1 oflag=direct conv=fsync status=none
    if [[ -n ${4-} ]]; then
        on primary modprobe loop
        below=$(on primary losetup --find --show --direct-io=on --sector-size "$4" "$below")
    fi
    on primary modprobe dm-delay
    on primary dmsetup create "${name}_slow" --table \
        "0 $sectors delay $below 0 0 $below 0 0 $below 0 $3"
    on primary ftdm create "$name" --table "0 $sectors ft /dev/vg/${name}_meta /dev/mapper/${name}_slow 128"
}

# exact NAME CUTS [OPTION...]: cuts it under writers. Fails when an epoch was wrong, or when believing the
# log's order would have been right throughout: then the load shows nothing.
exact() {
    local name=$1 cuts=$2 writers said log_order
    background primary ftdm-workload churn "/dev/mapper/$name" --seed "$LAB_SEED" --threads 8 \
        --seconds 3600 --rate $((300 / LAB_SLOWNESS)) --shared 12
    writers=$JOB
    said=$(on primary ftdm-workload exact "$name" --cuts "$cuts" \
        --budget $((400 * LAB_SLOWNESS)) "${@:3}" | tee /dev/stderr)
    kill_background "$writers"
    wait_background "$writers" || true
    log_order=$(sed -nE "s/^a fold in the log's order is wrong at ([0-9]+) of .*/\1/p" <<< "$said")
    ((${log_order:-0} > 0)) || fail "writes in the log's order were right in all of $cuts epochs"
    expect_equal "$(on primary ftdm status "$name" | grep -c tracking)" 1 "left tracking"
}
