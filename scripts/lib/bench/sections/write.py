"""making entries against mkdir and a flocked append in Python"""

import fcntl
import json
import os
import sys
import tempfile
import time

from bench.caches import make_cache
from bench.mounts import Mount, timed


def run(bench):
    count = 2000
    through, plain = [], []
    for _ in range(bench.runs):
        cache, base, mountpoint = bench.scratch("write"), bench.scratch("plain"), bench.scratch("mnt")
        make_cache(cache, 0)
        make_cache(base, 0)
        with Mount(cache, mountpoint):
            with timed(through):
                for number in range(count):
                    os.mkdir(os.path.join(mountpoint, "new", "lr=0.1,seed=%d" % number))
        with timed(plain):
            for number in range(count):
                path = tempfile.mkdtemp(prefix="e", dir=base)
                text = json.dumps({"_id": path, "lr": 0.1, "seed": number, "_timestamp": time.time()})
                with open(os.path.join(base, "_lock"), "w") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    with open(os.path.join(base, "_entries"), "a") as out:
                        out.write(text + "\n")
        with open(os.path.join(cache, "_entries")) as lines:
            if sum(1 for _ in lines) != count:
                sys.exit("bench: the log has not %d records" % count)
    bench.table.add("mkdir new/lr=0.1,seed=N", "python mkdtemp and flocked append", through, plain)
