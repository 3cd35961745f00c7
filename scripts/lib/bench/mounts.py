"""The program that is measured, its mounts, and the clock."""

import contextlib
import os
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
BINARY = os.path.join(TARGET, "release", "cachedirfs")


class Mount:
    """A daemon in the foreground and its mount."""

    def __init__(self, cache, mountpoint, options=()):
        os.makedirs(mountpoint, exist_ok=True)
        self.cache, self.path, self.options, self.daemon = cache, mountpoint, list(options), None

    def __enter__(self):
        extra = ["-o", ",".join(self.options)] if self.options else []
        quiet = dict(os.environ, RUST_LOG="warn")
        self.daemon = subprocess.Popen([BINARY, "mount", self.cache, self.path, "-f"] + extra, env=quiet)
        deadline = time.monotonic() + 120
        while not os.path.ismount(self.path):
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                sys.exit("bench: the mount of %s did not come up" % self.cache)
            time.sleep(0.0005)
        return self

    def __exit__(self, *_):
        if self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            try:
                self.daemon.wait(60)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        if os.path.ismount(self.path):
            subprocess.run(["umount", "-l", self.path], check=False)

    def resident(self):
        """Resident memory of the daemon, in bytes."""
        with open("/proc/%d/status" % self.daemon.pid) as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


@contextlib.contextmanager
def timed(into):
    """Appends the seconds that the block took."""
    start = time.perf_counter()
    yield
    into.append(time.perf_counter() - start)


def command(*argv):
    """Runs a program, its output thrown away."""
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
