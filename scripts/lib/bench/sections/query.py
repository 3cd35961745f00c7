"""a conjunction of two attributes with a hundred results, against what users would ask instead"""

import json
import os
import random
import shutil
import statistics
import subprocess
import sys

from bench import baselines
from bench.caches import HOSTS, make_cache, seeds
from bench.mounts import Mount, execute, timed, tmpfs

MILLION = 1_000_000
# Sizes that signac, TMSU, and a file an entry can bear.
SIGNAC, FILES = 1_000, 10_000
# Questions that are asked of each mount, each for the first time.
QUESTIONS = 8


def make_sqlite(log, path):
    """The same attributes, one row an entry, every one with an index."""
    import sqlite3
    columns = ["id", "lr", "model", "seed", "epochs", "loss", "wall", "opt_name", "opt_momentum", "tags", "status", "host", "time"]
    base = sqlite3.connect(path)
    base.execute("create table entries (%s)" % ", ".join(columns))

    def rows():
        with open(log) as lines:
            for line in lines:
                a = json.loads(line)
                yield (
                    (a.get("_id") or a.get("@")).rsplit("/", 1)[-1], a["lr"], a["model"], a["seed"], a["epochs"], a["loss"],
                    a["wall"], a["opt"]["name"], a["opt"]["momentum"], json.dumps(a["tags"]), a["status"], a["host"],
                    a.get("_timestamp") or a.get("$"))

    base.executemany("insert into entries values (%s)" % ", ".join("?" * len(columns)), rows())
    for column in columns:
        base.execute("create index of_%s on entries (%s)" % (column, column))
    base.execute("analyze")
    base.commit()
    base.close()


def view(mountpoint, seed, host):
    return os.path.join(mountpoint, "by-attr", "seed", str(seed), "by-attr", "host", host)


def run(bench):
    cache, mountpoint, empty = bench.scratch("cache"), bench.scratch("mnt"), bench.scratch("empty")
    make_cache(cache, bench.entries)
    log = os.path.join(cache, "_entries")
    ls = shutil.which("ls")
    draw = random.Random(7)
    pairs = [(draw.randrange(seeds(bench.entries)), "node%02d" % draw.randrange(HOSTS)) for _ in range(1000)]
    asked = iter(sorted(set(pairs), key=pairs.index))
    questions = [[next(asked) for _ in range(QUESTIONS)] for _ in range(bench.runs)]
    times = {name: [] for name in ("ls", "first", "over", "median", "json", "orjson", "jq", "duckdb", "sqlite")}
    if bench.compares:
        baselines.install({"jq": "jq", "sqlite3": "sqlite3"})
        base = bench.scratch("sqlite")
        make_sqlite(log, base)

    def both(call, seconds, found, expected):
        seconds.append(call)
        if found != expected:
            sys.exit("bench: the view and a baseline differ: %s and %s results" % (expected, found))

    with tmpfs(empty):
        for mine in questions:
            with Mount(cache, mountpoint):
                os.listdir(mountpoint)
                over = []
                for seed, host in mine:
                    nothing = execute(ls, empty)
                    took = execute(ls, view(mountpoint, seed, host))
                    over.append((took - nothing) * 1e3)
                    times["ls"].append(took)
                times["first"].append(over[0])
                times["over"] += over
                times["median"].append(statistics.median(over) / 1e3)
                # The baselines answer the last question.
                seed, host = mine[-1]
                expected = len(os.listdir(view(mountpoint, seed, host)))
            if not bench.compares:
                continue
            with timed(times["json"]):
                found = baselines.python_loop(log, lambda a: a["seed"] == seed and a["host"] == host)
            assert len(found) == expected, "the loop differs"
            for name, code in (("orjson", baselines.ORJSON_LOOP), ("duckdb", baselines.DUCKDB)):
                seconds, count = baselines.in_python(code, log, seed, host)
                both(seconds, times[name], count, expected)
            query = 'select(.seed == %d and .host == "%s") | (._id // ."@")' % (seed, host)
            with timed(times["jq"]):
                lines = subprocess.run(["jq", "-r", query, log], capture_output=True, check=True).stdout
            assert lines.count(b"\n") == expected, "jq differs"
            ask = "select id from entries where seed = %d and host = '%s'" % (seed, host)
            times["sqlite"].append(execute(shutil.which("sqlite3"), "-readonly", base, ask))
    table = bench.table
    name = "ls of a conjunction, 100 results, first time"
    table.value(name + ", over ls of nothing", "ms", times["over"], 3, at=MILLION)
    table.value(name + " after mounting, over ls of nothing", "ms", times["first"], 3, at=MILLION)
    last = times["ls"][QUESTIONS - 1::QUESTIONS]
    if not bench.compares:
        table.value(name, "s", times["ls"])
        return
    for against, key, target in (
        ("json.loads over the log", "json", 5000), ("orjson over the log", "orjson", None), ("jq on the log", "jq", 500),
        ("DuckDB on the log", "duckdb", 500),
    ):
        # Those are the question alone, without the start of a program: so is this, as the median of the questions of a mount.
        table.add(name + ", over ls of nothing", against, times["median"], times[key], target, faster=True, at=MILLION)
        table.add(name, against, last, times[key], faster=True)
    table.add(name, "SQLite with indexes, its shell", last, times["sqlite"], 1, faster=True, at=MILLION)
    small(bench)


def small(bench):
    """Those that cannot bear as much, against a mount of as few entries."""
    ls = shutil.which("ls")
    for entries, named, make, ask in (
        (SIGNAC, "signac", lambda log, path: baselines.in_python(baselines.SIGNAC_MAKE, log, path), ask_signac),
        (FILES, "grep -r, a file an entry", make_files, ask_grep),
        (FILES, "find and jq, a file an entry", make_files, ask_find),
        (SIGNAC, "TMSU", make_tmsu, ask_tmsu),
    ):
        if named == "TMSU" and not shutil.which("tmsu"):
            if not baselines.packaged("tmsu"):
                print("TMSU is not packaged here: left out")
                continue
            baselines.install({"tmsu": "tmsu"})
        cache, mountpoint, store = bench.scratch("small"), bench.scratch("mnt"), bench.scratch("store")
        make_cache(cache, entries)
        make(os.path.join(cache, "_entries"), store)
        ours, theirs = [], []
        for number in range(bench.runs):
            host = "node%02d" % number
            with Mount(cache, mountpoint):
                os.listdir(mountpoint)
                ours.append(execute(ls, view(mountpoint, 0, host)))
                expected = len(os.listdir(view(mountpoint, 0, host)))
            seconds, count = ask(store, 0, host)
            if count != expected:
                sys.exit("bench: %s: %d results, %d expected" % (named, count, expected))
            theirs.append(seconds)
        bench.table.add("the same among %d entries" % entries, named, ours, theirs, faster=True)


def ask_signac(store, seed, host):
    return baselines.in_python(baselines.SIGNAC_ASK, store, seed, host)


def make_files(log, path):
    os.makedirs(path)
    with open(log) as lines:
        for number, line in enumerate(lines):
            directory = os.path.join(path, "e%08d" % number)
            os.mkdir(directory)
            with open(os.path.join(directory, "attributes.json"), "w") as out:
                out.write(line)


def piped(script, *args):
    seconds = []
    with timed(seconds):
        done = subprocess.run(["sh", "-c", script, "sh", *args], capture_output=True, text=True, check=True)
    return seconds[0], done.stdout.count("\n")


def ask_grep(store, seed, host):
    return piped('grep -rlE "$2" "$1"', store, '"seed": %d,.*"host": "%s"' % (seed, host))


def ask_find(store, seed, host):
    query = 'select(.seed == %d and .host == "%s") | (._id // ."@")' % (seed, host)
    return piped('find "$1" -name attributes.json -exec jq -r "$2" {} +', store, query)


def make_tmsu(log, path):
    make_files(log, path)
    subprocess.run(["tmsu", "init"], cwd=path, check=True, stdout=subprocess.DEVNULL)
    with open(log) as lines:
        for number, line in enumerate(lines):
            attrs = json.loads(line)
            tags = ["%s=%s" % (key, attrs[key]) for key in ("lr", "model", "seed", "epochs", "loss", "wall", "status", "host")]
            subprocess.run(["tmsu", "tag", "e%08d" % number, *tags], cwd=path, check=True, capture_output=True)


def ask_tmsu(store, seed, host):
    return piped('cd "$1" && tmsu files "$2"', store, "seed = %d and host = %s" % (seed, host))
