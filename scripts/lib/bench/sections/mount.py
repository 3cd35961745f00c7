"""from mount to the first listing, and memory"""

import json
import os
import subprocess

from bench import baselines
from bench.caches import make_cache
from bench.mounts import Mount, timed

MILLION = 1_000_000


def parse_all(log, loads=json.loads):
    with open(log, "rb") as lines:
        for line in lines:
            loads(line)


PARSE_ORJSON = """
import orjson, sys, time
start = time.perf_counter()
with open(sys.argv[1], "rb") as lines:
    for line in lines:
        orjson.loads(line)
print(time.perf_counter() - start)
"""


def first_listing(cache, mountpoint, into):
    """The mount, left live, with the time to its first listing."""
    mount = Mount(cache, mountpoint)
    with timed(into):
        mount.__enter__()
        os.listdir(os.path.join(mountpoint, "by-attr"))
    return mount


def index_everything(mountpoint):
    """Asks every attribute something, so that whatever is built when it is needed is there."""
    by_attr = os.path.join(mountpoint, "by-attr")
    for key in os.listdir(by_attr):
        values = os.path.join(by_attr, key)
        os.scandir(values).close()
        os.listdir(os.path.join(mountpoint, "where", "has(%s)" % key, "where", "%s = 0.123456" % key))
        subprocess.run(
            ["sh", "-c", 'ls -U "$0" | head -1', os.path.join(mountpoint, "sort", key)],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run(bench):
    cache, mountpoint = bench.scratch("cache"), bench.scratch("mnt")
    make_cache(cache, bench.entries)
    log = os.path.join(cache, "_entries")
    fresh, again, in_json, in_orjson, parsed, counted = [], [], [], [], [], []
    resident, indexed = [], []
    for _ in range(bench.runs):
        bench.forget_indexes()
        mount = first_listing(cache, mountpoint, fresh)
        mount.__exit__()
        mount = first_listing(cache, mountpoint, again)
        resident.append(mount.resident() / 1e6)
        index_everything(mountpoint)
        indexed.append(mount.resident() / 1e6)
        mount.__exit__()
        if bench.compares:
            with timed(in_json):
                parse_all(log)
            in_orjson += baselines.in_python(PARSE_ORJSON, log)
            shown = subprocess.run([bench.limits(), "parse", log], capture_output=True, text=True, check=True).stdout
            parsed.append(min(map(float, shown.split())))
            with timed(counted):
                subprocess.run(["wc", "-l", log], check=True, stdout=subprocess.DEVNULL)
    table = bench.table

    def limit(most):
        """What a million entries may take says nothing of four millions."""
        return most if bench.entries == MILLION else None

    table.value("mount to first listing", "s", fresh, limit(2.5), grows=True)
    if bench.compares:
        table.add("mount to first listing", "json.loads over the log", fresh, in_json, 12, faster=True, at=MILLION, grows=True)
        table.add("mount to first listing", "orjson over the log", fresh, in_orjson, 6, faster=True, at=MILLION, grows=True)
        table.add("mount to first listing", "sonic-rs or simd-json, parsing alone", fresh, parsed, 3, at=MILLION, grows=True)
        table.add("mount to first listing", "wc -l", fresh, counted, grows=True)
    table.value("mount again, log unchanged, to first listing", "s", again, limit(0.3), grows=True)
    table.value("memory after the first listing", "MB", resident, limit(250), grows=True)
    table.value("memory with every key asked", "MB", indexed, limit(250), grows=True)
    if bench.entries >= MILLION // 10:
        table.value("memory over 40 MB, an entry", "bytes", [(mb - 40) * 1e6 / bench.entries for mb in indexed], 210, grows=True)
    size = os.path.getsize(log) / bench.entries
    print("the log has %.0f bytes an entry" % size)
