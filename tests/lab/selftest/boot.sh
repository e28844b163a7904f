#!/bin/bash
# Two hosts boot with their volume group, their network, their name and the programs.
for host in primary backup; do
    step "$host is up"
    expect_equal "$(on $host uname -n)" $host
    expect_equal "$(on $host vgs --noheadings -o vg_name | tr -d ' ')" vg
    on $host lvcreate -q -n vol -L 64M vg
    on $host test -b /dev/vg/vol
    # The kernel blanks from a page of its own, which later user-mode-linux kernels do not share with the disk.
    on $host dd if=/dev/urandom of=/dev/vg/vol bs=1M count=8 oflag=direct status=none
    on $host blkdiscard -z /dev/vg/vol
    on $host cmp -n $((8 << 20)) /dev/vg/vol /dev/zero
    on $host lvremove -q -y vg/vol
    expect_fail on $host test -e /dev/vg/vol
    on $host which lab-agent
    on $host modprobe -a dm-era dm-log-writes brd dm-delay dm-flakey ext4 xfs loop dm-snapshot
    on $host grep -q 'mem\|MemTotal' /proc/meminfo
done
step "the hosts reach each other by name"
background backup bash -c 'echo hello | timeout 20 socat -u STDIN TCP-LISTEN:700 2>/dev/null ||
    timeout 20 python3 -c "
import socket
s = socket.create_server((\"\", 700)); c, _ = s.accept(); c.sendall(b\"hello\")"'
eventually 10 on primary bash -c 'read -r -t 5 line < /dev/tcp/backup/700 || true; test "$line" = hello'
wait_background

step "what is written outside the share is thrown away"
on primary bash -c 'echo x > /etc/throwaway; echo x > /usr/throwaway; mkdir /new'
test ! -e /etc/throwaway
power_off primary
power_on primary
expect_fail on primary test -e /etc/throwaway
