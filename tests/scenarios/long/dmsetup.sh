#!/bin/bash
# lab: timeout=1800
# `ftdm` stands where dmsetup stood: several hundred command lines have the same output, errors, exit code and devices.
# dmsetup runs them on one host and ftdm on the other, at the same time. (CASES=SECTION: only sections of that name.)
here=$(dirname "${BASH_SOURCE[0]}")/dmsetup
cp "$here/compare.py" "$here/cases" "$SHARE"
for host in primary backup; do
    on "$host" bash -c 'modprobe brd rd_nr=4 rd_size=65536 && modprobe dm-delay && modprobe dm-era'
done
background backup python3 /share/compare.py run dmsetup /share/cases /share/dmsetup "${CASES-}"
reference=$JOB
on primary python3 /share/compare.py run ftdm /share/cases /share/ftdm "${CASES-}"
wait_background "$reference"
python3 "$here/compare.py" diff "$SHARE/dmsetup" "$SHARE/ftdm"
