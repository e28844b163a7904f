#!/bin/bash
# A writable copy of what a promote would give, of a thin and a thick volume, while replication goes on: it is one
# committed epoch exactly, whatever is done to it harms nobody, and it goes again.
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
VOLUME_MB=16 SECOND_MB=16 POOL_MB=64 EPOCH=500ms
EXTRA='[audit]
digest-file = "/share/digests"
[watchdog]
timeout = "30s"
pause-timeout = "5s"
[limits]
pause-limit = "1s"'
make_group
start_daemons
wait_state primary "in sync" 60
background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 600 --rate 20
WRITER=$JOB
step "a copy of one epoch, exactly"
EPOCH_ASKED=$(on primary ftship checkpoint vm1 --wait)
read -r NAME EPOCH_COPIED _ THIN THICK < <(on backup ftship promote vm1 --test try)
expect_equal "$NAME" try
((EPOCH_COPIED >= EPOCH_ASKED)) || fail "the copy is of $EPOCH_COPIED, committed was $EPOCH_ASKED"
expect_equal "$(digest backup "$THIN")" "$(recorded "$EPOCH_COPIED")" "the thin copy of epoch $EPOCH_COPIED"
expect_equal "$(digest backup "$THICK")" "$(recorded "$EPOCH_COPIED" 2)" "the thick copy of epoch $EPOCH_COPIED"
step "it may be written to, and nobody else notices"
on backup dd if=/dev/zero of="$THIN" bs=1M count=2 oflag=direct status=none
expect_code 1 on backup ftship promote vm1 --test try
expect_code 4 on backup ftship promote vm1 --test 'a b'
expect_code 4 on primary ftship promote vm1 --test other
expect_equal "$(on backup ftship snapshots vm1 --json | jq -c '[.[] | [.name, .epoch]]')" "[[\"try\",$EPOCH_COPIED]]"
on primary ftship verify vm1
step "one in use stays; then it goes"
on backup bash -c "exec 9<> $THIN; ! ftship snapshots vm1 --remove try" 2> "$SHARE/refused"
grep -qi 'in use\|open' "$SHARE/refused" || fail "$(cat "$SHARE/refused")"
on backup ftship snapshots vm1 --remove try
expect_equal "$(on backup ftship snapshots vm1)" ""
is_state primary "in sync" || fail "replication has ended"
step "one that is not whole, as a daemon leaves it that is killed between two volumes, is said to be so, and goes"
read -r _ _ _ _ THICK < <(on backup ftship promote vm1 --test part)
on backup lvremove -q -y "${THICK#/dev/}"
on backup ftship snapshots vm1 | grep -q 'part.* INCOMPLETE$' || fail "$(on backup ftship snapshots vm1)"
on backup ftship promote vm1 --test whole
expect_equal "$(on backup ftship snapshots vm1 --json | jq -c '[.[] | [.name, .complete]]')" '[["whole",true]]'
on backup ftship snapshots vm1 --remove whole
step "two volumes of one size that changed places are noticed; promote"
kill_background "$WRITER" KILL
stop_backup
on backup sed -E -i '/^(name|device) = /{s/vm1"$/swapped"/;s/vm1_b"$/vm1"/;s/swapped"$/vm1_b"/}' /etc/ftdm/vm1.toml
expect_code 1 on backup ftship run vm1 2> "$SHARE/swapped"
grep -q 'is not the logical volume that holds volume 0' "$SHARE/swapped" || fail "$(cat "$SHARE/swapped")"
on backup cp /share/config/backup.toml /etc/ftdm/vm1.toml
on backup dmsetup create holder --table '0 2048 linear /dev/mapper/vm1 0'
expect_code 1 on backup ftship run vm1 2> "$SHARE/held"
grep -q 'in use' "$SHARE/held" || fail "$(cat "$SHARE/held")"
on backup dmsetup remove holder
start_backup
eventually 30 on backup ftship status vm1
promote
expect_equal "$(digest backup /dev/vg/vm1)" "$(recorded "$EPOCH_PROMOTED")" "volume of epoch $EPOCH_PROMOTED"
expect_code 4 on backup ftship promote vm1 --test late
