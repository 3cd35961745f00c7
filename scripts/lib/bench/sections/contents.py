"""the same work below an entry and in a plain directory beside the cache, with kernel passthrough and without"""

import os
import random
import subprocess
import time

from bench.caches import make_cache
from bench.mounts import Mount, command, ext4, timed

ENTRY = "e00000000"
BIG = 1 << 30
SMALL = 10_000
MANY = 100_000
RANDOM = 20_000
BLOCK = bytes(1 << 20)


def settle(mount=None):
    """Nothing is left to be written, and the daemon has done what it was last told."""
    subprocess.run(["sync"], check=True)
    if mount is None:
        return
    before = None
    while before != (before := mount.ticks()):
        time.sleep(0.1)


def forget():
    """Makes the kernel forget names and attributes of all file systems."""
    with open("/proc/sys/vm/drop_caches", "w") as drop:
        drop.write("2")


def write_big(directory):
    file = os.open(os.path.join(directory, "written"), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    for _ in range(BIG // len(BLOCK)):
        os.write(file, BLOCK)
    os.close(file)


def read_big(directory):
    file = os.open(os.path.join(directory, "big"), os.O_RDONLY)
    buffer = bytearray(len(BLOCK))
    while os.readv(file, [buffer]):
        pass
    os.close(file)


def read_randomly(directory):
    draw = random.Random(1)
    places = [draw.randrange(BIG >> 12) << 12 for _ in range(RANDOM)]
    file = os.open(os.path.join(directory, "big"), os.O_RDONLY)
    for place in places:
        os.pread(file, 4096, place)
    os.close(file)


def names(directory, count=SMALL):
    return [os.path.join(directory, "f%06d" % number) for number in range(count)]


def create_small(directory):
    data = bytes(4096)
    for name in names(directory):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(file, data)
        os.close(file)


def open_small(directory):
    for name in names(directory):
        file = os.open(name, os.O_RDONLY)
        os.read(file, 8192)
        os.close(file)


def stat_small(directory):
    for name in names(directory):
        os.stat(name)


def list_many(directory):
    command("ls", "-l", os.path.join(directory, "many"))


def make_big(directory):
    with open(os.path.join(directory, "big"), "wb", buffering=0) as file:
        for _ in range(BIG // len(BLOCK)):
            file.write(BLOCK)


def make_many(directory):
    os.mkdir(os.path.join(directory, "many"))
    for name in names(os.path.join(directory, "many"), MANY):
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT, 0o644))


# Work, in groups that stand on what came before in the same group. The name; what is made before in both directories, underneath
# the mount; whether names and attributes are forgotten first, on both sides; the work; the targets with kernel passthrough and
# without.
GROUPS = {
    "write": [("write 1 GiB", None, False, write_big, 1.05, 1.8)],
    "read": [
        ("read 1 GiB, first", make_big, False, read_big, 1.05, 2.2),
        ("read 1 GiB, again", None, False, read_big, 1.05, 1.05),
        ("20,000 random 4 KiB reads", None, False, read_randomly, 1.05, None),
    ],
    "small": [
        ("create, write, close 10,000 files", None, False, create_small, 6, 6),
        ("open, read, close 10,000 files, seen before", None, False, open_small, 8, 8),
        ("stat of 10,000 files, never seen", None, True, stat_small, 10, 10),
    ],
    "list": [
        ("ls -l of 100,000 files, first", make_many, True, list_many, 2.2, 2.2),
        ("ls -l of 100,000 files, again", None, False, list_many, 1.0, 1.0),
    ],
}
MODES = {"passthrough": [], "no passthrough": ["nopassthrough"]}


def run(bench):
    print("on ext4 in an image in memory, so that no other work on the disk is measured")
    for mode, options in MODES.items():
        for group, steps in GROUPS.items():
            if not bench.wanted("%s %s" % (group, mode)):
                continue
            times = {name: ([], []) for name, *_ in steps}
            with ext4(bench.scratch("disk")) as disk:
                cache, beside = os.path.join(disk, "cache"), os.path.join(disk, "beside")
                make_cache(cache, 1, directories=1)
                os.mkdir(beside)
                for place in (beside, os.path.join(cache, ENTRY)):
                    for _, prepare, *_ in steps:
                        if prepare:
                            prepare(place)
                for _ in range(bench.runs):
                    pair(bench, cache, beside, options, steps, times)
            for name, _, _, _, *targets in steps:
                target = targets[1 if options else 0]
                bench.table.add("%s (%s)" % (name, mode), "the directory", *times[name], target)


def pair(bench, cache, beside, options, steps, times):
    """One run of a group, with a fresh mount: each step in the plain directory, then in the mount."""
    with Mount(cache, bench.scratch("mnt"), options) as mount:
        entry = os.path.join(mount.path, "entries", ENTRY)
        for name, _, cold, work, *_ in steps:
            measured, baseline = times[name]
            for place, into in ((beside, baseline), (entry, measured)):
                settle(mount)
                if cold:
                    forget()
                    settle(mount)
                with timed(into):
                    work(place)
    for place in (beside, os.path.join(cache, ENTRY)):
        for name in os.listdir(place):
            # What the work has made, not what was prepared for it.
            if name not in ("big", "many"):
                os.unlink(os.path.join(place, name))
