"""Where a suite runs: file systems of its own for the cache and for the comparison, and mounts of the cache."""

import os
import shutil
import signal
import subprocess
import threading

import backing
import sandbox
from node import Node
from sandbox import Failed, command

SIZE = 4 << 30  # of each image; it is sparse
# File system: what makes it in an image. None: it needs no image.
KINDS = {
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
    "tmpfs": None,
}
PACKAGES = {"xfs": (("mkfs.xfs", "xfsprogs"),), "btrfs": (("mkfs.btrfs", "btrfs-progs"),)}


def usual(base):
    """ext4 where an image of it can be mounted, else tmpfs."""
    where = os.path.join(base, "probe")
    os.makedirs(where)
    try:
        _mount(base, "ext4", where)
    except Failed:
        return "tmpfs"
    sandbox.unmount(where)
    return "ext4"


def _mount(base, kind, where):
    make = KINDS[kind]
    if make is None:
        command(["mount", "-t", "tmpfs", "-o", "size=%d" % SIZE, "none", where])
    else:
        image = where + ".img"
        with open(image, "wb") as file:
            file.truncate(SIZE)
        command(make + [image], 60)
        command(["mount", "-o", "loop", image, where])
        os.unlink(image)
    os.chmod(where, 0o755)


class Place:
    """A cache on a file system of this kind, mounts of it, and another such file system to compare with."""

    def __init__(self, base, kind, program):
        self.base, self.kind, self.program = os.path.join(base, kind), kind, program
        os.makedirs(self.base)
        os.chmod(base, 0o755)
        self.disk, self.plain, self.other = (self._file_system(name) for name in ("disk", "plain", "other"))
        os.makedirs(os.path.join(self.disk, "cache"))
        self.node = None

    def _file_system(self, name):
        where = os.path.join(self.base, name)
        os.makedirs(where)
        _mount(self.base, self.kind, where)
        return where

    def mount(self, mode, options="allow_other"):
        """Mounts the cache; gives the directory of an entry in it."""
        if mode == "nopassthrough":
            options += ",nopassthrough"
        self.node = Node(self.base, mode, self.program, options)
        self.node.backing, self.node.fs = backing.Local(self.base, [self.node]), self.disk
        self.node.up()
        entry = os.path.join(self.node.mnt, "entries", mode)
        os.mkdir(entry)
        os.chmod(entry, 0o755)
        if self.served_by_kernel(entry) != (mode == "passthrough"):
            raise Failed("%s: this is not the mode that was asked for" % mode)
        return entry

    def real(self, entry):
        """The directory that an entry stands for."""
        return os.path.join(self.disk, "cache", os.path.basename(entry))

    def served_by_kernel(self, entry):
        """Whether an open file can be read while the daemon stands still."""
        with open(os.path.join(self.real(entry), "probe"), "w") as file:
            file.write("probe")
        with open(os.path.join(entry, "probe"), "rb", buffering=0) as file:
            reader = threading.Thread(target=file.read)
            self.node.daemon.send(signal.SIGSTOP)
            try:
                sandbox.wait_for("the daemon to stand still", 20, self.stands_still)
                reader.start()
                reader.join(1)
                return not reader.is_alive()
            finally:
                self.node.daemon.send(signal.SIGCONT)
                reader.join()

    def stands_still(self):
        """Whether every thread of the daemon is stopped."""
        tasks = "/proc/%d/task" % self.node.daemon.pid
        states = []
        for task in os.listdir(tasks):
            with open(os.path.join(tasks, task, "stat")) as file:
                states.append(file.read().rpartition(") ")[2][0])
        return set(states) == {"T"}

    def unmount(self):
        """Ends the daemon; it must not have failed anywhere."""
        self.node.down()
        with open(self.node.log, errors="replace") as file:
            log = file.read()
        if "panicked at" in log:
            raise Failed("a panic in the daemon; see %s" % self.node.log)
        os.rmdir(self.node.mnt)

    def close(self):
        for where in (self.other, self.plain, self.disk):
            sandbox.unmount(where)


def fresh(directory, name):
    """An empty directory."""
    path = os.path.join(directory, name)
    shutil.rmtree(path, ignore_errors=True)
    os.mkdir(path)
    os.chmod(path, 0o777)
    return path


def run(arguments, seconds, log, **more):
    """Runs a program; gives its exit status and what it printed, which is also appended to a file."""
    try:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds,
            preexec_fn=sandbox.die_with_parent, check=False, **more)
    except subprocess.TimeoutExpired as late:
        raise Failed("%s did not end within %g s" % (" ".join(arguments), seconds)) from late
    text = done.stdout.decode(errors="replace")
    with open(log, "a") as file:
        file.write("$ %s\n%s(status %d)\n" % (" ".join(arguments), text, done.returncode))
    return done.returncode, text
