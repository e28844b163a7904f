#!/bin/bash
# Hosts with a Debian root of their own: systemd boots it, it stays over a power cut, and nothing of ftdm is in it.
# lab: timeout=600 root=debian
for host in primary backup; do
    step "$host boots systemd"
    expect_equal "$(on $host cat /proc/1/comm)" systemd
    expect_equal "$(on $host uname -n)" $host
    eventually 60 on $host systemctl is-active --quiet systemd-udevd systemd-journald
    expect_equal "$(on $host systemctl list-units --failed --no-legend)" ""
    expect_equal "$(on $host vgs --noheadings -o vg_name | tr -d ' ')" vg
    expect_fail on $host bash -c 'command -v ftship || command -v ftdm'
    on $host test -w /share
done
step "a root is its host's own, and stays over a power cut"
on primary bash -c 'echo kept > /etc/kept && sync'
expect_fail on backup test -e /etc/kept
power_off primary
power_on primary
expect_equal "$(on primary cat /etc/kept)" kept
expect_equal "$(on primary cat /proc/1/comm)" systemd
expect_equal "$(on backup uname -n)" backup
