#!/bin/bash
# A backup whose journal takes longer to read than systemd waits for a start: it says how far it is, and starts.
# lab: timeout=900 root=debian
. "$(dirname "${BASH_SOURCE[0]}")/system.bash"
installed
protected

step "a journal on a device that is going to be slow, and epochs that stay in it"
# table DELAY: of the device; a read takes so many milliseconds.
table() { on backup bash -c 'dev=/dev/vg/vm1_journal; echo "0 $(blockdev --getsz $dev) delay $dev 0 '"$1"' $dev 0 0"'; }
on backup systemctl stop ftship@vm1
on backup modprobe dm-delay
on backup dmsetup create slow --table "$(table 0)"
on backup bash -c 'sed -i "s#/dev/vg/vm1_journal#/dev/mapper/slow#; /^\[journal\]/a apply-delay = \"60s\"" /etc/ftdm/vm1.toml &&
    mkdir -p /etc/systemd/system/ftship@.service.d && cd /etc/systemd/system/ftship@.service.d &&
    printf "[Service]\nRestart=no\nTimeoutStartSec=12\n" > short.conf && systemctl daemon-reload && systemctl start ftship@vm1'
in_sync primary
on primary bash -c 'dd if=/dev/urandom of=/dev/ftdm/vm1 bs=1M count=40 oflag=direct status=none && ftship checkpoint vm1 --wait'
expect_equal "$(on backup bash -c 'ftship status vm1 --json | jq ".epochs.committed > .epochs.applied"')" true "epochs wait in the journal"
on backup systemctl kill --signal=KILL ftship@vm1
eventually 20 on backup bash -c '! systemctl is-active --quiet ftship@vm1'

step "it starts, in longer than the 12 s that it has"
on backup dmsetup suspend slow
on backup dmsetup reload slow --table "$(table 2000)"
on backup dmsetup resume slow
background backup systemctl start ftship@vm1
start=$JOB begun=$SECONDS
eventually 60 on backup bash -c 'systemctl show -p StatusText --value ftship@vm1 | grep "^reading the journal: .* MiB so far, of .* at most"'
wait_background "$start" || fail "it did not start: $(on backup journalctl -b -u ftship@vm1 --no-pager -n 20)"
((SECONDS - begun > 12)) || fail "it took only $((SECONDS - begun)) s: nothing was shown"
on backup bash -c 'journalctl -b -u ftship@vm1 --no-pager | grep -o "more in the journal; then.*"'
on backup dmsetup suspend slow
on backup dmsetup reload slow --table "$(table 0)"
on backup dmsetup resume slow
in_sync primary
on primary ftship verify vm1
