#!/bin/bash
# The cage: the part of the machine that a host's kernel can see.
#
# Runs as process 1 of its own mount and process namespaces. It builds a small root
# of read-only bind mounts in which nothing but the share can be written, then runs
# the kernel ("$@") in it as an unprivileged user. Guarantees:
#  - nothing outlives process 1 of the namespace: not the kernel, not its helpers, no mount;
#  - when descriptor 5 (the lifeline, whose other end the driver holds) closes, all of it dies.
#
# Environment: CAGE (folder for the root), LAB_BIN (programs for the hosts), LAB_SOCKETS
# (the disks' sockets), KERNEL_FOLDER (a folder with a kernel and its modules, or empty), SHARE,
# MEMORY_MIB.
set -euo pipefail

mount --make-rprivate /
mount -t tmpfs -o "size=$((MEMORY_MIB + 64))m,mode=0755" cage "$CAGE"
cd "$CAGE"

show() { # show SOURCE NAME [rw]: makes the folder SOURCE visible as NAME
    mkdir -p "./$2"
    mount --bind "$1" "./$2"
    if [[ ${3-ro} == ro ]]; then mount -o remount,bind,ro,nosuid,nodev "./$2"; fi
}

for name in bin sbin lib lib32 lib64 libx32; do
    if [[ -L /$name ]]; then
        cp -a "/$name" .
    elif [[ -d /$name ]]; then
        show "/$name" "$name"
    fi
done
for name in usr etc var opt; do show "/$name" "$name"; done
show "$LAB_BIN" lab/bin
show "$LAB_SOCKETS" lab/sockets
if [[ -n $KERNEL_FOLDER ]]; then show "$KERNEL_FOLDER" lab/kernel; fi
show "$SHARE" share rw
mkdir -p dev proc sys run tmp root home mnt srv media boot lab/overlay lab/memory
for name in null zero random urandom; do
    touch "dev/$name"
    mount --bind "/dev/$name" "dev/$name"
done
mount -t proc proc proc
chmod 0777 lab/memory
mount -o remount,ro,size="$((MEMORY_MIB + 64))m" . 2>/dev/null || true

# User-mode-linux keeps its memory in an unlinked file in TMPDIR: a tmpfs of the cage.
mount -t tmpfs -o "size=$((MEMORY_MIB + 64))m,mode=0777,nosuid,nodev" memory lab/memory

env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/lab/memory TMPDIR=/lab/memory \
    chroot --userspec=65534:65534 --groups=65534 "$CAGE" "$@" &
kernel=$!
{
    read -r -u 5 || true
    kill -KILL "$kernel"
} &
status=0
wait "$kernel" || status=$?
exit "$status"
