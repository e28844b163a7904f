#!/bin/bash
# Recovery points on the backup: thin snapshots of committed epochs at an interval, the oldest removed, each exact.
. "$(dirname "${BASH_SOURCE[0]}")/../pair.bash"
VOLUME_MB=16 POOL_MB=128 EPOCH=500ms
EXTRA='[audit]
digest-file = "/share/digests"
[snapshots]
every = "4s"
keep = 2
[watchdog]
timeout = "30s"
pause-timeout = "5s"
[limits]
pause-limit = "1s"'
points() { on backup ftship snapshots vm1 --json | jq -r '.[].epoch'; }
has_point_after() { (($(points | tail -n 1) > $1)); }

protect
background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 600 --rate 20
WRITER=$JOB
step "points come"
has_points() { (($(points | wc -l) == 2)); }
eventually 90 has_points
FIRST=$(points | head -n 1)
step "and the oldest goes"
is_gone() { ! points | grep -qx "$FIRST"; }
eventually 90 is_gone
(($(points | wc -l) <= 3)) || fail "$(points)"
step "one in use keeps no other one"
read -r NAME POINT _ DEVICE < <(on backup ftship snapshots vm1 | head -n 1)
on backup lvchange -ay -K "${DEVICE#/dev/}"
background backup bash -c "exec 9< $DEVICE; sleep 600"
HOLDER=$JOB
reported() { status backup '.warnings[]' | grep -q "$NAME stays"; }
eventually 90 reported
NEXT=$(points | sed -n 2p)
next_is_gone() { ! points | grep -qx "$NEXT"; }
eventually 90 next_is_gone
points | grep -qx "$POINT" || fail "the one in use is gone"
kill_background "$HOLDER" KILL
wait_background "$HOLDER" || true
on backup lvchange -an "${DEVICE#/dev/}"
goes_too() { ! points | grep -qx "$POINT"; }
eventually 90 goes_too
step "a point is its epoch, exactly"
kill_background "$WRITER" KILL
stop_backup
eventually 10 has_points
read -r NAME POINT _ DEVICE < <(on backup ftship snapshots vm1 | tail -n 1)
on backup lvchange -ay -K "${DEVICE#/dev/}"
expect_equal "$(digest backup "$DEVICE")" "$(recorded "$POINT")" "$NAME"
on backup lvchange -an "${DEVICE#/dev/}"
on backup ftship snapshots vm1 --remove "$NAME"
expect_equal "$(points | wc -l)" 1
