#!/bin/bash
# lab: timeout=240
# A path that drops packets of full size, and says nothing: the reason names it. Once they pass the pair is in sync.
VOLUME_MB=8 LOG_SIZE="8 MiB"
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
make_volumes
device=$(on backup bash -c 'ip -o -4 addr show | awk "/10\.9\.0\.2/ { print \$2 }"')
# IP packets of 1024 to 2047 bytes.
on backup bash -c "tc qdisc add dev $device ingress &&
    tc filter add dev $device ingress protocol ip u32 match u16 0x0400 0xfc00 at 2 action drop"
start_daemons
step "it is named, and stays named"
said() { [[ $(status primary .reason) == *"small messages pass"*"MTU"* ]]; }
eventually 60 said
named() { [[ $(status primary .link_error) == *"small messages pass"* ]]; }
eventually 60 named
step "full packets pass again"
on backup tc qdisc del dev "$device" ingress
wait_state primary "in sync" 60
