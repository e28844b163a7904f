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
