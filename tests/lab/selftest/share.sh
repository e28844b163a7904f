#!/bin/bash
# The share is one folder for the scenario and both hosts, and survives power cuts.
echo from-outside > "$SHARE/file"
for host in primary backup; do
    expect_equal "$(on $host head -n 1 /share/file)" from-outside
    on $host bash -c "echo from-$host >> /share/file"
done
expect_equal "$(tr '\n' ' ' < "$SHARE/file")" "from-outside from-primary from-backup "

step "an open file's content is outside at once, and survives a power cut"
on primary bash -c 'exec 9> /share/log; echo first >&9; sleep 100' & writer=$!
eventually 5 grep -qs first "$SHARE/log"
power_off primary
expect_code $LAB_HOST_LOST wait $writer
expect_equal "$(cat "$SHARE/log")" first
expect_equal "$(on backup cat /share/log)" first

step "changes from outside are seen"
echo changed > "$SHARE/file"
expect_equal "$(on backup cat /share/file)" changed
rm "$SHARE/file"
expect_fail on backup test -e /share/file
