"""lookups of entries by id, with eight threads, against what fuser serves from memory"""

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
    cache, mountpoint, static, real = map(bench.scratch, ("cache", "mnt", "static", "real"))
    # Of a smaller cache the same entries are looked up again, by another mount.
    count = min(COUNT, bench.entries)
    make_cache(cache, bench.entries, count)
    ours, links, directories = [], [], []

    def look(directory, into):
        argv = [bench.limits(), "stat", directory, "0", str(count), str(CLIENTS)]
        into.append(float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout) / count)

    for turn in range(bench.runs):
        with Mount(cache, mountpoint), \
                Served(bench.limits(), "serve", static, bench.entries, THREADS), \
                Served(bench.limits(), "serve", real, bench.entries, THREADS, cache):
            # All daemons are up, and the directories known.
            entries = os.path.join(mountpoint, "entries")
            looks = [(static, links), (entries, ours), (real, directories)]
            for directory, _ in looks:
                os.lstat(os.path.join(directory, "e%08d" % 0))
            # Each is the first in its turn.
            for directory, into in looks[turn % 3:] + looks[:turn % 3]:
                look(directory, into)
    name = "a lookup by id, %d threads" % CLIENTS
    bench.table.add(name, "fuser, static links", ours, links, round(1 / 0.9, 3))
    bench.table.add(name, "fuser, static names, looking at each directory", ours, directories)
    bench.table.add("fuser, static names, looking at each directory", "fuser, static links", directories, links)
