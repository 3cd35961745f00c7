"""an attribute that one mount has set, seen in another on the same machine"""

import os
import time

from bench.caches import make_cache
from bench.mounts import Mount, until

CHANGES = 60


def run(bench):
    cache, here, there = bench.scratch("cache"), bench.scratch("mnt"), bench.scratch("there")
    make_cache(cache, bench.entries, CHANGES)
    percentile, median = [], []
    with Mount(cache, here), Mount(cache, there):
        os.listdir(os.path.join(there, "by-attr"))
        for turn in range(bench.runs):
            waits = []
            for number in range(CHANGES):
                name, value = "e%08d" % number, "turn-%d-%d" % (turn, number)
                with open(os.path.join(here, "entries", name, ".attrs", "status"), "w") as out:
                    out.write(value)
                start = time.perf_counter()
                view = os.path.join(there, "by-attr", "status", value)

                def seen():
                    try:
                        return os.listdir(view) == [name]
                    except FileNotFoundError:
                        return False

                until(seen, 10, "a change")
                waits.append((time.perf_counter() - start) * 1e3)
            waits.sort()
            median.append(waits[len(waits) // 2])
            percentile.append(waits[-1 - len(waits) // 100])
    bench.table.value("a change, seen in another mount, 99th percentile", "ms", percentile, 20)
    bench.table.value("a change, seen in another mount, median", "ms", median)
