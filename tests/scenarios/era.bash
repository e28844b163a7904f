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

# survive NAME BLOCK_SECTORS CUTS: writers, rolls under them, power cuts; a copy outside the host.
survive() {
    local name=$1 block=$2 cuts=$3 cut writers keep round
    make_tracked "$name" 64M "$block"
    era catch-up "$name" "/share/$name.replica" "/share/$name.era"
    for ((cut = 1; cut <= cuts; cut++)); do
        writers=$(background primary ftdm-workload churn "/dev/mapper/$name" \
            --seed $((LAB_SEED * 1000 + cut)) --threads 4 --seconds 120 --rate 300)
        for ((round = 0; round < 3; round++)); do
            era catch-up "$name" "/share/$name.replica" "/share/$name.era"
        done
        keep=()
        if ((cut % 2)); then keep=(--keep-random $((LAB_SEED * 100 + cut))); fi
        power_off primary "${keep[@]}"
        expect_fail wait_background "$writers"
        power_on primary
        on primary ftdm create "$name" --recorded-era "$(cat "$SHARE/$name.era")" \
            --table "0 131072 ft /dev/vg/${name}_meta /dev/vg/$name $block"
        era catch-up "$name" "/share/$name.replica" "/share/$name.era"
        era compare "$name" "/share/$name.replica"
    done
    untrack "$name"
}
