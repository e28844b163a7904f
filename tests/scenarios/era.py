#!/usr/bin/env python3
"""What the scenarios about eras do inside a host: random writes, comparisons, catching up.

write DEVICE SEED COUNT [RATE]     random direct writes of 4 KiB to 1 MiB, in clusters, never flushed
differ NAME META ERA...            ftdm's answer and era_invalidate's, for each era; a roll between them
record NAME ERA FILE               notes ftdm's answer, for `dumped` when the stack is gone
dumped META FILE                   what era_dump says of the metadata against the notes
golden META SNAPSHOT FILE COMMENT  the blocks of the metadata that dm-era itself can be read from, as text
catch-up NAME REPLICA STATE        copies what changed since the era in STATE, then notes the next era there
compare NAME REPLICA               fails, and says where, unless both have the same content
"""
import mmap
import os
import random
import re
import subprocess
import sys
import time

SECTOR = 512
CHUNK = 1 << 20


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def direct(path, flags):
    return os.open(path, flags | os.O_DIRECT)


def write(device, seed, count, rate=None):
    chance = random.Random(int(seed))
    fd = direct(device, os.O_WRONLY)
    size = os.lseek(fd, 0, os.SEEK_END)
    data = mmap.mmap(-1, CHUNK)
    data.write(chance.randbytes(CHUNK))
    centre = 0
    for n in range(int(count)):
        if n % 16 == 0:
            centre = chance.randrange(size // 4096)
        length = 4096 * chance.choice([1, 1, 1, 2, 5, 16, 256])
        near = (centre + chance.randrange(-64, 64)) * 4096
        offset = max(0, min(near, size - length))
        if n % 97 == 0:
            offset = size - length
        data[:8] = n.to_bytes(8, "little")
        os.pwritev(fd, [memoryview(data)[:length]], offset)
        if rate:
            time.sleep(1 / float(rate))
    os.close(fd)


def written_since(name, era):
    """The extents, as {(start, sectors)}, and the era to ask for next."""
    extents, following = [], None
    for line in run("ftdm", "written-since", name, str(era)).splitlines():
        first, second = line.split()
        if first == "next-era":
            following = int(second)
        elif first != "pause-us":
            extents.append((int(first), int(second)))
    return extents, following


def invalidated(meta, era, block, sectors):
    """What era_invalidate says of a metadata snapshot, in sectors of the volume."""
    text = run("era_invalidate", "--metadata-snapshot", "--written-since", str(era), meta)
    ranges = []
    for one, begin, end in re.findall(r'<block block="(\d+)"|<range begin="(\d+)" end ?= ?"(\d+)"', text):
        first, last = (int(one), int(one) + 1) if one else (int(begin), int(end))
        ranges.append((first * block, min(last * block, sectors) - first * block))
    return ranges


def differ(name, meta, *eras):
    _, sectors, _, _, _, block = run("ftdm", "table", name).split()
    for era in eras:
        ours, following = written_since(name, era)
        run("dmsetup", "message", name + "@era", "0", "take_metadata_snap")
        try:
            theirs = invalidated(meta, era, int(block), int(sectors))
        finally:
            run("dmsetup", "message", name + "@era", "0", "drop_metadata_snap")
        if ours != theirs:
            sys.exit(f"since {era}: ftdm says {ours}\nera_invalidate says {theirs}")
        print(f"since {era}: {len(ours)} extents, {sum(n for _, n in ours)} sectors, the same; next {following}")


def record(name, era, notes):
    _, sectors, _, _, _, block = run("ftdm", "table", name).split()
    extents, _ = written_since(name, era)
    with open(notes, "w") as file:
        print(era, sectors, block, *(f"{start}+{count}" for start, count in extents), file=file)


def dumped(meta, notes):
    era, sectors, block, *ours = open(notes).read().split()
    era, sectors, block = int(era), int(sectors), int(block)
    theirs = []
    for number, last in re.findall(r'<era block="(\d+)" era="(\d+)"', run("era_dump", "--logical", meta)):
        start = int(number) * block
        if int(last) < era:
            continue
        count = min(block, sectors - start)
        if theirs and sum(theirs[-1]) == start:
            theirs[-1] = (theirs[-1][0], theirs[-1][1] + count)
        else:
            theirs.append((start, count))
    theirs = [f"{start}+{count}" for start, count in theirs]
    if ours != theirs:
        sys.exit(f"since {era}: ftdm says {ours}\nera_dump says {theirs}")
    print(f"since {era}: {len(ours)} extents, the same as dumped")


def golden(meta, snapshot, path, *comment):
    fd = direct(meta, os.O_RDONLY)
    page = mmap.mmap(-1, 4096)
    blocks = {}

    def number(data, at, size):
        return int.from_bytes(data[at : at + size], "little")

    def keep(block):
        os.preadv(fd, [page], 4096 * block)
        blocks[block] = page[:]
        return blocks[block]

    def tree(root):
        node = keep(root)
        flags, entries, most, size = (number(node, at, 4) for at in (4, 16, 20, 24))
        for at in range(32 + 8 * most, 32 + 8 * most + entries * size, size):
            child = number(node, at + size - 8, 8)
            if flags == 2 and size == 8:
                keep(child)
            else:
                tree(child)

    clone = keep(int(snapshot))
    tree(number(clone, 200, 8))
    tree(number(clone, 208, 8))
    with open(path, "w") as file:
        print("#", *comment, file=file)
        print("snapshot", snapshot, file=file)
        for block, data in sorted(blocks.items()):
            for at in range(0, 4096, 32):
                row = data[at : at + 32].rstrip(b"\0")
                if row:
                    print(block, at, row.hex(), file=file)


def catch_up(name, replica, state):
    era = int(open(state).read()) if os.path.exists(state) else 0
    extents, following = written_since(name, era)
    source = direct("/dev/mapper/" + name, os.O_RDONLY)
    target = os.open(replica, os.O_WRONLY | os.O_CREAT)
    data = mmap.mmap(-1, CHUNK)
    for start, count in extents:
        offset, end = start * SECTOR, (start + count) * SECTOR
        while offset < end:
            length = min(CHUNK, end - offset)
            os.preadv(source, [memoryview(data)[:length]], offset)
            os.pwrite(target, memoryview(data)[:length], offset)
            offset += length
    os.fsync(target)
    with open(state + ".new", "w") as file:
        file.write(str(following))
    os.replace(state + ".new", state)
    print(f"since {era}: {len(extents)} extents copied; next {following}")


def compare(name, replica):
    source, offset, wrong = direct("/dev/mapper/" + name, os.O_RDONLY), 0, []
    data = mmap.mmap(-1, CHUNK)
    with open(replica, "rb") as copy:
        while length := os.preadv(source, [data], offset):
            other = copy.read(length)
            if data[:length] != other:
                wrong += [
                    (offset + at) // SECTOR
                    for at in range(0, length, 4096)
                    if data[at : at + 4096] != other[at : at + 4096]
                ]
            offset += length
    if wrong:
        sys.exit(f"{len(wrong)} pieces of 4 KiB changed and were not reported, at sectors {wrong[:20]}")
    print(f"{offset} bytes the same")


VERBS = {"write": write, "differ": differ, "record": record, "dumped": dumped, "golden": golden, "catch-up": catch_up, "compare": compare}
VERBS[sys.argv[1]](*sys.argv[2:])
