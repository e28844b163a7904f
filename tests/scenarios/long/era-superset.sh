#!/bin/bash
# Many power cuts under writers and rolls: the copy that takes what `written-since` reports equals the volume.
# lab: timeout=3600 disks=4
. "$(dirname "${BASH_SOURCE[0]}")/../era.bash"

step "4 KiB blocks"
survive vm1 8 8 /dev/vdb 0
step "64 KiB blocks, slow writes"
survive vm2 128 8 /dev/vdc 100
step "blocks of 24 sectors, slow writes"
survive vm3 24 8 /dev/vdd 20
