"""making entries and setting attributes, against mkdir and flocked append in a loop without FUSE"""

import os
import subprocess

from bench import baselines
from bench.caches import make_cache
from bench.mounts import Mount, Served, ext4, on

COUNT = 4000
# The threads of the daemon.
THREADS = 4
# Of a slower disk, in microseconds: SSDs that cannot keep what is in their buffers through a power cut take milliseconds, disks
# that turn ten.
SYNC_TAKES = 2000


def run(bench):
    # Nothing is removed meanwhile: ext4 is slow to give out inodes that were given back within the last minutes. That holds for
    # what was removed before, too: so without `sync` all is measured on a file system that was just made.
    fresh = ("made-%d" % number for number in range(1_000_000))
    mountpoint, null, memory = bench.scratch("mnt"), bench.scratch("null"), bench.scratch("ext4")

    # One that every process may run on.
    processor = min(os.sched_getaffinity(0))

    def timed(*argv, where=()):
        argv = [*where, bench.limits(), *map(str, argv)]
        return float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)

    def cache(directory, entries=0, directories=0):
        path = os.path.join(directory, next(fresh))
        make_cache(path, entries, directories)
        return path

    def expect_records(path, count):
        with open(os.path.join(path, "_entries"), "rb") as log:
            assert sum(1 for _ in log) == count, "not every entry has a record"

    def made(directory, writers, count, options=()):
        """Seconds of one mkdir through a fresh mount."""
        path = cache(directory)
        with Mount(path, mountpoint, options):
            took = timed("mkdir", os.path.join(mountpoint, "new"), count, writers) / count
        expect_records(path, count)
        return took

    def asked(writers, count):
        """Seconds of one mkdir of nothing through a fresh mount."""
        with Served(bench.limits(), "null", null, THREADS):
            return timed("mkdir", null, count, writers) / count

    def least(count):
        """Seconds of one mkdir through the least that makes a directory and a record, beside the one writer as the daemon is."""
        path = cache(memory)
        with Served(bench.limits(), "null", null, 1, path, processor=processor):
            took = timed("mkdir", null, count, 1, where=on(processor)) / count
        expect_records(path, count)
        return took

    def asked_to_set(writers, count):
        """Seconds of one change of an attribute that changes nothing."""
        with Served(bench.limits(), "null", null, THREADS):
            return timed("set", null, count, writers) / count

    def set_(directory, writers, count, options=(), sync_takes=0):
        """Seconds of one change of an attribute, each writer of an entry of its own."""
        with Mount(cache(directory, 64, 64), mountpoint, options, sync_takes):
            return timed("set", os.path.join(mountpoint, "entries"), count, writers) / count

    one, sixteen, bare, bare16, null1, null16, beside = [], [], [], [], [], [], []
    set1, set16, sync1, sync64, syncset1, syncset64 = [], [], [], [], [], []
    nullset1, nullset16, nullset64, slow1, slow64 = [], [], [], [], []
    baselines.install({"strace": "strace"})
    with ext4(memory):
        for _ in range(bench.runs):
            bare.append(timed("make", cache(memory), COUNT, 1) / COUNT)
            one.append(made(memory, 1, COUNT))
            beside.append(least(COUNT))
            null1.append(asked(1, COUNT))
            null16.append(asked(16, COUNT))
            sixteen.append(made(memory, 16, COUNT))
            bare16.append(timed("make", cache(memory), COUNT, 16) / COUNT)
            set1.append(set_(memory, 1, COUNT))
            set16.append(set_(memory, 16, COUNT))
            nullset1.append(asked_to_set(1, COUNT))
            nullset16.append(asked_to_set(16, COUNT))
    # What is made durable goes to the disk itself.
    disk = bench.scratch("disk")
    for _ in range(bench.runs):
        sync1.append(made(disk, 1, COUNT // 10, ["sync"]))
        sync64.append(made(disk, 64, COUNT // 2, ["sync"]))
        syncset1.append(set_(disk, 1, COUNT // 10, ["sync"]))
        syncset64.append(set_(disk, 64, COUNT * 2, ["sync"]))
        nullset64.append(asked_to_set(64, COUNT * 2))
        slow1.append(set_(disk, 1, COUNT // 40, ["sync"], SYNC_TAKES))
        slow64.append(set_(disk, 64, COUNT, ["sync"], SYNC_TAKES))
    table = bench.table
    table.add("mkdir new/lr=...", "mkdir and flocked append, no FUSE", one, bare, round(1 / 0.6, 3))
    table.add("fuser, mkdir of nothing", "mkdir and flocked append, no FUSE", null1, bare)
    table.add("mkdir new/lr=...", "fuser, mkdir of nothing", one, null1)
    table.add("fuser, mkdir and flocked append", "mkdir and flocked append, no FUSE", beside, bare)
    table.add("mkdir new/lr=...", "fuser, mkdir and flocked append", one, beside)
    table.add("mkdir new/lr=..., 16 writers", "one writer", sixteen, one, 2.5, faster=True)
    table.add("fuser, mkdir of nothing, 16 writers", "one writer", null16, null1, faster=True)
    table.add("the loop without FUSE, 16 writers", "one writer", bare16, bare, faster=True)
    table.add("mkdir new/lr=..., sync, 64 writers", "one writer", sync64, sync1, 20, faster=True)
    table.add("setting an attribute, 16 writers", "one writer", set16, set1, 2.5, faster=True)
    table.add("fuser, setting nothing, 16 writers", "one writer", nullset16, nullset1, faster=True)
    table.add("setting an attribute, 16 writers", "fuser, setting nothing", set16, nullset16)
    table.add("setting an attribute, sync, 64 writers", "one writer", syncset64, syncset1, 20, faster=True)
    table.add("setting an attribute, sync, 64 writers", "fuser, setting nothing", syncset64, nullset64)
    name = "setting an attribute, sync that takes %g ms more, 64 writers" % (SYNC_TAKES / 1e3)
    table.add(name, "one writer", slow64, slow1, faster=True)
