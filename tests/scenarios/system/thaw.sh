#!/bin/bash
# A guest that a hook froze goes on after each kind of end of the daemon: the whole service killed, out of memory, silent to systemd, unable to start again.
# lab: timeout=1500 root=debian
. "$(dirname "${BASH_SOURCE[0]}")/system.bash"
installed
protected 600s

step "interval mode, with hooks that freeze a mounted file system"
on primary bash -c 'cat > /usr/local/sbin/freeze <<"HOOK"
#!/bin/bash
mountpoint -q /mnt || exit 0
fsfreeze -f /mnt || exit 1
touch /run/ftdm/held
while test -e /run/ftdm/hang; do sleep 0.1; done
HOOK
cat > /usr/local/sbin/thaw <<"HOOK"
#!/bin/bash
mountpoint -q /mnt || exit 0
echo "$FTDM_GROUP $FTDM_EPOCH" >> /run/ftdm/thawed
rm -f /run/ftdm/held
fsfreeze -u /mnt 2> /dev/null || true
HOOK
chmod 755 /usr/local/sbin/{freeze,thaw}'
for host in primary backup; do on $host sed -i '1i mode = "interval"' /etc/ftdm/vm1.toml; done
on primary bash -c 'printf "\n[hooks]\nfreeze = [\"/usr/local/sbin/freeze\"]\nthaw = [\"/usr/local/sbin/thaw\"]\ntimeout = \"60s\"\n" >> /etc/ftdm/vm1.toml'
on primary bash -c 'mkdir -p /etc/systemd/system/ftship@vm1.service.d && cd /etc/systemd/system/ftship@vm1.service.d &&
    printf "[Service]\nWatchdogSec=5\nTimeoutAbortSec=1\n" > short.conf && systemctl daemon-reload'
for host in primary backup; do on $host systemctl restart ftship@vm1; done
in_sync primary
on primary bash -c 'mkfs.ext4 -q /dev/ftdm/vm1 && mount /dev/ftdm/vm1 /mnt'

frozen() { on primary test -e /run/ftdm/vm1.frozen -a -e /run/ftdm/held; }
# freeze: the guest is frozen, and a writer waits.
freeze() {
    on primary bash -c 'touch /run/ftdm/hang; rm -f /run/ftdm/wrote'
    background primary ftship checkpoint vm1
    eventually 30 frozen
    on primary bash -c '(dd if=/dev/zero of=/mnt/probe bs=4k count=1 conv=fsync status=none; touch /run/ftdm/wrote) > /dev/null 2>&1 &
        sleep 1; ! test -e /run/ftdm/wrote'
}
# goes_on WHAT SECONDS: long before the hooks' own time-out, which is 60 s.
goes_on() {
    eventually "${2-20}" on primary bash -c 'test -e /run/ftdm/wrote && ! test -e /run/ftdm/vm1.frozen' || {
        on primary journalctl -b -u ftship@vm1 --no-pager -n 40
        fail "$1: the guest stays frozen"
    }
    on primary rm -f /run/ftdm/hang
}

step "all of the service is killed, and its configuration is refused from then on"
freeze
on primary bash -c 'cp /etc/ftdm/vm1.toml /root/ && echo nonsense >> /etc/ftdm/vm1.toml'
on primary systemctl kill --kill-who=all --signal=KILL ftship@vm1
goes_on "killed"
on primary grep -q '^vm1 [1-9]' /run/ftdm/thawed
on primary bash -c 'cp /root/vm1.toml /etc/ftdm/ && systemctl reset-failed ftship@vm1; systemctl restart ftship@vm1'
in_sync primary

step "the daemon is silent: systemd ends it"
freeze
on primary systemctl kill --kill-who=main --signal=STOP ftship@vm1
goes_on "silent"
eventually 30 on primary bash -c 'journalctl -b -u ftship@vm1 | grep -q "Watchdog timeout"'
in_sync primary

step "the daemon is out of memory"
if on primary grep -qw memory /sys/fs/cgroup/cgroup.controllers; then
    freeze
    on primary systemctl set-property --runtime ftship@vm1 MemoryMax=2M
    on primary bash -c 'pid=$(systemctl show -p MainPID --value ftship@vm1); for ((i = 0; i < 300; i++)); do
        [[ -e /proc/$pid ]] || exit 0; timeout 1 ftship status vm1 > /dev/null 2>&1; sleep 0.1; done; exit 1'
    goes_on "out of memory"
    on primary systemctl set-property --runtime ftship@vm1 MemoryMax=infinity
    in_sync primary
else
    echo "this kernel has no limits of memory"
fi

step "stopped by a person: thawed before it ends"
freeze
on primary systemctl stop ftship@vm1
goes_on "stopped" 2
on primary systemctl start ftship@vm1
in_sync primary
