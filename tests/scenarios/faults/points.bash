# A pair in sync whose daemon can be stopped at every point, with writers on the volume.
# shellcheck shell=bash
VOLUME_MB=8 JOURNAL_MB=32 LOG_SIZE="16 MiB" EPOCH=150ms
EXTRA='[audit]
digest-file = "/share/digests"'
. "$LAB_REPOSITORY/tests/scenarios/pair.bash"
. "$LAB_REPOSITORY/tests/scenarios/watchdog.bash"
make_volumes
background backup ftship run vm1
BACKUP_JOB=$JOB
start_primary
wait_state primary "in sync" 60
write_on 40
