"""fio with --verify: jobs side by side, of several kinds of I/O, that read back what they have written."""

import json
import os
import shutil

from . import place

# Engine and what is peculiar to it.
JOBS = {
    "pwrite": ["--ioengine=psync", "--rw=randrw", "--bssplit=512/10:4k/50:64k/30:1m/10"],
    "mapped": ["--ioengine=mmap", "--rw=randrw", "--bs=4k"],
    "direct": ["--ioengine=libaio", "--iodepth=16", "--direct=1", "--rw=randwrite", "--bs=4k"],
    "appended": ["--ioengine=psync", "--rw=write", "--bs=64k", "--fsync=64"],
    "trimmed": ["--ioengine=psync", "--rw=randwrite", "--bs=16k", "--fallocate=posix"],
}
SIZE, SHORT = "256m", "16m"


def prepare(_base, _options):
    return None


def run(spot, mode, _prepared, entry, options):
    """Gives what is wrong."""
    log = os.path.join(options.logs, "fio-%s-%s.log" % (spot.kind, mode))
    directory = place.fresh(entry, "fio")
    size = SHORT if options.short else SIZE
    words = ["fio", "--output-format=json", "--directory=" + directory, "--size=" + size, "--numjobs=2", "--verify=crc32c",
             "--verify_fatal=1", "--verify_state_save=0", "--do_verify=1", "--verify_dump=0", "--randseed=%d" % options.seed]
    for name, more in JOBS.items():
        words += ["--name=" + name] + more
    status, text = place.run(words, 900, log, cwd=options.logs)
    wrong = []
    shutil.rmtree(directory)
    try:
        jobs = json.loads(text[text.index("{"):])["jobs"]
    except ValueError:
        jobs = []
        wrong.append("fio gave no result; see %s" % log)
    wrong += ["%s: error %d" % (job["jobname"], job["error"]) for job in jobs if job["error"]]
    if status and not wrong:
        wrong.append("fio ended with status %d; see %s" % (status, log))
    written, read = (sum(job[way]["io_bytes"] for job in jobs) for way in ("write", "read"))
    if not wrong and read < written:
        wrong.append("fio has read less (%d bytes) than it has written (%d)" % (read, written))
    return "%d jobs, %d MiB written, %d MiB read and verified" % (len(jobs), written >> 20, read >> 20), wrong
