"""What the scripts need: a program to test, a machine that lets them, and a Python that has the package filelock."""

import importlib.util
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))


SKIPPED = 77  # exit status of what could not be run here: neither passed nor failed


class Missing(Exception):
    """Something that cannot be had here; its text says what and why."""


def sandbox():
    """Makes sure that there can be namespaces and FUSE mounts."""
    if os.geteuid() != 0:
        raise Missing("it needs root (namespaces, mounts)")
    if not os.path.exists("/dev/fuse"):
        raise Missing("there is no /dev/fuse here")
    _try(["unshare", "--pid", "--mount", "--fork", "true"], "namespaces of processes and mounts are refused")
    if not shutil.which("fusermount3"):
        packages([("fusermount3", "fuse3")])


def network():
    """Makes sure that there can be machines with networks of their own."""
    _try(["unshare", "--net", "sh", "-c", "ip link add name veth0 type veth peer name veth1 && ip link add br0 type bridge"],
         "there can be no network namespaces with veth and a bridge")


def _try(words, why):
    try:
        subprocess.run(words, check=True, timeout=20, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    except subprocess.CalledProcessError as error:
        raise Missing("%s (%s)" % (why, error.stderr.decode(errors="replace").strip()))
    except (OSError, subprocess.SubprocessError) as error:
        raise Missing("%s (%s)" % (why, error))


def program():
    """The program to test: CACHEDIRFS, or one that is built now."""
    path = os.environ.get("CACHEDIRFS")
    if not path:
        subprocess.run(["cargo", "build", "--release", "--quiet", "--locked"], cwd=ROOT, check=True)
        path = os.path.join(TARGET, "release", "cachedirfs")
    if not os.access(path, os.X_OK):
        sys.exit("%s is no program" % path)
    return os.path.abspath(path)


def packages(needs):
    """Installs what is missing of (program, Debian package)."""
    missing = sorted({package for program, package in needs if not shutil.which(program)})
    if not missing:
        return
    print("installing %s" % " ".join(missing), flush=True)
    quiet = dict(stdout=subprocess.DEVNULL, check=True)
    try:
        subprocess.run(["apt-get", "update", "-qq"], timeout=300, **quiet)
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], timeout=900,
                       env=environment, **quiet)
    except (OSError, subprocess.SubprocessError) as error:
        raise Missing("%s cannot be installed: %s" % (" ".join(missing), error))


def python(script):
    """Goes on in a Python that has filelock, as the programs that write caches have it."""
    if importlib.util.find_spec("filelock") or os.environ.get("CACHEDIRFS_REEXEC"):
        return
    venv = os.path.join(TARGET, "test-venv")
    interpreter = os.path.join(venv, "bin", "python")
    if not os.path.exists(interpreter) or subprocess.run([interpreter, "-c", "import filelock"]).returncode:
        print("the Python package filelock, in %s" % venv, flush=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            subprocess.run([os.path.join(venv, "bin", "pip"), "install", "--quiet", "--disable-pip-version-check",
                            "filelock"], check=True, timeout=300)
        except (OSError, subprocess.SubprocessError) as error:
            print("without filelock (%s): its flock is taken directly" % error, file=sys.stderr)
            return
    os.environ["CACHEDIRFS_REEXEC"] = "1"
    os.execv(interpreter, [interpreter, os.path.abspath(script), *sys.argv[1:]])


def keep(base):
    """Copies what explains a failure to a directory that stays; tells which."""
    place = base + "-kept"
    os.makedirs(place, exist_ok=True)
    for name in os.listdir(base):
        source = os.path.join(base, name)
        if name == "events":
            shutil.copytree(source, os.path.join(place, name), dirs_exist_ok=True)
        elif name.endswith(".log"):
            shutil.copy(source, place)
    for directory in sorted(os.listdir(base)):
        log = os.path.join(base, directory, "cache", "_entries")
        if os.path.isfile(log):
            shutil.copy(log, os.path.join(place, "_entries"))
            break
    print("kept in %s" % place, flush=True)
