#!/bin/bash
# Wrong input to `ftship`: clear answers, the documented exit codes, nothing changed.
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
VOLUME_MB=32
step "no configuration, no daemon, no such verb"
expect_code 2 on primary ftship run nothing
expect_code 3 on primary ftship status vm1
expect_code 2 on primary ftship status 'bad/name'
expect_code 2 on primary ftship frobnicate
expect_code 2 on primary ftship
expect_code 0 on primary ftship --help
config primary primary 10.9.0.1 10.9.0.2
expect_fail on primary ftship run vm1
expect_code 4 on primary ftship pair vm1
expect_code 2 on primary ftship pair vm1 --fingerprint SHA256:short
step "states and journals that are in use"
make_volumes
expect_code 4 on primary ftship format vm1
expect_code 4 on backup ftship format vm1
on backup mkfs.ext4 -q -F /dev/vg/vm1_journal
expect_code 4 on backup ftship format vm1
on backup e2fsck -fn /dev/vg/vm1_journal
expect_fail on backup ftship run vm1
on backup ftship format --force vm1
on backup mkfs.ext4 -q -F /dev/mapper/vm1
on backup mount /dev/mapper/vm1 /mnt
expect_fail on backup ftship run vm1
on backup umount /mnt
step "a second daemon"
start_daemons
wait_state primary "in sync" 60
expect_fail on primary ftship run vm1
expect_fail on backup ftship run vm1
wait_state primary "in sync"
step "garbage at the port and at the control socket"
on backup bash -c 'head -c 100000 /dev/urandom > /dev/tcp/10.9.0.2/7789' || true
on primary bash -c 'echo GET / > /dev/tcp/10.9.0.2/7789' || true
on primary python3 - <<'PYTHON'
import socket
for line in [b"{}\n", b"nonsense\n", b'{"verb": "explode"}\n', b"x" * 100000]:
    s = socket.socket(socket.AF_UNIX)
    s.connect("/run/ftdm/vm1.sock")
    try:
        s.sendall(line)
        print(s.recv(1000))
    except (BrokenPipeError, ConnectionResetError) as e:
        print(e)
PYTHON
step "a client of the control socket that says no more at once is answered"
on primary python3 - <<'PYTHON'
import json, socket
s = socket.socket(socket.AF_UNIX)
s.connect("/run/ftdm/vm1.sock")
s.sendall(b'{"verb": "checkpoint", "wait": true}\n{"verb": "status"}\n')
s.shutdown(socket.SHUT_WR)
answers = [json.loads(line) for line in s.makefile("rb")]
assert [list(answer) for answer in answers] == [["checkpoint"], ["status"]], answers
PYTHON
on primary ftship checkpoint vm1 --wait
wait_state primary "in sync"
turned_away=$(job_errors "$BACKUP_JOB" | grep -c 'turned away: what arrives is not TLS')
expect_equal "$turned_away" 2 "lines for two addresses with garbage"
step "who may ask the daemon: root everything, the users of a group the status, others nothing"
as_user() { on backup setpriv --reuid=1000 --regid=1000 "$1" ftship "${@:2}" vm1; }
expect_code 10 as_user --clear-groups status
stop_backup
on backup sed -i '1i control-group = "operator"' /etc/ftdm/vm1.toml
operators=$(on backup getent group operator | cut -d: -f3)
start_backup
wait_state primary "in sync"
expect_code 10 as_user --clear-groups status
as_user "--groups=$operators" status > /dev/null
expect_code 10 as_user "--groups=$operators" promote
wait_state primary "in sync"
step "a backup whose volume is smaller"
stop_backup
on backup ftdm remove vm1
on backup lvreduce -q -f -y -L -4M vg/vm1
on backup dd if=/dev/zero of=/dev/vg/vm1_meta bs=4k count=1 oflag=direct conv=fsync status=none
make_stack backup vm1 $((VOLUME_MB - 4))
on backup ftship format --force vm1
start_backup
refused() { status primary .link_error | grep -q "sectors"; }
eventually 30 refused
status primary .link_error
