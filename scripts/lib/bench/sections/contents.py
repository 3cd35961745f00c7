"""the same work below an entry and in a plain directory beside the cache; needs root to drop caches"""

import os
import random
import subprocess
import sys

from bench.caches import make_cache
from bench.mounts import Mount, command, timed


def drop_dentries():
    """Makes the kernel forget names and attributes (root only)."""
    subprocess.run(["sync"], check=True)
    with open("/proc/sys/vm/drop_caches", "w") as drop:
        drop.write("2")


def write_big(directory):
    block = bytes(1 << 20)
    with open(os.path.join(directory, "big"), "wb", buffering=0) as file:
        for _ in range(1024):
            file.write(block)


def read_big(directory):
    with open(os.path.join(directory, "big"), "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def read_randomly(directory):
    draw = random.Random(1)
    file = os.open(os.path.join(directory, "big"), os.O_RDONLY)
    for _ in range(20000):
        os.pread(file, 4096, draw.randrange(1 << 18) << 12)
    os.close(file)


def create_small(directory):
    data = bytes(4096)
    for number in range(10000):
        with open(os.path.join(directory, "f%06d" % number), "wb", buffering=0) as out:
            out.write(data)


def open_small(directory):
    for number in range(10000):
        with open(os.path.join(directory, "f%06d" % number), "rb", buffering=0) as file:
            file.read()


def stat_small(directory):
    for number in range(10000):
        os.stat(os.path.join(directory, "f%06d" % number))


def list_many(directory):
    command("ls", "-l", os.path.join(directory, "many"))


def make_many(directory):
    os.mkdir(os.path.join(directory, "many"))
    for number in range(100000):
        os.close(os.open(os.path.join(directory, "many", "n%06d" % number), os.O_CREAT | os.O_WRONLY, 0o644))


def run(bench):
    if os.geteuid() != 0:
        sys.exit("bench: contents drops kernel caches and compares both modes: run it as root")
    # Name, work, preparation, targets with and without kernel passthrough.
    steps = [
        ("write 1 GiB", write_big, None, 1.05, 1.8),
        ("read 1 GiB again", read_big, None, 1.05, 1.05),
        ("20,000 random 4 KiB reads", read_randomly, None, 1.05, None),
        ("create, write, close 10,000 files", create_small, None, 6, 6),
        ("open, read, close 10,000 files, seen before", open_small, None, 8, 8),
        ("stat of 10,000 files, never seen", stat_small, "drop", 10, 10),
        ("ls -l of 100,000 files, first", list_many, "many", 2.2, 2.2),
        ("ls -l of 100,000 files, again", list_many, None, 1.0, 1.0),
    ]
    for mode, options in (("passthrough", []), ("no passthrough", ["nopassthrough"])):
        times = {name: ([], []) for name, *_ in steps}
        for _ in range(bench.runs):
            cache, beside, mountpoint = bench.scratch("contents"), bench.scratch("beside"), bench.scratch("mnt")
            make_cache(cache, 0)
            os.makedirs(beside)
            with Mount(cache, mountpoint, options):
                entry = os.path.join(mountpoint, "entries", "bench")
                os.mkdir(entry)
                for name, work, prepare, *_ in steps:
                    if prepare == "many":
                        make_many(beside)
                        make_many(os.path.join(cache, "bench"))
                    if prepare:
                        drop_dentries()
                    with timed(times[name][1]):
                        work(beside)
                    with timed(times[name][0]):
                        work(entry)
        for name, _, _, *targets in steps:
            bench.table.add("%s (%s)" % (name, mode), "the directory", *times[name], targets[1 if options else 0])
