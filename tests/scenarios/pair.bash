# What scenarios share: a protected volume `vm1` on two hosts, from nothing to in sync.
# shellcheck shell=bash

VOLUME_MB=${VOLUME_MB-64}
JOURNAL_MB=${JOURNAL_MB-64}
LOG_SIZE=${LOG_SIZE-"32 MiB"}
EPOCH=${EPOCH-50ms}
DISCARDS=${DISCARDS-off}
META_B=${META_B-/dev/vg/vm1_b_meta}  # dm-era's metadata of the second volume
POOL_MB=${POOL_MB-}  # the volumes are thin ones, in a pool of this size
SECOND_MB=${SECOND_MB-}  # the group has a second volume `vm1_b` of this size
POLICY=${POLICY-}  # top-level TOML for both: commit, ack
EXTRA=${EXTRA-}  # further TOML for both configurations
TLS=${TLS-required}  # `off`: the two speak without it
BARE_BACKUP=${BARE_BACKUP-}  # the backup has no stack: it writes to its logical volume

# config HOST ROLE ADDRESS PEER: writes /etc/ftdm/vm1.toml there.
config() {
    local tls=""
    if [[ $TLS == off ]]; then tls=$'tls = "off"\ntls-off-on-a-network = true'; fi
    mkdir -p "$SHARE/config"
    cat > "$SHARE/config/$1.toml" <<TOML
group = "vm1"
role = "$2"
address = "$3:7789"
peer = "$4:7789"
state = "/dev/vg/vm1_state"
epoch = "$EPOCH"
$tls
$POLICY

[[volume]]
name = "vm1"
device = "/dev/vg/vm1"
discards = "$DISCARDS"

${SECOND_MB:+[[volume]]
name = \"vm1_b\"
device = \"/dev/vg/vm1_b\"
}
[journal]
device = "/dev/vg/vm1_journal"
apply-delay = "${APPLY_DELAY-500ms}"

[log]
size = "$LOG_SIZE"

$EXTRA
TOML
    install_config "$1"
}

# install_config HOST: what is in the share of its configuration and keys; nothing of it outlives a boot.
install_config() {
    on "$1" bash -c "install -D -m 644 /share/config/$1.toml /etc/ftdm/vm1.toml
        for file in key pins; do
            if [[ -e /share/config/$1.\$file ]]; then install -m 600 /share/config/$1.\$file /etc/ftdm/vm1.\$file; fi
        done"
}

# make_keys: each host has a key, and trusts that of the other.
make_keys() {
    if [[ $TLS == off ]]; then return; fi
    mkdir -p "$SHARE/config"
    local make='ftship keygen vm1 && install -m 600 /etc/ftdm/vm1.key' a b
    a=$(on primary bash -c "$make /share/config/primary.key")
    b=$(on backup bash -c "$make /share/config/backup.key")
    trust primary "$b"
    trust backup "$a"
}

# trust HOST KEY
trust() {
    on "$1" bash -c "ftship pair vm1 --fingerprint $2 && install -m 600 /etc/ftdm/vm1.pins /share/config/$1.pins" > /dev/null
}

# make_volume HOST: the protected volume, or its copy.
make_volume() {
    if [[ -n $POOL_MB ]]; then
        on "$1" lvcreate -q -y -L "${POOL_MB}M" -T vg/pool
        on "$1" lvcreate -q -y -V "${VOLUME_MB}M" -T vg/pool -n vm1
    else
        on "$1" lvcreate -q -y -W n -n vm1 -L "${VOLUME_MB}M" vg
    fi
}

# make_meta HOST NAME: room for what dm-era keeps of a volume.
make_meta() { on "$1" lvcreate -q -y -W n -n "$2_meta" -L 16M vg; }

# make_stack HOST NAME MB [META DISCARDS]: /dev/mapper/NAME over vg/NAME, as it has to be made after each boot.
make_stack() {
    local meta=${4-/dev/vg/$2_meta}
    on "$1" ftdm create "$2" --table "0 $(($3 * 2048)) ft $meta /dev/vg/$2 128" --discards "${5-$DISCARDS}"
}

# make_volumes: logical volumes, stacks, formatted states and journals, on both hosts alike.
make_volumes() {
    config primary primary 10.9.0.1 10.9.0.2
    config backup backup 10.9.0.2 10.9.0.1
    make_keys
    local host
    for host in primary backup; do
        make_volume "$host"
        make_meta "$host" vm1
        on "$host" lvcreate -q -y -W n -n vm1_journal -L "${JOURNAL_MB}M" vg
        on "$host" lvcreate -q -y -W n -n vm1_state -L 4M vg
        if [[ $host == primary || -z $BARE_BACKUP ]]; then make_stack "$host" vm1 "$VOLUME_MB"; fi
        on "$host" ftship format vm1
    done
}

# make_group: the same with a second volume.
make_group() {
    make_volumes
    local host
    for host in primary backup; do
        on "$host" lvcreate -q -y -W n -n vm1_b -L "${SECOND_MB}M" vg
        make_meta "$host" vm1_b
    done
    if [[ $META_B != /dev/vg/* ]]; then
        on primary dmsetup create "${META_B##*/}" --table "0 32768 linear /dev/vg/vm1_b_meta 0"
    fi
    make_stack primary vm1_b "$SECOND_MB" "$META_B" off
    if [[ -z $BARE_BACKUP ]]; then make_stack backup vm1_b "$SECOND_MB" /dev/vg/vm1_b_meta off; fi
}

# boot HOST: powers it on, and makes what does not outlive its kernel.
boot() {
    power_on "$1"
    install_config "$1"
    make_stack "$1" vm1 "$VOLUME_MB"
    if [[ -n $SECOND_MB ]]; then make_stack "$1" vm1_b "$SECOND_MB" /dev/vg/vm1_b_meta off; fi
}

# status HOST FILTER: one field of the status, by jq.
status() { on "$1" ftship status vm1 --json | jq -r "$2"; }

is_state() { [[ $(status "$1" .state 2>/dev/null) == "$2" ]]; }

# wait_state HOST STATE [SECONDS]
wait_state() { eventually "${3-30}" is_state "$1" "$2"; }

start_backup() {
    background backup env "FTDM_BREAK=${FTDM_BREAK-}" ftship run vm1
    BACKUP_JOB=$JOB
}

stop_backup() {
    kill_background "$BACKUP_JOB" TERM
    wait_background "$BACKUP_JOB" || fail "the backup's daemon did not stop cleanly"
}

# renew_backup: forgets what the backup holds; the primary then syncs it anew.
renew_backup() {
    stop_backup
    on backup ftship format --force vm1
    start_backup
    wait_state primary "in sync" 60
}

# start_daemons: both daemons in the background; sets PRIMARY_JOB and BACKUP_JOB.
start_daemons() {
    start_backup
    background primary env "FTDM_BREAK=${FTDM_BREAK-}" ftship run vm1
    PRIMARY_JOB=$JOB
}

# protect: from nothing to in sync.
protect() {
    make_volumes
    start_daemons
    wait_state primary "in sync" 60
}

# digest HOST DEVICE: SHA-256 of its content, past the page cache.
digest() {
    on "$1" bash -c "dd if=$2 iflag=direct bs=1M status=none | sha256sum | cut -d' ' -f1"
}

# promote: promotes the backup; sets EPOCH_PROMOTED.
promote() { EPOCH_PROMOTED=$(on backup ftship promote vm1); }

# promote_recorded_after EPOCH: promotes the backup; it holds that epoch or a later one, and exactly what
# was recorded of it.
promote_recorded_after() {
    promote
    ((EPOCH_PROMOTED >= $1)) || fail "acknowledged epoch $1 is lost: promoted at epoch $EPOCH_PROMOTED"
    expect_equal "$(digest backup /dev/vg/vm1)" "$(recorded "$EPOCH_PROMOTED")" "volume of epoch $EPOCH_PROMOTED"
}

# recorded EPOCH [VOLUME]: the digest that the primary recorded of that volume, counted from 1, in the pause of
# that epoch's cut. A cut that was thrown away, because the link went in its pause, leaves a line too: the last one counts.
recorded() {
    awk -v epoch="$1" -v field="$((${2-1} + 1))" '$1 == epoch { digest = $field } END { print digest }' "$SHARE/digests"
}
