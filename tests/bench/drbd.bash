# DRBD 8.4 between the lab's two hosts, over the logical volume `drbd` of each: the peer that figures are
# compared with.
# shellcheck shell=bash

DRBD_PATIENCE="ping-int 2; connect-int 1; timeout 9;"
DRBD_CONNECTS=30
declare -A DRBD_PATIENCE_OF=([primary]=$DRBD_PATIENCE [backup]=$DRBD_PATIENCE)
# A second of a primary that counts instructions is up to a minute of the backup's, which must not take it for silent:
# there the backup waits as long as DRBD lets it.
if [[ $LAB_BACKEND == icount ]]; then
    DRBD_PATIENCE_OF[backup]="ping-int 120; ping-timeout 300; connect-int 120; timeout 600;" DRBD_CONNECTS=300
fi

# make_drbd SIZE_MB: the resource `r0`, connected and in sync, /dev/drbd0 primary on the primary.
make_drbd() {
    local host
    for host in primary backup; do
        drbd_resource "$host" "${2-C}" > "$SHARE/r0.$host.res"
        on "$host" lvcreate -q -y -W n -n drbd -L "$1M" vg
        drbd_up "$host" create
    done
    eventually "$DRBD_CONNECTS" on primary grep -q 'cs:Connected' /proc/drbd
    # Both are blank: nothing has to be copied.
    on primary drbdadm new-current-uuid --clear-bitmap r0
    on primary drbdadm primary r0
    eventually 60 drbd_in_sync primary
}

# drbd_resource HOST PROTOCOL: its description, as that host has it.
drbd_resource() {
    cat <<RES
resource r0 {
    device /dev/drbd0;
    disk /dev/vg/drbd;
    meta-disk internal;
    net { protocol $2; max-buffers 8000; max-epoch-size 8000; ${DRBD_PATIENCE_OF[$1]} after-sb-0pri discard-zero-changes; after-sb-1pri discard-secondary; }
    disk { on-io-error detach; c-plan-ahead 0; resync-rate 1G; al-extents 1237; }
    on primary { address 10.9.0.1:7790; }
    on backup { address 10.9.0.2:7790; }
}
RES
}

# drbd_up HOST [create]: loads the module and brings the resource up.
drbd_up() {
    on "$1" modprobe drbd usermode_helper=/bin/true
    on "$1" bash -c "hostname $1; mkdir -p /etc/drbd.d /var/lib/drbd; printf 'global { usage-count no; }\ninclude \"/share/r0.$1.res\";\n' > /etc/drbd.conf"
    if [[ -n ${2-} ]]; then on "$1" drbdadm create-md --force r0 > "$SHARE/drbd.log" 2>&1 || { cat "$SHARE/drbd.log"; on "$1" drbdadm dump; return 1; }; fi
    on "$1" drbdadm up r0
}

drbd_in_sync() { on "${1-primary}" grep -q 'ds:UpToDate/UpToDate' /proc/drbd; }

# drbd_protocol A|B|C: from now on.
drbd_protocol() {
    sed -i "s/protocol [ABC];/protocol $1;/" "$SHARE"/r0.*.res
    on primary drbdadm adjust r0
    on backup drbdadm adjust r0
    eventually 60 drbd_in_sync primary
}

# drbd_sent: KiB sent over the network by the primary since it was brought up, as /proc/drbd counts.
drbd_sent() { on "${1-primary}" sed -nE 's/.*ns:([0-9]+).*/\1/p' /proc/drbd; }
