"""lookups of entries by id, with eight threads, against fuser's static links"""

import os
import subprocess

from bench.caches import make_cache
from bench.mounts import Mount, Served

CLIENTS = 8
# The threads of the daemon.
THREADS = 4
# Lookups of a run, each of another entry, that the kernel does not know.
COUNT = 20_000


def run(bench):
    cache, mountpoint, static = bench.scratch("cache"), bench.scratch("mnt"), bench.scratch("static")
    # Of a smaller cache the same entries are looked up again, by another mount.
    count = min(COUNT, bench.entries)
    make_cache(cache, bench.entries, count)
    ours, theirs = [], []

    def look(directory, into):
        argv = [bench.limits(), "stat", directory, "0", str(count), str(CLIENTS)]
        into.append(float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout) / count)

    for _ in range(bench.runs):
        with Mount(cache, mountpoint), Served(bench.limits(), static, bench.entries, THREADS):
            # Both daemons are up, and the directories known.
            os.stat(os.path.join(mountpoint, "entries", "e%08d" % 0))
            os.lstat(os.path.join(static, "e%08d" % 0))
            look(static, theirs)
            look(os.path.join(mountpoint, "entries"), ours)
    bench.table.add("a lookup by id, %d threads" % CLIENTS, "fuser, static links", ours, theirs, round(1 / 0.9, 3))
