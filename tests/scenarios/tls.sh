#!/bin/bash
# lab: timeout=180
# The transport is TLS between two keys that were pinned: nothing is replicated before both are, a key is exchanged
# for another without copying the volume anew, a wrong one is refused by name, and so is plaintext.
VOLUME_MB=32 EXTRA=$'[limits]\ntimeout = "2s"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"

# Patterns, but for the plus signs of keys.
said_by() { job_errors "$1" | grep -E "${2//+/\\+}" > /dev/null; }
link_error() { status primary .link_error | grep -E "${1//+/\\+}" > /dev/null; }

step "keys that are not pinned: nothing is replicated, and both sides say what to do"
make_volumes
for host in primary backup; do on "$host" mv /etc/ftdm/vm1.pins /etc/ftdm/vm1.kept; done
start_daemons
backup_key=$(on backup ftship keygen vm1 --show) primary_key=$(on primary ftship keygen vm1 --show)
eventually 30 said_by "$PRIMARY_JOB" 'no key is trusted'
eventually 30 link_error "$backup_key is not pinned here"
on primary mv /etc/ftdm/vm1.kept /etc/ftdm/vm1.pins
eventually 30 link_error "not pinned this host's key.*$primary_key"
eventually 30 said_by "$BACKUP_JOB" "10.9.0.1:.* turned away: its key $primary_key is not pinned here"

step "ftship pair, while both daemons run"
expect_code 4 on backup bash -c 'echo no | ftship pair vm1'
said=$(on backup bash -c 'echo yes | ftship pair vm1 2> /share/pair.log')
expect_equal "$said" "$primary_key" "the key that was shown and pinned"
wait_state primary "in sync" 60
expect_equal "$(status primary .peer_key)" "$backup_key" "the key that the status shows"
on backup ftship keygen vm1 > /dev/null 2>&1 && fail "a key was made over another"

step "the backup's key is exchanged for another; the connection stands, and later only what changed is copied"
synced() { status primary '.primary.last_sync | [.base, .bytes] | @tsv'; }
write() { on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=64k count=4 seek="$1" oflag=direct status=none; }
write 16
on primary ftship checkpoint vm1 --wait > /dev/null
next=$(on backup ftship keygen vm1 --rotate)
on primary ftship pair vm1 --fingerprint "$next"
expect_equal "$(on backup ftship keygen vm1 --activate)" "$next"
is_state primary "in sync" || fail "the connection that stood was disturbed"
link down
wait_state primary degraded
write 32
link up
wait_state primary "in sync" 60
read -r base bytes <<< "$(synced)"
echo "   after the rotation: copied $bytes bytes of $((VOLUME_MB << 20)), from epoch $base on"
((base > 0 && bytes < 4 << 20)) || fail "the volume was copied anew"
on primary ftship pair vm1 --forget "$backup_key"
on primary ftship checkpoint vm1 --wait > /dev/null

step "the key that was given up is refused, though it is a proper one"
stop_backup
on backup install -m 600 /share/config/backup.key /etc/ftdm/vm1.key
start_backup
eventually 30 link_error "$backup_key is not pinned here"
is_state primary "in sync" && fail "replicates to a key that is not trusted"

step "plaintext: refused on a network until it is said twice, and then by the other side"
stop_backup
on backup sed -i '1i tls = "off"' /etc/ftdm/vm1.toml
expect_code 2 on backup ftship run vm1
on backup sed -i '1i tls-off-on-a-network = true' /etc/ftdm/vm1.toml
start_backup
eventually 30 said_by "$BACKUP_JOB" 'tls = "off"'
eventually 30 said_by "$BACKUP_JOB" '10.9.0.1:.*it speaks TLS'
is_state primary "in sync" && fail "plaintext was spoken"
stop_backup
on backup sed -i '/^tls/d' /etc/ftdm/vm1.toml

step "the link is cut in the middle of handshakes; then all is as before"
on backup bash -c 'rm /etc/ftdm/vm1.key; ftship keygen vm1 > /share/newest'
on primary ftship pair vm1 --fingerprint "$(cat "$SHARE/newest")"
for ((n = 0; n < 2; n++)); do
    start_backup
    eventually 30 on backup test -S /run/ftdm/vm1.sock
    link down
    stop_backup
    link up
done
start_backup
wait_state primary "in sync" 60
epoch=$(on primary ftship checkpoint vm1 --wait)
digest=$(digest primary /dev/mapper/vm1)
promote
((EPOCH_PROMOTED >= epoch)) || fail "acknowledged epoch $epoch is lost: promoted at epoch $EPOCH_PROMOTED"
expect_equal "$(digest backup /dev/vg/vm1)" "$digest" "volume of epoch $EPOCH_PROMOTED"
