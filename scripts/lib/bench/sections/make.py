"""making entries and setting attributes, against mkdir and flocked append in a loop without FUSE"""

import os
import subprocess

from bench.caches import make_cache
from bench.mounts import Mount

COUNT = 4000


def run(bench):
    # Nothing is removed meanwhile: ext4 is slow to give out inodes that were given back within the last minutes.
    fresh = ("%s-%d" % (name, number) for number in range(1_000_000) for name in ["made"])
    mountpoint = bench.scratch("mnt")

    def timed(*argv):
        return float(subprocess.run([bench.limits(), *map(str, argv)], capture_output=True, text=True, check=True).stdout)

    def cache(entries=0, directories=0):
        path = bench.scratch(next(fresh))
        make_cache(path, entries, directories)
        return path

    def made(writers, count, options=()):
        """Seconds of one mkdir through a fresh mount."""
        path = cache()
        with Mount(path, mountpoint, options):
            took = timed("mkdir", os.path.join(mountpoint, "new"), count, writers) / count
        with open(os.path.join(path, "_entries"), "rb") as log:
            assert sum(1 for _ in log) == count, "not every entry has a record"
        return took

    def set_(writers, count, options=()):
        """Seconds of one change of an attribute, each writer of an entry of its own."""
        with Mount(cache(64, 64), mountpoint, options):
            return timed("set", os.path.join(mountpoint, "entries"), count, writers) / count

    one, sixteen, bare, bare16, sync1, sync64 = [], [], [], [], [], []
    set1, set16, syncset1, syncset64 = [], [], [], []
    for _ in range(bench.runs):
        bare.append(timed("make", cache(), COUNT, 1) / COUNT)
        one.append(made(1, COUNT))
        sixteen.append(made(16, COUNT))
        bare16.append(timed("make", cache(), COUNT, 16) / COUNT)
        sync1.append(made(1, COUNT // 10, ["sync"]))
        sync64.append(made(64, COUNT // 2, ["sync"]))
        set1.append(set_(1, COUNT))
        set16.append(set_(16, COUNT))
        syncset1.append(set_(1, COUNT // 10, ["sync"]))
        syncset64.append(set_(64, COUNT * 2, ["sync"]))
    table = bench.table
    table.add("mkdir new/lr=...", "mkdir and flocked append, no FUSE", one, bare, round(1 / 0.6, 3))
    table.add("mkdir new/lr=..., 16 writers", "one writer", sixteen, one, 2.5, faster=True)
    table.add("the loop without FUSE, 16 writers", "one writer", bare16, bare, faster=True)
    table.add("mkdir new/lr=..., sync, 64 writers", "one writer", sync64, sync1, 20, faster=True)
    table.add("setting an attribute, 16 writers", "one writer", set16, set1, 2.5, faster=True)
    table.add("setting an attribute, sync, 64 writers", "one writer", syncset64, syncset1, 20, faster=True)
