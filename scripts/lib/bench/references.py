"""libfuse's own passthrough, to measure on the same machine: fetched and built when it is first needed."""

import glob
import os
import resource
import shutil
import subprocess
import sys

from bench import baselines
from bench.mounts import TARGET, Daemon

# The first release of Debian whose libfuse (3.17) has the kernel serve files.
RELEASE = "trixie"
MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
HERE = os.path.join(TARGET, "bench-references")


def passthrough_hp():
    """The path of the program."""
    build = os.path.join(HERE, "build")
    program = os.path.join(build, "example", "passthrough_hp")
    if os.path.exists(program):
        return program
    print("building libfuse's passthrough_hp", flush=True)
    shutil.rmtree(HERE, ignore_errors=True)
    baselines.install({"g++": "g++", "pkg-config": "pkg-config", "dpkg-source": "dpkg-dev"})
    if not os.path.exists(KEYRING):
        sys.exit("bench: libfuse's source cannot be checked: no %s (Debian's package debian-archive-keyring)" % KEYRING)
    tools = os.path.join(HERE, "venv", "bin")
    subprocess.run([sys.executable, "-m", "venv", os.path.join(HERE, "venv")], check=True)
    quietly([os.path.join(tools, "pip"), "install", "--quiet", "--disable-pip-version-check", "meson", "ninja"])
    source = fetched()
    words = ["--buildtype=release", "--default-library=static", "-Dutils=false", "-Dtests=false"]
    path = dict(os.environ, PATH=tools + ":" + os.environ["PATH"])
    quietly(["meson", "setup", build, source] + words, env=path)
    quietly(["ninja", "-C", build, "example/passthrough_hp"], env=path)
    return program


def fetched():
    """The directory of libfuse's source, by apt with lists of its own."""
    lists = os.path.join(HERE, "apt")
    os.makedirs(os.path.join(lists, "lists", "partial"), exist_ok=True)
    sources = os.path.join(lists, "sources.list")
    with open(sources, "w") as file:
        file.write("deb-src [signed-by=%s] %s %s main\n" % (KEYRING, MIRROR, RELEASE))
    options = ["Dir::Etc::sourcelist=" + sources, "Dir::Etc::sourceparts=-", "Dir::State::lists=" + os.path.join(lists, "lists"),
               "Dir::Cache=" + lists, "APT::Sandbox::User=root"]
    apt = ["apt-get", "-qq"] + [word for option in options for word in ("-o", option)]
    quietly(apt + ["update"])
    quietly(apt + ["source", "--only-source", "fuse3"], cwd=HERE)
    return max(glob.glob(os.path.join(HERE, "fuse3-*/")))


def quietly(words, **more):
    """Runs a program; what it says is shown only if it fails."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900, check=False, **more)
    if done.returncode:
        sys.exit("bench: %s failed:\n%s" % (" ".join(words), done.stdout.decode(errors="replace")))


def serves(files):
    """Whether it can serve so many files: it holds a descriptor for each that the kernel knows. Some are taken."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return limit == resource.RLIM_INFINITY or files + 100 <= limit


class PassthroughHp(Daemon):
    """A mount of a directory by passthrough_hp."""

    def __init__(self, directory, mountpoint, options=()):
        super().__init__([passthrough_hp(), "--foreground", *options, directory, mountpoint], mountpoint)
