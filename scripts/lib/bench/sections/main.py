"""views against a loop of json.loads over the log with the same filter; memory"""

import os
import sys
import time

from bench.baselines import python_loop
from bench.caches import make_cache
from bench.mounts import Mount, command, timed


def run(bench):
    cache, mountpoint = bench.scratch("cache"), bench.scratch("mnt")
    make_cache(cache, bench.entries)
    log = os.path.join(cache, "_entries")
    cold, again, up, loop = [], [], [], []
    resident = 0
    for _ in range(bench.runs):
        with timed(loop):
            expected = python_loop(log, lambda attrs: attrs.get("lr") == 0.1)
        start = time.perf_counter()
        with Mount(cache, mountpoint) as mount:
            os.listdir(os.path.join(mountpoint, "by-attr"))
            up.append(time.perf_counter() - start)
            view = os.path.join(mountpoint, "by-attr", "lr", "0.1")
            with timed(cold):
                command("ls", "-f", view)
            with timed(again):
                command("ls", "-f", view)
            if sorted(os.listdir(view)) != sorted(expected):
                sys.exit("bench: the view and the loop differ")
            resident = mount.resident()
    name = "python json.loads loop"
    bench.table.add("ls by-attr/lr/0.1, first", name, cold, loop, 20, faster=True)
    bench.table.add("ls by-attr/lr/0.1, again", name, again, loop, 20, faster=True)
    bench.table.add("mount to first listing", name, up, loop, 1, faster=True)
    empty = bench.scratch("empty")
    make_cache(empty, 0)
    with Mount(empty, mountpoint) as mount:
        os.listdir(os.path.join(mountpoint, "by-attr"))
        base = mount.resident()
    print("memory: %.1f MB resident with %d entries, %.1f MB with none: %.0f bytes an entry (%.0f bytes of log an entry)" % (
        resident / 1e6, bench.entries, base / 1e6, (resident - base) / bench.entries, os.path.getsize(log) / bench.entries))
