# What the scenarios about eras share: a volume under ftdm, and era.py in the hosts.
# shellcheck shell=bash

cp "$LAB_REPOSITORY/tests/scenarios/era.py" "$SHARE/era.py"
era() { on primary python3 /share/era.py "$@"; }

# make_tracked NAME SIZE BLOCK_SECTORS: a volume of SIZE (as lvcreate takes it) with its metadata.
make_tracked() {
    on primary lvcreate -q -y -W n -n "$1" -L "$2" vg
    local sectors meta
    sectors=$(on primary blockdev --getsz "/dev/vg/$1")
    meta=$(on primary ftdm metadata-size "$sectors" "$3")
    on primary lvcreate -q -y -W n -n "$1_meta" -L "${meta}s" vg
    on primary dd if=/dev/zero of="/dev/vg/$1_meta" bs=4k count=1 oflag=direct conv=fsync status=none
    settle primary
    track "$1" "$3"
}

# track NAME BLOCK_SECTORS: the stack, also after a power cut.
track() {
    local sectors
    sectors=$(on primary blockdev --getsz "/dev/vg/$1")
    on primary ftdm create "$1" --table "0 $sectors ft /dev/vg/$1_meta /dev/vg/$1 $2"
}

# untrack NAME [ERA]: takes the stack down and has its metadata checked; what changed since ERA against
# era_dump too, which is slow for many blocks.
untrack() {
    if [[ -n ${2-} ]]; then era record "$1" "$2" "/share/$1.notes"; fi
    on primary ftdm remove "$1"
    on primary era_check -q "/dev/vg/$1_meta"
    if [[ -n ${2-} ]]; then era dumped "/dev/vg/$1_meta" "/share/$1.notes"; fi
}

# rounds NAME BLOCK_SECTORS WRITES [DUMP]: writes, rolls, power cuts; the answers of both at each stage;
# with era DUMP, that of era_dump too.
rounds() {
    local name=$1 block=$2 writes=$3
    era write "/dev/mapper/$name" $((LAB_SEED * 100)) "$writes"
    era differ "$name" "/dev/vg/${name}_meta" 0 1
    era write "/dev/mapper/$name" $((LAB_SEED * 100 + 1)) "$writes"
    era differ "$name" "/dev/vg/${name}_meta" 1 5
    era write "/dev/mapper/$name" $((LAB_SEED * 100 + 2)) "$writes"
    power_off primary --keep-random $((LAB_SEED + block))
    power_on primary
    track "$name" "$block"
    era write "/dev/mapper/$name" $((LAB_SEED * 100 + 3)) 5
    era differ "$name" "/dev/vg/${name}_meta" 1 6 10
    untrack "$name" ${4-}
}

# survivor NAME BLOCK_SECTORS METADATA DELAY: the stack over a volume whose writes take DELAY milliseconds,
# with its metadata on a disk of its own: a flush of that one is none of the volume. Refuses a lost history.
survivor() {
    local name=$1 block=$2 metadata=$3 delay=$4 recorded=()
    on primary modprobe dm-delay
    on primary dmsetup create "${name}_slow" \
        --table "0 131072 delay /dev/vg/$name 0 0 /dev/vg/$name 0 $delay"
    if [[ -f $SHARE/$name.era ]]; then recorded=(--recorded-era "$(cat "$SHARE/$name.era")"); fi
    on primary ftdm create "$name" "${recorded[@]}" \
        --table "0 131072 ft $metadata /dev/mapper/${name}_slow $block"
}

# survive NAME BLOCK_SECTORS CUTS METADATA DELAY: writers, rolls under them, power cuts; a copy outside the host.
survive() {
    local name=$1 block=$2 cuts=$3 cut writers keep round
    on primary lvcreate -q -y -W n -n "$name" -L 64M vg
    settle primary
    survivor "$name" "$block" "${@:4}"
    era catch-up "$name" "/share/$name.replica" "/share/$name.era"
    for ((cut = 1; cut <= cuts; cut++)); do
        keep=()
        if ((cut % 2)); then # nobody flushes but the roll
            writers=$(background primary python3 /share/era.py write "/dev/mapper/$name" \
                $((LAB_SEED * 1000 + cut)) 1000000 100)
        else
            keep=(--keep-random $((LAB_SEED * 100 + cut)))
            writers=$(background primary ftdm-workload churn "/dev/mapper/$name" \
                --seed $((LAB_SEED * 1000 + cut)) --threads 4 --seconds 120 --rate 300)
        fi
        for ((round = 0; round < 4; round++)); do
            era catch-up "$name" "/share/$name.replica" "/share/$name.era"
        done
        power_off primary "${keep[@]}"
        expect_fail wait_background "$writers"
        power_on primary
        survivor "$name" "$block" "${@:4}"
        era catch-up "$name" "/share/$name.replica" "/share/$name.era"
        era compare "$name" "/share/$name.replica"
    done
    on primary ftdm remove "$name"
    on primary era_check -q "$4"
    on primary dmsetup remove "${name}_slow"
}
