"""fsx: random operations on one file, every read compared with what was written."""

import os

from . import install, place

SEEDS = 5
OPERATIONS = 20_000
SHORT = (2, 4_000)

CONFIG = """
flen = 1048576
[opsize]
max = 131072
[weights]
close_open = 2
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 5
fsync = 1
fdatasync = 1
posix_fallocate = 3
punch_hole = 5
sendfile = 3
posix_fadvise = 2
copy_file_range = 5
"""


def prepare(base, _options):
    config = os.path.join(base, "fsx.toml")
    with open(config, "w") as file:
        file.write(CONFIG)
    return install.crate("fsx"), config


def run(spot, mode, prepared, entry, options):
    """Gives what is wrong."""
    program, config = prepared
    log = os.path.join(options.logs, "fsx-%s-%s.log" % (spot.kind, mode))
    directory = place.fresh(entry, "fsx")
    # Artifacts of a failure are not written into what is tested.
    artifacts = place.fresh(options.logs, "fsx-%s-%s" % (spot.kind, mode))
    seeds, operations = SHORT if options.short else (SEEDS, OPERATIONS)
    wrong = []
    for seed in range(options.seed, options.seed + seeds):
        words = [program, "-f", config, "-N", str(operations), "-S", str(seed), "-P", artifacts, os.path.join(directory, "f%d" % seed)]
        status, text = place.run(words, 900, log)
        if status:
            wrong.append("seed %d: %s" % (seed, text.strip().splitlines()[-1] if text.strip() else "status %d" % status))
    wrong += unlike(directory, os.path.join(spot.real(entry), "fsx"))
    return "%d seeds of %d operations" % (seeds, operations), wrong


def unlike(directory, real):
    """Files whose bytes in the mount are not those underneath."""
    wrong = []
    names = os.listdir(directory)
    if sorted(names) != sorted(os.listdir(real)):
        wrong.append("the names in %s and underneath differ" % directory)
    for name in names:
        with open(os.path.join(directory, name), "rb") as one, open(os.path.join(real, name), "rb") as other:
            if one.read() != other.read():
                wrong.append("%s: other bytes underneath" % name)
    return wrong
