#!/bin/bash
# A host with a root disk boots systemd and udevd, and keeps what is written to it.
# lab: timeout=300 root=debian
on primary systemctl is-system-running --wait || true
on primary systemctl list-units --failed --no-pager
on primary systemd-analyze
on primary systemd-analyze blame --no-pager | head -20
on primary lvcreate -q -n x -L 64M vg
on primary ls -la /dev/vg /dev/mapper
on primary touch /root/kept
settle primary
on primary sync
power_off primary
power_on primary
on primary ls /root/kept
on primary lvs
