#!/bin/bash
# lab: timeout=300
# `ftship init`: sizes as LVM takes them, in whole extents and checked against each other; one that fails or is killed can be repeated.
init() { on "$1" ftship init vm1 --address 10.9.0.1 --peer 10.9.0.2 --volume /dev/vg/vm1 "${@:2}"; }
# nothing HOST: neither volumes nor files are there.
nothing() { on "$1" bash -c '! lvs --noheadings -o lv_name vg | grep . && ! ls /etc/ftdm/* 2> /dev/null'; }
refused() { # refused WHAT OPTION...: with this in its message, code 4, and nothing made
    local what=$1
    shift
    expect_code 4 init primary "$@" 2> refusal
    grep -qF -- "$what" refusal || fail "no word of '$what': $(cat refusal)"
    nothing primary
}

step "what cannot be is refused, with or without --dry-run"
for dry in --dry-run --create-lvs; do
    refused "--size 0" --size 0 $dry
    refused "an epoch may have 200.0 MiB" --size 200M --rate 1G --journal 100M $dry
    refused "and 112.5 GiB are needed" --size 100G $dry
done
expect_code 2 init primary --size 10GB --dry-run

step "sizes are LVM's, and shown in whole extents"
init primary --size 50M --dry-run > plan
grep -q '^# lvcreate --name vm1 --size 54525952b vg   # 52.0 MiB (50.0 MiB, in whole extents)$' plan || fail "$(cat plan)"
nothing primary

step "one that cannot write its files leaves nothing"
on primary bash -c 'mkdir -p /etc/ftdm && mount -t tmpfs -o nr_inodes=2 none /etc/ftdm'
expect_fail init primary --size 50M --create-lvs
on primary bash -c 'umount /etc/ftdm'
nothing primary

step "one that is killed between two volumes is repeated"
on primary bash -c 'ftship init vm1 --address 10.9.0.1 --peer 10.9.0.2 --volume /dev/vg/vm1 --size 50M --create-lvs & pid=$!
    until test -e /dev/vg/vm1_meta; do :; done; kill -KILL $pid; wait $pid || true'
expect_equal "$(on primary bash -c 'lvs --noheadings -o lv_tags vg/vm1 | tr -d " "')" ftdm.init
init primary --size 50M --create-lvs > made
expect_equal "$(on primary bash -c 'blockdev --getsize64 /dev/vg/vm1')" 54525952
expect_equal "$(on primary bash -c 'lvs --noheadings -o lv_tags vg | tr -d " \n"')" "" "tags when all is there"
on primary ftship check-config vm1
expect_code 4 init primary --size 50M --create-lvs

step "the other host makes the same, and each says what is next"
there=$(sed -n 's/^on the other host: //p' made)
# shellcheck disable=SC2086
on backup $there > there
expect_equal "$(on backup bash -c 'blockdev --getsize64 /dev/vg/vm1')" 54525952
for said in made there; do
    grep -qx 'then on both hosts: ftship keygen vm1; ftship pair vm1' $said || fail "$(cat $said)"
done
if grep "on the other host" there; then fail "the backup is told to make the primary"; fi
