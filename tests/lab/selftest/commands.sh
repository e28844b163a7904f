#!/bin/bash
# Exit codes, output, input and arguments of commands come through as they are.
step "exit codes"
expect_code 7 on primary sh -c 'exit 7'
expect_code 127 on primary no-such-command
expect_code 143 on primary sh -c 'kill -TERM $$'

step "output and errors apart"
expect_equal "$(on primary sh -c 'echo out; echo err >&2' 2>/dev/null)" out
expect_equal "$(on primary sh -c 'echo out; echo err >&2' 2>&1 >/dev/null)" err

step "arguments are not interpreted"
expect_equal "$(on primary printf '[%s]' 'a b' '' '$HOME' "it's" $'two\nlines' '*')" "[a b][][\$HOME][it's][two
lines][*]"

step "input, also much of it, also binary"
expect_equal "$(on primary cat <<< hello)" hello
head -c 300000 /dev/urandom > "$SHARE/random"
on primary cat < "$SHARE/random" | cmp - "$SHARE/random"
on backup cmp - /share/random < "$SHARE/random"

step "much output, and a reader that goes away"
expect_equal "$(on primary head -c 5000000 /dev/zero | wc -c)" 5000000
on primary yes 2>/dev/null | head -n 1 || true
eventually 5 expect_fail on primary pgrep -x yes

step "several commands at once on both hosts"
for n in 1 2 3 4 5 6; do
    on primary sh -c "sleep 0.5; seq $n 20000" > "$LAB_DIR/primary.$n" &
    on backup sh -c "sleep 0.5; seq $n 20000" > "$LAB_DIR/backup.$n" &
done
begun=$SECONDS
wait
((SECONDS - begun < 20)) || fail "the commands did not run side by side"
for n in 1 2 3 4 5 6; do
    seq $n 20000 | cmp - "$LAB_DIR/primary.$n"
    seq $n 20000 | cmp - "$LAB_DIR/backup.$n"
done

step "a daemon that is left behind does not hold up its starter"
begun=$SECONDS
on primary sh -c 'sleep 30 & echo started'
((SECONDS - begun < 10)) || fail "waited for the daemon"
on primary pgrep -x sleep
