#!/bin/bash
# Makes the volume group `vg` on a host's first disk and lets it reach the disk for good.
set -euo pipefail
vgcreate --quiet --yes vg /dev/vda
sync /dev/vda
