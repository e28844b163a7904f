#!/bin/sh
# First process of a QEMU host: loads what is needed for the machine's files, makes them the root
# and goes on with init.sh there, as user-mode-linux does at once.
export PATH=/bin
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod "$module"; done
# Nothing in the machine's files changes while a host runs, so they may be cached.
mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 machine /machine
exec switch_root /machine /lab/bin/init.sh
