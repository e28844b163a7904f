#!/bin/bash
# What a system call, a context switch, a page fault, a hash and the like cost on each host of this back end.
# lab: timeout=600 memory=1G backends=uml,qemu,icount
for host in primary backup; do
    on "$host" ftdm-workload costs > "$SHARE/costs.$host.json"
    echo "$host"
    jq -r 'to_entries[] | "  \(.key)  \(.value * 100 | round / 100) us"' "$SHARE/costs.$host.json"
done
