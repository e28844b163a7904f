#!/bin/bash
# A copy that only ever takes what `written-since` reports equals the volume, whatever power cuts undo.
# lab: timeout=300
. "$(dirname "${BASH_SOURCE[0]}")/era.bash"

step "64 KiB blocks"
survive vm1 128 2
step "4 KiB blocks"
survive vm2 8 2
