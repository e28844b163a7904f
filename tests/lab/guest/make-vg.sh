#!/bin/bash
# Makes the volume group `vg` on a host's first disk and lets it reach the disk for good.
set -euo pipefail
disk=/dev/vda
if [[ -b /dev/nullb0 ]]; then disk=/dev/nullb0; fi
vgcreate --quiet --yes vg "$disk"
sync "$disk"
