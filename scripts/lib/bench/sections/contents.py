"""the same work below an entry and in a plain directory beside the cache, with kernel passthrough, without, and by attr_timeout"""

import contextlib
import functools
import os
import random
import shutil
import subprocess
import time
import typing

from bench.caches import make_cache
from bench.mounts import Mount, command, ext4, timed
from bench.references import PassthroughHp, serves

ENTRY = "e00000000"
BIG = 1 << 30
SMALL = 10_000
BATCH = 1_000
RANDOM = 20_000
BLOCK = bytes(1 << 20)


def settle(mount=None):
    """Nothing is left to be written, and the daemon has done what it was last told."""
    subprocess.run(["sync"], check=True)
    if mount is None:
        return
    before = None
    while before != (before := mount.ticks()):
        time.sleep(0.1)


def forget():
    """Makes the kernel forget names and attributes of all file systems."""
    with open("/proc/sys/vm/drop_caches", "w") as drop:
        drop.write("2")


def write_big(directory):
    # Over what is there and in memory: a virtual machine gets new memory from its host, at a price that has nothing to do with us.
    file = os.open(os.path.join(directory, "big"), os.O_WRONLY)
    for _ in range(BIG // len(BLOCK)):
        os.write(file, BLOCK)
    os.close(file)


def read_big(directory):
    file = os.open(os.path.join(directory, "big"), os.O_RDONLY)
    buffer = bytearray(len(BLOCK))
    while os.readv(file, [buffer]):
        pass
    os.close(file)


def read_randomly(directory):
    draw = random.Random(1)
    places = [draw.randrange(BIG >> 12) << 12 for _ in range(RANDOM)]
    file = os.open(os.path.join(directory, "big"), os.O_RDONLY)
    for place in places:
        os.pread(file, 4096, place)
    os.close(file)


def names(directory, count=SMALL):
    return [os.path.join(directory, "f%06d" % number) for number in range(count)]


def create_small(directory):
    data = bytes(4096)
    for name in names(directory):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(file, data)
        os.close(file)


def open_small(directory):
    open_each(names(directory))


def open_each(some):
    for name in some:
        file = os.open(name, os.O_RDONLY)
        os.read(file, 8192)
        os.close(file)


def open_small_again(directory):
    """Each file once more within a second: tells the seconds of the second times."""
    took, all_names = [], names(directory)
    for start in range(0, SMALL, BATCH):
        some = all_names[start:start + BATCH]
        open_each(some)
        with timed(took):
            open_each(some)
    return sum(took)


def stat_small(directory):
    for name in names(directory):
        os.stat(name)


def list_many(directory):
    command("ls", "-l", os.path.join(directory, "many"))


def make_big(directory):
    with open(os.path.join(directory, "big"), "wb", buffering=0) as file:
        for _ in range(BIG // len(BLOCK)):
            file.write(BLOCK)


def make_many(files, directory):
    os.mkdir(os.path.join(directory, "many"))
    for name in names(os.path.join(directory, "many"), files):
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT, 0o644))


class Step(typing.NamedTuple):
    """Work that is measured in the plain directory, then in the mount."""

    name: str
    # May give the seconds that count, if not all do.
    work: typing.Callable
    # The targets with kernel passthrough and without.
    passthrough: float
    plain: float
    # Made once, in both directories, underneath the mount.
    prepare: typing.Callable = None
    # Whether names and attributes are forgotten first, on both sides.
    cold: bool = False


GROUPS = ("write", "read", "small", "list")


def steps_of(group, files):
    """The steps of a group; each stands on what came before."""
    return {
        "write": [Step("write 1 GiB over a file", write_big, 1.05, 1.8, prepare=make_big)],
        "read": [
            Step("read 1 GiB, first", read_big, 1.05, 2.2, prepare=make_big),
            Step("read 1 GiB, again", read_big, 1.05, 1.05),
            Step("20,000 random 4 KiB reads", read_randomly, 1.05, None),
        ],
        "small": [
            Step("create, write, close 10,000 files", create_small, 6, 6),
            Step("open, read, close 10,000 files, seen before", open_small, 8, 8),
            Step("the same, seen within a second", open_small_again, 8, 8),
            Step("stat of 10,000 files, never seen", stat_small, 10, 10, cold=True),
        ],
        "list": [
            Step("ls -l of %s files, first" % f"{files:,}", list_many, 2.2, 2.2, functools.partial(make_many, files), cold=True),
            Step("ls -l of %s files, again" % f"{files:,}", list_many, 1.0, 1.0),
        ],
    }[group]


def ours(cache, mountpoint, options):
    """A mount of the cache, and the directory of the entry in it."""
    mount = Mount(cache, mountpoint, options)
    return mount, os.path.join(mount.path, "entries", ENTRY)


def libfuse(cache, mountpoint, options):
    """That directory, served by libfuse's example."""
    mount = PassthroughHp(os.path.join(cache, ENTRY), mountpoint, options)
    return mount, mount.path


class Mode(typing.NamedTuple):
    """A way to mount, and the groups that are measured with it."""

    groups: tuple = GROUPS
    options: tuple = ()
    mount: typing.Callable = ours

    def target(self, step):
        """What is asked of a step; nothing of others."""
        if self.mount is not ours:
            return None
        return step.plain if "nopassthrough" in self.options else step.passthrough


MODES = {
    "passthrough": Mode(),
    "no passthrough": Mode(options=("nopassthrough",)),
    "attr_timeout=60": Mode(("small", "list"), ("attr_timeout=60",)),
}
REFERENCES = {
    "passthrough_hp": Mode(mount=libfuse),
    "passthrough_hp --nopassthrough": Mode(options=("--nopassthrough",), mount=libfuse),
}


def run(bench):
    print("on ext4 in an image in memory, so that no other work on the disk is measured; writing, on the disk itself")
    for name, mode in dict(MODES, **(REFERENCES if bench.references else {})).items():
        for group in mode.groups:
            if not bench.wanted("%s %s" % (group, name)):
                continue
            if mode.mount is libfuse and not serves(bench.files if group == "list" else SMALL):
                print("not measured: %s of %s, which may not have so many files open here; see --files" % (group, name))
                continue
            steps = steps_of(group, bench.files)
            times = {step.name: ([], []) for step in steps}
            with where(bench, group) as disk:
                cache, beside = os.path.join(disk, "cache"), os.path.join(disk, "beside")
                make_cache(cache, 1, directories=1)
                os.mkdir(beside)
                for place in (beside, os.path.join(cache, ENTRY)):
                    for step in steps:
                        if step.prepare:
                            step.prepare(place)
                for _ in range(bench.runs):
                    pair(bench, cache, beside, mode, steps, times)
            for step in steps:
                bench.table.add("%s (%s)" % (step.name, name), "the directory", *times[step.name], mode.target(step))


@contextlib.contextmanager
def where(bench, group):
    """Where a group is measured. An image takes what is written to it at once, and the processor with it: not to measure writing."""
    disk = bench.scratch("disk")
    if group != "write":
        with ext4(disk):
            yield disk
        return
    os.makedirs(disk)
    yield disk
    shutil.rmtree(disk)


def pair(bench, cache, beside, mode, steps, times):
    """One run of a group, with a fresh mount."""
    mount, entry = mode.mount(cache, bench.scratch("mnt"), mode.options)
    with mount:
        for step in steps:
            measured, baseline = times[step.name]
            for place, into in ((beside, baseline), (entry, measured)):
                settle(mount)
                if step.cold:
                    forget()
                    settle(mount)
                took = []
                with timed(took):
                    counted = step.work(place)
                into.append(counted or took[0])
    for place in (beside, os.path.join(cache, ENTRY)):
        for name in os.listdir(place):
            # What the work has made, not what was prepared for it.
            if name not in ("big", "many"):
                os.unlink(os.path.join(place, name))
