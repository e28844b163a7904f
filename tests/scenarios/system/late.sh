#!/bin/bash
# What a host needs comes late, long after the daemon has given up waiting: volumes, the journal, an address, a key, a sound configuration. The pair gets in sync by itself.
# lab: timeout=1800 root=debian
. "$(dirname "${BASH_SOURCE[0]}")/system.bash"
installed
protected
for host in primary backup; do
    # Waits less for what is late, so that the scenario is short.
    on $host bash -c 'mkdir -p /etc/systemd/system/ftdm-setup@.service.d /etc/systemd/system/ftship@.service.d &&
        printf "[Service]\nExecStart=\nExecStart=/usr/sbin/ftship setup --wait 2 %%i\n" > /etc/systemd/system/ftdm-setup@.service.d/short.conf &&
        printf "[Service]\nRestartSec=1\n" > /etc/systemd/system/ftship@.service.d/short.conf && systemctl daemon-reload'
done
on primary bash -c 'mkfs.ext4 -q /dev/ftdm/vm1 && mount /dev/ftdm/vm1 /mnt && echo kept > /mnt/word && cd /mnt && sha256sum word > sum && cd / && umount /mnt'
on primary ftship checkpoint vm1 --wait

has_tried() { (($(on "$1" systemctl show -p NRestarts --value ftship@vm1) >= $2)); }
# tries_on HOST: it has failed so often that a limit of starts would have ended the attempts, and it is not over.
tries_on() {
    eventually 300 has_tried "$1" "${2-7}"
    on "$1" bash -c '! systemctl is-failed --quiet ftship@vm1 && ! systemctl is-active --quiet ftship@vm1'
}
# reboot HOST: and its volume $2 does not come by itself.
reboot_without() {
    on "$1" lvchange -q --setautoactivation n "vg/$2"
    settle "$1"
    on "$1" systemctl poweroff || true
    eventually 120 power_on "$1"
    on "$1" bash -c "lvchange -q -an vg/$2; ! test -e /dev/vg/$2"
}
comes() { on "$1" lvchange -q -ay "vg/$2"; }

for host in primary backup; do
    for volume in vm1_meta vm1; do
        step "$host boots without $volume, which comes later"
        reboot_without $host $volume
        tries_on $host
        comes $host $volume
        in_sync primary
        on $host systemctl is-active --quiet ftdm-setup@vm1 ftship@vm1 ftship-watchdog@vm1
        on $host lvchange -q --setautoactivation y vg/$volume
    done
done
checked primary

step "the backup boots without its journal"
reboot_without backup vm1_journal
tries_on backup
comes backup vm1_journal
in_sync primary

step "an address that comes late"
on backup ip address del 10.9.0.2/24 dev vec0
on backup systemctl restart --no-block ftship@vm1
tries_on backup
on backup ip address add 10.9.0.2/24 dev vec0
in_sync primary

step "a key that is not there yet"
on primary mv /etc/ftdm/vm1.key /root/
on primary systemctl restart --no-block ftship@vm1
tries_on primary
on primary mv /root/vm1.key /etc/ftdm/
in_sync primary

step "a configuration that is corrected"
on primary sed -i '1i nonsense = 1' /etc/ftdm/vm1.toml
on primary systemctl restart --no-block ftship@vm1
tries_on primary
on primary sed -i 1d /etc/ftdm/vm1.toml
in_sync primary

step "a person ends the attempts, and nobody else"
on backup mv /etc/ftdm/vm1.key /root/
on backup systemctl restart --no-block ftship@vm1
tries_on backup
on backup systemctl stop ftship@vm1
before=$(on backup systemctl show -p NRestarts --value ftship@vm1)
on backup mv /root/vm1.key /etc/ftdm/
sleep 10
# What was stopped between two attempts that failed is called `failed`.
[[ $(on backup systemctl is-active ftship@vm1 || true) == @(inactive|failed) ]] || fail "it goes on after a person has stopped it"
expect_equal "$(on backup systemctl show -p NRestarts --value ftship@vm1)" "$before"
on backup systemctl start ftship@vm1
in_sync primary
