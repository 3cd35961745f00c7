"""compaction of the log, who waits for it, and following records that others append"""

import fcntl
import os
import random
import subprocess
import time

from bench.caches import make_cache, record
from bench.mounts import Mount, timed, until

FOLLOWED = 10_000
MILLION = 1_000_000
# Logs over 16 MiB are compacted as soon as more than half of them is dead.
LEAST = 100_000
# Bytes of an attribute that is set and removed, to tip the balance.
WEIGHT = 12_000_000
LOOKED = 1000


def run(bench):
    if bench.entries >= LEAST:
        compaction(bench)
    following(bench)


def make_half_dead(path, entries):
    """A log of so many records in which a little less than half of the bytes is dead."""
    os.makedirs(path)
    live = entries // 2
    size = 0
    with open(os.path.join(path, "_entries"), "w") as log:
        for turn in range(2):
            draw = random.Random(turn)
            dead = 0
            for number in range(live):
                line = record(draw, number, path, entries) + "\n"
                if turn == 0 and size + len(line) > live * 281 - WEIGHT // 2:
                    # Dead records end here; the rest are short ones.
                    line = '{"@": "e%08d", "$": 1}\n' % number
                size += len(line)
                dead += len(line)
                log.write(line)
    open(os.path.join(path, "_lock"), "w").close()
    for number in range(LOOKED):
        os.mkdir(os.path.join(path, "e%08d" % number))


def compaction(bench):
    mountpoint = bench.scratch("mnt")
    took, copied, look, listing = [], [], [], []
    for _ in range(bench.runs):
        cache, copy = bench.scratch("dead"), bench.scratch("copy")
        make_half_dead(cache, bench.entries)
        log = os.path.join(cache, "_entries")
        with timed(copied):
            subprocess.run(["cp", log, copy], check=True)
            subprocess.run(["sync", copy], check=True)
        os.unlink(copy)
        with Mount(cache, mountpoint):
            before = os.stat(log).st_ino
            entry = os.path.join(mountpoint, "entries", "e%08d" % 1)
            note = os.path.join(entry, ".attrs", "note")
            with open(note, "w") as out:
                out.write("x" * WEIGHT)
            view = os.path.join(mountpoint, "by-attr", "seed", "0", "by-attr", "host", "node00")
            argv = [bench.limits(), "wait", os.path.join(mountpoint, "entries"), "0", str(LOOKED), view]
            readers = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            time.sleep(0.3)
            assert os.stat(log).st_ino == before, "compacted too early"
            os.unlink(note)
            with timed(took):
                until(lambda: os.stat(log).st_ino != before, 60, "a compaction")
            time.sleep(0.2)
            waits = [float(wait) * 1e3 for wait in readers.communicate("")[0].split()]
            look.append(waits[0])
            listing.append(waits[1])
        with open(log, "rb") as lines:
            assert sum(1 for _ in lines) == bench.entries // 2, "compaction left something else"
    table = bench.table
    table.add("compaction, half of the records dead", "cp and sync of the log", took, copied, 1.5, at=MILLION, grows=True)
    table.value("longest lookup during compaction", "ms", look, 50)
    table.value("longest listing during compaction", "ms", listing, 50)


def follow(cache, mountpoint, entries, turns, into):
    draw = random.Random(3)
    with Mount(cache, mountpoint):
        count = os.path.join(mountpoint, "count")

        def counted():
            with open(count) as number:
                return int(number.read())

        known = counted()
        assert known == entries, known
        for turn in range(turns):
            first = entries + turn * FOLLOWED
            text = "".join(record(draw, first + number, cache) + "\n" for number in range(FOLLOWED)).encode()
            with open(os.path.join(cache, "_lock")) as lock, open(os.path.join(cache, "_entries"), "ab", buffering=0) as log:
                fcntl.flock(lock, fcntl.LOCK_EX)
                log.write(text)
            known += FOLLOWED
            with timed(into):
                until(lambda: counted() == known, 60, "what was appended")


def following(bench):
    mountpoint = bench.scratch("mnt")
    large, small = [], []
    for entries, into in ((bench.entries, large), (FOLLOWED, small)) if bench.compares else ((bench.entries, large),):
        cache = bench.scratch("followed")
        make_cache(cache, entries)
        follow(cache, mountpoint, entries, bench.runs, into)
    bench.table.value("following 10,000 records", "s", large)
    if bench.compares:
        bench.table.add("following 10,000 records", "the same in a cache of 10,000", large, small, 2)
