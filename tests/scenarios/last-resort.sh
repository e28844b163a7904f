#!/bin/bash
# lab: timeout=600
# The primary is gone, and something of the backup is damaged: eight sectors that cannot be read, in turn in a place of the
# journal that holds nothing, at the place where the next epoch would go, in either slot of the journal's superblock, in
# either slot of the state, and in an epoch; then the journal is missing, then the state is damaged in both slots. In each
# case the volume becomes usable, exactly as it is said, and a later start of the daemon knows that this host is the primary.
VOLUME_MB=8 JOURNAL_MB=32 EPOCH=100ms APPLY_DELAY=1m
EXTRA='[audit]
digest-file = "/share/digests"'
. "$LAB_REPOSITORY/tests/scenarios/pair.bash"

# punch NAME LV [SECTOR]: the device-mapper device NAME leads to the volume, but for eight sectors from there on.
punch() {
    on backup bash -c "at=${3--1} size=\$(blockdev --getsz /dev/vg/$2)
        dmsetup info $1 > /dev/null 2>&1 || dmsetup create $1 --notable
        {
            if ((at < 0)); then echo 0 \$size linear /dev/vg/$2 0; else
                if ((at > 0)); then echo 0 \$at linear /dev/vg/$2 0; fi
                echo \$at 8 error
                echo \$((at + 8)) \$((size - at - 8)) linear /dev/vg/$2 \$((at + 8))
            fi
        } | dmsetup load $1
        dmsetup suspend --noflush $1; dmsetup resume $1"
}

# exchange FROM TO: another device or file in the backup's configuration.
exchange() {
    sed -i "s|\"$1\"|\"$2\"|" "$SHARE/config/backup.toml"
    install_config backup
}

DEVICES="vm1 vm1_journal vm1_state"
# keep NAME / put_back NAME: the backup's volumes as they are.
keep() { for lv in $DEVICES; do on backup dd if="/dev/vg/$lv" of="/share/$1.$lv" bs=1M iflag=direct status=none; done; }
put_back() {
    for lv in $DEVICES; do
        on backup dd if="/share/$1.$lv" of="/dev/vg/$lv" bs=1M oflag=direct conv=notrunc,fsync status=none
    done
}

is_up() { on backup ftship status vm1 > /dev/null 2>&1; }

# run_backup: its daemon, which is to come up.
run_backup() {
    start_backup
    eventually 30 is_up
}

# expect_epoch EPOCH WHAT: the volume is exactly that epoch.
expect_epoch() { expect_equal "$(digest backup /dev/vg/vm1)" "$(recorded "$1")" "$2: the volume at epoch $1"; }

# accept WHAT [OPTION...]: the last resort; what it prints goes to EPOCH_PROMOTED, what it says to $SHARE/said.
accept() {
    local what=$1
    shift
    EPOCH_PROMOTED=$(on backup ftship promote vm1 --accept-loss --yes "$@" 2> "$SHARE/said") \
        || fail "$what: refused: $(cat "$SHARE/said")"
    sed 's/^/    /' "$SHARE/said"
}
says() { grep -q "$1" "$SHARE/said" || fail "it does not say: $1"; }
says_not() { ! grep -q "$1" "$SHARE/said" || fail "it says: $1"; }

# expect_primary WHAT: the daemon knows that this host is the primary, now and after another start, and the volume is usable.
expect_primary() {
    local time
    for time in first second; do
        run_backup
        expect_equal "$(status backup .role)" primary "$1: the role at the $time start"
        expect_equal "$(status backup .generation)" "${2-2}" "$1: the generation at the $time start"
        on backup dd if=/dev/zero of=/dev/mapper/vm1 bs=4k count=4 oflag=direct conv=notrunc,fsync status=none
        stop_backup
    done
}

make_volumes
for lv in vm1_journal vm1_state; do
    punch "bad-$lv" "$lv"
    exchange "/dev/vg/$lv" "/dev/mapper/bad-$lv"
done
start_daemons
wait_state primary "in sync" 60
for _ in 1 2 3 4; do
    on primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 1 --rate 50 > /dev/null
    LAST=$(on primary ftship checkpoint vm1 --wait)
done
power_off primary
stop_backup
on backup ftship journal vm1 > "$SHARE/journal.txt"
HELD=$(on backup ftship journal vm1 --json | jq .applied)
((HELD < LAST)) || fail "everything is applied: $HELD of $LAST"
keep filled
# An epoch in the middle, that of its first data frame.
DATA=$(($(on backup ftship journal vm1 --json | jq '[.epochs[] | select(.state == "committed")] | .[length / 2 | floor].offset') / 512 + 8))

step "everything applied"
sed -i 's/apply-delay = .*/apply-delay = "0s"/' "$SHARE/config/backup.toml"
install_config backup
run_backup
is_applied() { (($(status backup .epochs.applied) == LAST)); }
eventually 60 is_applied
stop_backup
keep applied
END=$(($(on backup ftship journal vm1 --json | jq .end.offset) / 512))

# sound_enough NAME LV SECTOR REPORTED: the daemon starts beside the hole, reports it, and promotes as ever.
sound_enough() {
    step "unreadable: $1"
    put_back applied
    punch "bad-$2" "$2" "$3"
    local code=0
    on backup ftship journal vm1 --check > "$SHARE/check.txt" || code=$?
    expect_equal "$code" "$4" "$1: the exit code of the check"
    run_backup
    if [[ $4 != 0 ]]; then
        status backup '.warnings[]' | tee "$SHARE/warnings.txt"
        grep -q "bad-$2.*unreadable" "$SHARE/warnings.txt" || fail "$1: the status does not report it"
        grep -q unreadable "$SHARE/check.txt" || fail "$1: the check does not report it"
    fi
    EPOCH_PROMOTED=$(on backup ftship promote vm1)
    stop_backup
    expect_equal "$EPOCH_PROMOTED" "$LAST" "$1: the epoch of an ordinary promote"
    expect_epoch "$LAST" "$1"
    # The same without a daemon.
    put_back applied
    accept "$1"
    says "exactly epoch $LAST"
    says "no epoch that this host acknowledged is lost"
    says_not MIXTURE
    expect_equal "$EPOCH_PROMOTED" "$LAST" "$1: the epoch of the last resort"
    expect_epoch "$LAST" "$1"
    expect_primary "$1"
    punch "bad-$2" "$2"
}
sound_enough "a place of the ring that holds nothing" vm1_journal $((2048 + 40000)) 0
sound_enough "where the next epoch would go" vm1_journal "$END" 0
sound_enough "slot a of the superblock" vm1_journal 0 7
sound_enough "slot b of the superblock" vm1_journal 128 7
sound_enough "slot a of the state" vm1_state 0 7
sound_enough "slot b of the state" vm1_state 128 7

step "unreadable: an epoch that is not applied"
put_back filled
punch bad-vm1_journal vm1_journal "$DATA"
expect_code 7 on backup ftship journal vm1 --check
run_backup
expect_code 4 on backup ftship promote vm1
expect_code 4 on backup ftship promote vm1 --accept-loss --yes
stop_backup
put_back filled
expect_code 4 on backup ftship promote vm1 --accept-loss < /dev/null
accept "an epoch"
says "exactly epoch $EPOCH_PROMOTED"
says "epochs $((EPOCH_PROMOTED + 1)) to $LAST, which were acknowledged"
((EPOCH_PROMOTED >= HELD && EPOCH_PROMOTED < LAST)) || fail "promoted at $EPOCH_PROMOTED"
expect_epoch "$EPOCH_PROMOTED" "an epoch is lost"
expect_primary "an epoch is lost"
punch bad-vm1_journal vm1_journal

step "the journal is missing"
put_back applied
exchange /dev/mapper/bad-vm1_journal /dev/mapper/gone
on backup ftship run vm1 2> "$SHARE/said" && fail "it runs without a journal"
says "ftship promote vm1 --accept-loss"
accept "no journal"
says "MIXTURE POSSIBLE"
expect_epoch "$LAST" "no journal"
expect_primary "no journal"

step "the state cannot be read"
exchange /dev/mapper/gone /dev/mapper/bad-vm1_journal
put_back applied
on backup bash -c 'for at in 0 16; do dd if=/dev/urandom of=/dev/vg/vm1_state bs=4096 seek=$at count=1 oflag=direct conv=notrunc status=none
    printf FTDMSLOT | dd of=/dev/vg/vm1_state bs=1 seek=$((at * 4096)) conv=notrunc,fsync status=none; done'
on backup ftship run vm1 2> "$SHARE/said" && fail "it runs without a state"
says "ftship promote vm1 --accept-loss"
accept "no state"
says "nothing is known of what the volumes hold"
expect_epoch "$LAST" "no state"
expect_primary "no state" 1

step "a state that the device does not take: another one is made"
put_back applied
punch bad-vm1_state vm1_state 0
on backup bash -c 'dd if=/dev/urandom of=/dev/vg/vm1_state bs=4096 seek=16 count=2 oflag=direct conv=notrunc,fsync status=none'
on backup mkdir -p /var/lib/ftdm
exchange /dev/mapper/bad-vm1_state /var/lib/ftdm/new.state
accept "a new state"
says "will be made"
expect_primary "a new state" 1

step "the old primary comes back: it may have what was lost, so nothing is overwritten unasked"
is_split() { is_state backup "split brain" && is_state primary "split brain"; }
is_synced() { is_state backup "in sync" && is_state primary "in sync"; }
exchange /var/lib/ftdm/new.state /dev/mapper/bad-vm1_state
punch bad-vm1_state vm1_state
put_back filled
punch bad-vm1_journal vm1_journal "$DATA"
accept "an epoch, once more"
punch bad-vm1_journal vm1_journal
run_backup
boot primary
background primary ftship run vm1
eventually 60 is_split

step "its epochs are given up: this side's content counts"
on primary ftship resolve vm1 --discard-mine
eventually 120 is_synced
expect_equal "$(status primary .role)" backup "what the old primary is"
expect_equal "$(digest primary /dev/vg/vm1)" "$(digest backup /dev/vg/vm1)" "the two volumes"
