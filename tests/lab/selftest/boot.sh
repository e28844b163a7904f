#!/bin/bash
# Two hosts boot with their volume group, their network and each other's name.
for host in primary backup; do
    step "$host is up"
    expect_equal "$(on $host uname -n)" $host
    expect_equal "$(on $host vgs --noheadings -o vg_name | tr -d ' ')" vg
    on $host lvcreate -q -n vol -L 64M vg
    on $host test -b /dev/vg/vol
done
step "programs are on the path"
on primary which lab-agent
