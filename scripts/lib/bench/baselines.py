"""What users would take instead, and the programs that are limits: installed and built when they are first needed."""

import json
import os
import shutil
import subprocess
import sys

from bench.mounts import TARGET

VENV = os.path.join(TARGET, "bench-venv")
PACKAGES = ["orjson", "duckdb", "signac"]
LIMITS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "limits")


def install(packages):
    """Debian packages, as root; says what cannot be had."""
    missing = [package for program, package in packages.items() if not shutil.which(program)]
    if missing:
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            sys.exit("bench: %s: not installed, and only root on Debian or Ubuntu can" % ", ".join(missing))
        quiet = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        subprocess.run(["apt-get", "update", "-qq"], check=True, timeout=300, env=quiet)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends"] + missing,
            check=True, timeout=600, env=quiet, stdout=subprocess.DEVNULL)


def packaged(package):
    """Whether Debian has a package."""
    if not shutil.which("apt-cache"):
        return False
    shown = subprocess.run(["apt-cache", "policy", package], capture_output=True, text=True, check=True).stdout
    return "Candidate:" in shown and "Candidate: (none)" not in shown


def python():
    """A Python that has orjson, duckdb and signac."""
    interpreter = os.path.join(VENV, "bin", "python")
    probe = [interpreter, "-c", "import " + ", ".join(PACKAGES)]
    if not os.path.exists(interpreter) or subprocess.run(probe, capture_output=True).returncode:
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run(
            [os.path.join(VENV, "bin", "pip"), "install", "--quiet", "--disable-pip-version-check"] + PACKAGES,
            check=True, timeout=600)
    return interpreter


def build_limits():
    """Builds scripts/lib/bench/limits."""
    target = os.path.join(TARGET, "bench-limits")
    subprocess.run(
        ["cargo", "build", "--release", "--quiet", "--locked", "--manifest-path", os.path.join(LIMITS, "Cargo.toml"),
         "--target-dir", target], check=True)
    return os.path.join(target, "release", "limits")


def in_python(code, *args):
    """Runs a program in that Python; gives the numbers that it prints."""
    done = subprocess.run([python(), "-c", code, *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        sys.exit("bench: a baseline failed:\n" + done.stderr)
    return [float(word) for word in done.stdout.split()]


def python_loop(log, wanted, loads=json.loads):
    """What a user would write: parse every record, keep what matches; the last record of an id wins."""
    found = {}
    with open(log, "rb") as lines:
        for line in lines:
            attrs = loads(line)
            name = (attrs.get("_id") or attrs.get("@")).rsplit("/", 1)[-1]
            found[name] = wanted(attrs)
    return [name for name, matched in found.items() if matched]


# The same loop where orjson is: argv is the log, and then either nothing (parse only) or a seed and a host.
ORJSON_LOOP = """
import orjson, sys, time
start = time.perf_counter()
found = {}
seed, host = int(sys.argv[2]), sys.argv[3]
with open(sys.argv[1], "rb") as lines:
    for line in lines:
        attrs = orjson.loads(line)
        name = (attrs.get("_id") or attrs.get("@")).rsplit("/", 1)[-1]
        found[name] = attrs["seed"] == seed and attrs["host"] == host
count = sum(found.values())
print(time.perf_counter() - start, count)
"""

DUCKDB = """
import duckdb, sys, time
start = time.perf_counter()
rows = duckdb.execute(
    "select coalesce(_id, \\"@\\") from read_json(?, format = 'newline_delimited', columns = "
    "{_id: 'VARCHAR', \\"@\\": 'VARCHAR', seed: 'BIGINT', host: 'VARCHAR'}) where seed = ? and host = ?",
    [sys.argv[1], int(sys.argv[2]), sys.argv[3]]).fetchall()
print(time.perf_counter() - start, len(rows))
"""

SIGNAC_MAKE = """
import json, os, signac, sys
os.makedirs(sys.argv[2])
project = signac.init_project(sys.argv[2])
with open(sys.argv[1]) as lines:
    for line in lines:
        attrs = json.loads(line)
        attrs = {key: value for key, value in attrs.items() if key not in ("_id", "_timestamp", "@", "$")}
        project.open_job(attrs).init()
"""

SIGNAC_ASK = """
import signac, sys, time
start = time.perf_counter()
jobs = list(signac.get_project(sys.argv[1]).find_jobs({"seed": int(sys.argv[2]), "host": sys.argv[3]}))
print(time.perf_counter() - start, len(jobs))
"""
