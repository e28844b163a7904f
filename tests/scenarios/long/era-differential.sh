#!/bin/bash
# The differential test of eras on volumes up to 1 TiB, with blocks of 4 KiB to 1 MiB.
# lab: timeout=5400 disk-size=1400G memory=1536M
. "$(dirname "${BASH_SOURCE[0]}")/../era.bash"

step "1 TiB in blocks of 1 MiB"
make_tracked coarse 1T 2048
rounds coarse 2048 500
on primary lvremove -q -y vg/coarse vg/coarse_meta
step "1 TiB in blocks of 64 KiB"
make_tracked usual 1T 128
rounds usual 128 500
on primary lvremove -q -y vg/usual vg/usual_meta
step "64 GiB in blocks of 4 KiB"
make_tracked fine 64G 8
rounds fine 8 500
