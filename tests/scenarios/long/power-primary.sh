#!/bin/bash
# lab: timeout=3600
# The same with more power cuts.
export ROUNDS=20
. "$(dirname "${BASH_SOURCE[0]}")/../power-primary.sh"
