#!/bin/bash
# What a configuration names the confined daemons may open: state and journal below /srv, a node that belongs to the user that the VM runs as.
# lab: timeout=900 root=debian
. "$(dirname "${BASH_SOURCE[0]}")/system.bash"
installed
for host in primary backup; do
    on $host bash -c 'mkdir /srv/ftdm && useradd --system vmuser && cat > /etc/udev/rules.d/99-vm.rules' << 'RULES'
SUBSYSTEM=="block", ENV{DM_NAME}=="vm1|vg-vm1", OWNER="vmuser", GROUP="nogroup", MODE="0600"
RULES
    on $host udevadm control --reload
done

step "both hosts keep state and journal in files below /srv"
on primary lvcreate -q -y -n vm1 -L 64M vg
there=$(on primary ftship init vm1 --volume /dev/vg/vm1 --address 10.9.0.1 --peer 10.9.0.2 --create-lvs | sed -n 's/^on the other host: //p')
# shellcheck disable=SC2086
on backup $there > /dev/null
mine=$(on primary ftship keygen vm1) theirs=$(on backup ftship keygen vm1)
on primary ftship pair vm1 --fingerprint "$theirs"
on backup ftship pair vm1 --fingerprint "$mine"
for host in primary backup; do
    on $host sed -i 's#/dev/vg/vm1_state#/srv/ftdm/state#; s#/dev/vg/vm1_journal"#/srv/ftdm/journal"\nsize = "32 MiB"#' /etc/ftdm/vm1.toml
    on $host ftship format vm1
    on $host ftship check-config vm1
    on $host systemctl enable --now ftdm.target ftship@vm1.service
done
in_sync primary
for host in primary backup; do
    expect_equal "$(on $host stat -c %U:%a "$(on $host readlink -f /dev/ftdm/vm1)")" vmuser:600
    expect_equal "$(on $host systemctl show -p NRestarts --value ftship@vm1)" 0
done
on primary bash -c 'mkfs.ext4 -q /dev/ftdm/vm1 && mount /dev/ftdm/vm1 /mnt && cd /mnt && echo kept > word && sha256sum word > sum && cd / && umount /mnt'
on primary ftship checkpoint vm1 --wait

step "after a reboot of both, and a failover, too"
for host in primary backup; do
    on $host systemctl poweroff || true
    eventually 120 power_on $host
    in_sync $host
done
power_off primary
on backup ftship promote vm1
checked backup
