#!/bin/bash
# 500 cuts under writers that overlap deliberately, flushes slowed: every epoch is what the volume was in its pause.
# lab: timeout=600 memory=1G
. "$(dirname "${BASH_SOURCE[0]}")/exact.bash"
slow_flushes vm1 8M 10
exact vm1 500
step "pauses that somebody else ends are void"
exact vm1 30 --resumed-behind
step "logical blocks of 4 KiB"
slow_flushes vm2 8M 5 4096
exact vm2 60
