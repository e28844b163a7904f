#!/bin/bash
# lab: timeout=300
# Hosts by names and link-local addresses: a name is looked up at each attempt to connect, so a peer that moves is found again.
VOLUME_MB=32 JOURNAL_MB=32 LOG_SIZE="16 MiB"
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
start_primary() {
    background primary ftship run vm1
    PRIMARY_JOB=$JOB
}
make_volumes

# named HOST ADDRESS NAME: on HOST only this name leads to that address.
named() { on "$1" bash -c "sed '/ $3\$/d' /etc/hosts > /run/hosts; echo '$2 $3' >> /run/hosts; cat /run/hosts > /etc/hosts"; }
step "names, in the configuration of both"
named primary 10.9.0.2 the-backup
named backup 10.9.0.1 the-primary
config primary primary 10.9.0.1 the-backup
config backup backup "[::]" the-primary
start_backup
start_primary
wait_state primary "in sync" 60
expect_equal "$(status primary .peer)" the-backup:7789

step "the backup gets another address, and later its name leads there"
# move ADDRESS: the backup is there, and nowhere else.
move() {
    on backup bash -c "ip address flush dev vec0 scope global && ip address add $1/24 dev vec0"
    wait_state primary degraded 60
}
move 10.9.0.22
named primary 10.9.0.22 the-backup
wait_state primary "in sync" 90

step "a name that leads nowhere for a while, and one with two addresses of which one answers"
on primary bash -c "sed '/the-backup/d' /etc/hosts > /run/hosts; cat /run/hosts > /etc/hosts"
move 10.9.0.2
eventually 60 on primary bash -c 'ftship status vm1 --json | jq -r .link_error | grep -q "the-backup:7789: looking it up"'
on primary bash -c "printf '10.9.0.99 the-backup\n10.9.0.2 the-backup\n' >> /etc/hosts"
wait_state primary "in sync" 90

if ! on primary test -e /proc/sys/net/ipv6; then
    echo "this kernel has no IPv6: no link-local addresses"
    exit 0
fi
step "link-local addresses with an interface"
kill_background "$PRIMARY_JOB" TERM
wait_background "$PRIMARY_JOB"
local_address() { on "$1" bash -c "ip -6 -o address show dev vec0 scope link | grep -o 'fe80[^/]*'"; }
for host in primary backup; do
    on $host bash -c 'ip -6 -o address show dev vec0 scope link | grep -q fe80 || ip address add fe80::$((RANDOM % 9000 + 1))/64 dev vec0 nodad'
done
config primary primary "[$(local_address primary)%vec0]" "[$(local_address backup)%vec0]"
on primary ftship check-config vm1
start_primary
wait_state primary "in sync" 60
expect_equal "$(status primary .peer)" "[$(local_address backup)%vec0]:7789"
