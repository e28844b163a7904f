#!/bin/bash
# A copy that only ever takes what `written-since` reports equals the volume, whatever power cuts undo.
# lab: timeout=300 disks=3
. "$(dirname "${BASH_SOURCE[0]}")/era.bash"

step "64 KiB blocks"
survive vm1 128 2 /dev/vdb 0
step "4 KiB blocks, slow writes"
survive vm2 8 2 /dev/vdc 100
