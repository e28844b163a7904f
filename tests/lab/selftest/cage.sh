#!/bin/bash
# A host cannot write to the machine's files, nor see most of them.
probe=$LAB_DIR/probe
echo untouched > "$probe"
chmod 0666 "$probe"

step "the machine's folders cannot be written, not even when mounted again"
if [[ $LAB_BACKEND == uml ]]; then
    on primary bash -c 'mkdir -p /mnt/machine && mount -t hostfs -o / machine /mnt/machine'
    on primary mount -o remount,rw /mnt/machine
else
    # A 9p export has one mount at a time; /lab/bin is the part of it that can still be reached.
    on primary bash -c 'mkdir -p /mnt/machine/lab/bin && mount --bind /lab/bin /mnt/machine/lab/bin'
    on primary mount -o remount,rw,bind /mnt/machine/lab/bin
    on primary mount -o remount,rw /mnt/machine/lab/bin
fi
on primary bash -c '
    for folder in usr/local/bin etc var/tmp tmp lab/bin lab/sockets; do
        if echo x > /mnt/machine/$folder/lab-was-here; then
            echo "could write to /$folder"
            exit 1
        fi
    done' 2>/dev/null
for folder in /usr/local/bin /etc /var/tmp /tmp "$LAB_DIR/bin"; do
    [[ ! -e $folder/lab-was-here ]] || fail "$folder was written"
done

step "other folders of the machine are not there"
expect_fail on primary test -e "/mnt/machine$probe"
on primary bash -c '! ls /mnt/machine/proc/1/root/ > /dev/null 2>&1'
expect_equal "$(cat "$probe")" untouched

step "the kernel runs as nobody"
on primary touch /share/made-by-a-host
expect_equal "$(stat -c %u "$SHARE/made-by-a-host")" 65534
