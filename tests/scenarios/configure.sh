#!/bin/bash
# From one logical volume to a pair in sync by `ftship init` and `ftship setup`; a reload; an end that loses nothing.
# lab: timeout=180
# shellcheck source=tests/scenarios/pair.bash
source "$LAB_REPOSITORY/tests/scenarios/pair.bash"

on primary lvcreate -q -y -W n -n vm1 -L 64M vg
wishes=(vm1 --volume /dev/vg/vm1 --address 10.9.0.1 --peer 10.9.0.2 --create-lvs)

step "nothing is made by a dry run, and nothing that exists is touched"
expect_code 2 on primary ftship init vm1 --volume /dev/vg/vm1 --address 10.9.0.1 < /dev/null
on primary ftship init "${wishes[@]}" --dry-run | grep '^# lvcreate --name vm1_journal' > /dev/null
on primary bash -c '! ls /etc/ftdm/vm1.toml /dev/vg/vm1_* 2>/dev/null'
on primary lvcreate -q -y -W n -n vm1_state -L 4M vg
expect_code 4 on primary ftship init "${wishes[@]}"
on primary bash -c '! ls /etc/ftdm/vm1.toml /dev/vg/vm1_meta 2>/dev/null'
on primary lvremove -q -y vg/vm1_state

step "both hosts, as init says"
there=$(on primary ftship init "${wishes[@]}" | sed -n 's/^on the other host: //p')
expect_code 4 on primary ftship init "${wishes[@]}"
on primary cp /etc/ftdm/vm1.peer /share/vm1.peer
# shellcheck disable=SC2086
on backup $there
on backup cmp /etc/ftdm/vm1.toml /share/vm1.peer
for host in primary backup; do
    on $host ftship check-config
done
step "a kernel whose release does not show what it has is refused with the key that allows it; not for what is there"
# Its modules would not be found under another release: they are loaded before.
on primary ftship setup vm1 > /dev/null
on primary ftship setup vm1 --remove
old() { on primary setarch x86_64 --uname-2.6 ftship "$@" 2>&1; }
said=$(old setup vm1) && fail "setup took a kernel that calls itself 2.6"
grep 'allow-kernel = true' <<< "$said" > /dev/null
grep 'allow-kernel = true' <<< "$(old check-config vm1)" > /dev/null
on primary sed -i '1a allow-kernel = true' /etc/ftdm/vm1.toml
expect_equal "$(old check-config vm1)" "/etc/ftdm/vm1.toml: sound, group vm1"
grep '^/dev/mapper/vm1$' <<< "$(old setup vm1)" > /dev/null
on primary sed -i '2d' /etc/ftdm/vm1.toml
expect_equal "$(old setup vm1)" ""
on primary ftship setup vm1 --remove
for host in primary backup; do
    expect_equal "$(on $host ftship setup vm1 --wait 5)" /dev/mapper/vm1
    expect_equal "$(on $host ftship setup vm1)" ""
done
make_keys
start_daemons
wait_state primary "in sync" 60

step "what can change live does; what cannot is named; what is wrong changes nothing"
on primary sed -i 's/^epoch = .*/epoch = "1s"/; s/10.9.0.2:7789/10.9.0.2:7790/' /etc/ftdm/vm1.toml
expect_equal "$(on primary ftship reload vm1)" $'epoch: in force\npeer: needs a restart of the daemon'
expect_equal "$(status primary .primary.epoch_ms)" 1000
expect_equal "$(status primary .state)" "in sync"
on primary sed -i 's/^epoch = .*/epoch = "1ms"/' /etc/ftdm/vm1.toml
expect_code 4 on primary ftship reload vm1 2> reload.txt
grep -q 'vm1.toml:7: `epoch`: "1ms" is not between' reload.txt
on primary sed -i 's/^epoch = .*/epoch = "1h"/; s/10.9.0.2:7790/10.9.0.2:7789/' /etc/ftdm/vm1.toml
kill_background "$PRIMARY_JOB" HUP
epoch_is() { [[ $(status primary .primary.epoch_ms) == "$1" ]]; }
eventually 20 epoch_is 3600000

step "a daemon that is stopped commits a last epoch first"
on primary ftship checkpoint vm1 --wait
on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=1M count=3 seek=7 oflag=direct conv=fsync status=none
kill_background "$PRIMARY_JOB" TERM
wait_background "$PRIMARY_JOB" || fail "the daemon did not stop cleanly"
promote
expect_equal "$(digest backup /dev/vg/vm1)" "$(digest primary /dev/vg/vm1)" "the backup's volume"
stop_backup
for host in primary backup; do
    on $host ftship setup vm1 --remove
    on $host bash -c '! test -e /dev/mapper/vm1'
done
