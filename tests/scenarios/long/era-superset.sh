#!/bin/bash
# Many power cuts under writers and rolls: the copy that takes what `written-since` reports equals the volume.
# lab: timeout=3600
. "$(dirname "${BASH_SOURCE[0]}")/../era.bash"

step "4 KiB blocks"
survive vm1 8 8
step "64 KiB blocks"
survive vm2 128 8
step "blocks of 24 sectors"
survive vm3 24 8
