"""expressions, order and tables against Python over the log"""

import csv
import json
import os
import shutil
import subprocess

from bench.baselines import python_loop
from bench.caches import make_cache
from bench.mounts import ROOT, Mount, command, timed


def run(bench):
    cache, mountpoint = bench.scratch("ask"), bench.scratch("mnt")
    make_cache(cache, bench.entries)
    log = os.path.join(cache, "_entries")

    def read_all():
        with open(log) as lines:
            return [json.loads(line) for line in lines]

    def write_csv():
        with open(os.devnull, "w") as out:
            csv.writer(out).writerows(row.values() for row in read_all())

    questions = [
        ("ls where/loss lt 0.01, first", 10, ["ls", "-f", os.path.join(mountpoint, "where", "loss lt 0.01")],
         lambda: python_loop(log, lambda attrs: attrs.get("loss", 9) < 0.01)),
        ("ls sort/loss | head -1, first", 2, ["sh", "-c", 'ls -U "$0" | head -1', os.path.join(mountpoint, "sort", "loss")],
         lambda: sorted(row["loss"] for row in read_all())),
        ("cat table.csv, first", 2, ["cat", os.path.join(mountpoint, "table.csv")], write_csv),
    ]
    times = {name: ([], []) for name, *_ in questions}
    baseline, in_rust = bench.scratch("bench_csv"), []
    command("rustc", "-O", "--edition=2024", "-o", baseline, os.path.join(ROOT, "scripts", "lib", "bench", "csv.rs"))
    for _ in range(bench.runs):
        with Mount(cache, mountpoint):
            os.listdir(mountpoint)
            for name, _, argv, loop in questions:
                with timed(times[name][0]):
                    command(*argv)
                with timed(times[name][1]):
                    loop()
            copy = bench.scratch("table.csv")
            shutil.copy(os.path.join(mountpoint, "table.csv"), copy)
        in_rust.append(float(subprocess.run([baseline, copy], capture_output=True, check=True).stdout))
    for name, target, *_ in questions:
        bench.table.add(name, "python over the log", *times[name], target, faster=True)
    bench.table.add("cat table.csv, first", "rust, the same from memory", times["cat table.csv, first"][0], in_rust, 2)
