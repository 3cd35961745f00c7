"""The nodes of a test: where the cache is seen, and the daemon that mounts it there."""

import json
import os
import signal

import sandbox
from account import read_log
from sandbox import Failed, command, start, wait_for

LIVE = 30  # seconds until a mount must be live


class Node:
    """A machine with the file system, and cachedirfs on it."""

    def __init__(self, base, name, program, options="refresh=0.5"):
        self.base, self.name, self.program, self.options = base, name, program, options
        self.mnt = os.path.join(base, name)
        self.log = os.path.join(base, name + ".log")
        self.fs = self.daemon = self.backing = None
        os.makedirs(self.mnt)

    @property
    def cache(self):
        return os.path.join(self.fs, "cache")

    @property
    def machine(self):
        return self.name if self.backing.network else None

    def up(self, seconds=LIVE):
        """Mounts the cache; also over what a killed daemon has left there."""
        words = [self.program, "mount", self.cache, self.mnt, "-f", "-o", self.options]
        environment = dict(os.environ, RUST_LOG=os.environ.get("RUST_LOG", "info"), RUST_BACKTRACE="1", CACHEDIRFS_KEEP="0")
        self.daemon = start(words, self.log, self.machine, env=environment)

        def live():
            if self.daemon.poll() is not None:
                raise Failed("the daemon of %s ended with %d; %s" % (self.name, self.daemon.status, self.tail()))
            # What a killed daemon has left may still be there: the status tells who answers.
            return (self.status() or {}).get("pid") == self.daemon.pid

        wait_for("the mount of " + self.name, seconds, live)

    def down(self, seconds=40):
        """Ends the daemon politely."""
        if self.daemon is None:
            return
        self.daemon.send(signal.SIGTERM)
        wait_for("the daemon of %s to end" % self.name, seconds, lambda: self.daemon.poll() is not None)
        if self.daemon.status != 0:
            raise Failed("the daemon of %s ended with %d; %s" % (self.name, self.daemon.status, self.tail()))
        self.daemon = None

    def kill(self):
        self.daemon.kill()

    def lost(self, cable=True):
        """The whole node dies: daemon, file system client, and with the cable even the kernel that would tell the servers."""
        if cable and "cut" in self.backing.can:
            self.backing.cut(self)
        # It may hang in the file system, and ends for good only with that.
        self.daemon.send(signal.SIGKILL)
        self.backing.detach(self)
        self.daemon.kill()

    def back(self):
        """The node was repaired."""
        if "cut" in self.backing.can:
            self.backing.plug(self)
            self.backing.attach(self)
        self.up()

    def status(self):
        """What the daemon says of itself, if it does."""
        try:
            with open(os.path.join(self.mnt, ".status")) as file:
                return json.load(file)
        except (OSError, ValueError):
            return None

    def table(self):
        """All entries as the mount shows them: id -> attributes."""
        entries = {}
        with open(os.path.join(self.mnt, "table.jsonl")) as file:
            for line in file:
                record = json.loads(line)
                entries[os.path.basename(record["_id"] if "_id" in record else record["@"])] = record
        return entries

    def listing(self):
        return set(os.listdir(os.path.join(self.mnt, "entries")))

    def read_log(self):
        return read_log(os.path.join(self.cache, "_entries"))

    def read_file(self, ident, name):
        """A file of an entry, or None."""
        try:
            with open(os.path.join(self.mnt, "entries", ident, name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def cli(self, *words, seconds=60, check=True):
        """The command line on the cache, on this node."""
        return command([self.program, *words[:1], "-C", self.cache, *words[1:]], seconds, self.machine, check)

    def state(self):
        """What the threads of the daemon are doing in the kernel."""
        lines, tasks = [], "/proc/%d/task" % self.daemon.pid
        try:
            for task in sorted(os.listdir(tasks), key=int):
                with open(os.path.join(tasks, task, "comm")) as file:
                    name = file.read().strip()
                with open(os.path.join(tasks, task, "stack")) as file:
                    calls = [line.split()[-1].split("+")[0] for line in file]
                lines.append("%s: %s" % (name, " < ".join(calls[:5])))
        except OSError as error:
            lines.append(str(error))
        return "its threads:\n    " + "\n    ".join(lines)

    def tail(self, lines=15):
        try:
            with open(self.log, errors="replace") as file:
                return "its log ends:\n    " + "    ".join(file.readlines()[-lines:])
        except OSError:
            return "it has no log"
