#!/bin/bash
# lab: timeout=2400 memory=1G
# Every write that the backup makes to its volume, journal and state is recorded by dm-log-writes while epochs
# arrive and are applied. Then, for each flush, what a power cut there would have left, whole and with a random
# part of the next writes, is given to a daemon: it promotes to exactly one recorded epoch, and none that was
# acknowledged by then is missing.
TLS=off BARE_BACKUP=yes VOLUME_MB=8 JOURNAL_MB=16 LOG_SIZE="16 MiB" EPOCH=150ms APPLY_DELAY=300ms
SECONDS_OF_WRITES=${SECONDS_OF_WRITES-5} SEEDS=${SEEDS-2}
EXTRA='[audit]
digest-file = "/share/digests"'
. "$LAB_REPOSITORY/tests/scenarios/pair.bash"
make_volumes
# One device below all three, so that one log has all writes and flushes in their order: 8 MiB of volume,
# 16 of journal, 1 of state.
SECTORS=$((25 * 2048))
on backup lvcreate -q -y -W n -n all -L 28M vg
on backup lvcreate -q -y -W n -n replayed -L 28M vg
on backup lvcreate -q -y -W n -n writes -L 512M vg
on backup lvcreate -q -y -W n -n change -L 64M vg
on backup bash -c 'dd if=/dev/zero of=/dev/vg/all bs=1M status=none; dd if=/dev/zero of=/dev/vg/replayed bs=1M status=none; sync'
# parts PREFIX DEVICE: the three, on a device.
cat > "$SHARE/parts" <<'PARTS'
echo "0 16384 linear $2 0" | dmsetup create "$1-volume"
echo "0 32768 linear $2 16384" | dmsetup create "$1-journal"
echo "0 2048 linear $2 49152" | dmsetup create "$1-state"
PARTS
on backup bash -c "dd if=/dev/zero of=/dev/vg/writes bs=1M count=1 oflag=direct status=none
    echo 0 $SECTORS log-writes /dev/vg/all /dev/vg/writes | dmsetup create logged
    bash /share/parts logged /dev/mapper/logged"
sed -i 's|"/dev/vg/vm1_journal"|"/dev/mapper/logged-journal"|; s|"/dev/vg/vm1_state"|"/dev/mapper/logged-state"|
    s|"/dev/vg/vm1"|"/dev/mapper/logged-volume"|' "$SHARE/config/backup.toml"
install_config backup
on backup ftship format vm1
start_daemons
wait_state primary "in sync" 90
mark() { on backup dmsetup message logged 0 mark "$*"; }
mark in-sync
background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 600 --rate 40
WRITERS=$JOB
end=$((SECONDS + SECONDS_OF_WRITES))
while ((SECONDS < end)); do
    mark "acknowledged-$(on primary ftship checkpoint vm1 --wait)"
done
kill_background "$WRITERS"
stop_backup
kill_background "$PRIMARY_JOB" TERM
wait_background "$PRIMARY_JOB" || true
on backup bash -c 'dmsetup remove logged-volume logged-journal logged-state logged'

on backup ftdm-workload points /dev/vg/writes /dev/vg/all --from in-sync > "$SHARE/points"
step "$(wc -l < "$SHARE/points") flushes, $(wc -l < "$SHARE/digests") recorded epochs"
sed 's|/dev/mapper/logged-|/dev/mapper/cut-|' "$SHARE/config/backup.toml" > "$SHARE/config/cut.toml"
# Runs on the backup: a line `POINT SEED ACKNOWLEDGED EPOCH DIGEST` for each cut.
cat > "$SHARE/cuts" <<'CUTS'
set -eu
sectors=$1 seeds=$2 last=0
while read -r point acknowledged; do
    ftdm-workload replay /dev/vg/writes /dev/vg/replayed --from "$last" --to "$point" > /dev/null
    last=$point
    for ((seed = 0; seed <= seeds; seed++)); do
        dd if=/dev/zero of=/dev/vg/change bs=64k count=1 oflag=direct status=none
        echo "0 $sectors snapshot /dev/vg/replayed /dev/vg/change N 8" | dmsetup create cut
        if ((seed > 0)); then
            ftdm-workload replay /dev/vg/writes /dev/mapper/cut --from "$point" --to "$point" \
                --seed $((seed * 1000 + point)) > /dev/null
        fi
        bash /share/parts cut /dev/mapper/cut
        ftship run /share/config/cut.toml 2> /share/cut.log &
        daemon=$!
        for ((try = 0; try < 600; try++)); do
            if epoch=$(ftship promote vm1 2> /share/promote.log); then break; fi
            if ! kill -0 $daemon; then break; fi
            epoch=none
            sleep 0.05
        done
        digest=$(dd if=/dev/mapper/cut-volume iflag=direct bs=1M status=none | sha256sum | cut -d' ' -f1)
        echo "$point $seed $acknowledged ${epoch:-none} $digest"
        kill $daemon || true
        wait $daemon || true
        dmsetup remove cut-volume cut-journal cut-state
        dmsetup remove cut
    done
done < /share/points
CUTS
on backup bash /share/cuts "$SECTORS" "$SEEDS" > "$SHARE/results" || fail "$(cat "$SHARE/cut.log" "$SHARE/promote.log")"
cuts=0 previous=0
while read -r point seed acknowledged epoch digest; do
    cuts=$((cuts + 1))
    where="the cut at flush $point, seed $seed"
    [[ $epoch != none ]] || fail "$where: not promotable: $(cat "$SHARE/promote.log")"
    ((epoch >= acknowledged)) || fail "$where: epoch $epoch, but $acknowledged was acknowledged"
    expect_equal "$digest" "$(recorded "$epoch" | tail -n 1)" "$where: volume of epoch $epoch"
    if ((seed == 0)); then
        ((epoch >= previous)) || fail "$where: epoch $epoch after $previous"
        previous=$epoch
    fi
done < "$SHARE/results"
((cuts >= 20)) || fail "only $cuts cuts"
echo "$cuts cuts, each exactly one of $(awk '{ print $4 }' "$SHARE/results" | sort -u | wc -l) epochs, up to $previous"
