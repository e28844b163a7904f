#!/bin/bash
# lab: timeout=300
# Journal and state as files on ext4: made whole by `ftship format`, durable across power cuts; sparse, small and
# shrinking files are refused; a full file system does no harm once they are made.
. "$LAB_REPOSITORY/tests/scenarios/faults/backup.bash"
make_volumes
on backup lvcreate -q -y -W n -n files -L 96M vg
on backup mkfs.ext4 -q -m 0 /dev/vg/files
mount_files() { on backup bash -c "mkdir -p /srv/ftdm && mount /dev/vg/files /srv/ftdm"; }
mount_files
settle backup
exchange /dev/vg/vm1_journal /srv/ftdm/journal
exchange /dev/vg/vm1_state /srv/ftdm/state

step "what is refused"
expect_code 4 on backup ftship format vm1
sed -i 's|^apply-delay|size = "32 MiB"\napply-delay|' "$SHARE/config/backup.toml"
install_config backup
on backup truncate -s 32M /srv/ftdm/journal
expect_code 4 on backup ftship format vm1
on backup bash -c "rm /srv/ftdm/journal; head -c 8M /dev/zero > /srv/ftdm/journal"
expect_fail on backup ftship format vm1
expect_fail on backup test -e /srv/ftdm/state
on backup bash -c "rm /srv/ftdm/journal; head -c 70M /dev/zero > /srv/ftdm/filler"
expect_fail on backup ftship format vm1
expect_fail on backup test -e /srv/ftdm/journal
on backup rm /srv/ftdm/filler

step "made whole; there after a power cut at once"
on backup ftship format vm1
power_off backup
power_on backup
mount_files
install_config backup
on backup bash -c '[[ $(stat -c "%s" /srv/ftdm/journal) == 33554432 ]] &&
    (($(stat -c "%b * %B" /srv/ftdm/journal) >= 33554432))'
expect_code 4 on backup ftship format vm1
expect_code 0 on backup ftship journal vm1 --check

step "in sync on a full file system, then the power is cut"
on backup bash -c "dd if=/dev/zero of=/srv/ftdm/filler bs=64k status=none || sync"
start_daemons
wait_state primary "in sync" 60
follow
background primary ftdm-workload churn /dev/mapper/vm1 --seed "$LAB_SEED" --seconds 900 --rate 60
for round in 1 2; do
    sleep 1
    acknowledged=$(on primary ftship checkpoint vm1 --wait)
    if ((round == 1)); then power_off backup; else power_off backup --keep-random "$LAB_SEED"; fi
    power_on backup
    mount_files
    install_config backup
    start_backup
    eventually 30 is_up
    expect_promoted "$acknowledged" "round $round"
    renew_backup
done

step "a journal that shrinks"
on backup truncate -s 20M /srv/ftdm/journal
wait_state backup failed
status backup .reason | grep -q "33554432 bytes long" || fail "it says: $(status backup .reason)"
wait_state primary degraded
restart_killed_fails() {
    kill_background "$BACKUP_JOB" KILL
    wait_background "$BACKUP_JOB" || true
    expect_fail on backup ftship run vm1
    expect_code 7 on backup ftship journal vm1 --check
}
restart_killed_fails
