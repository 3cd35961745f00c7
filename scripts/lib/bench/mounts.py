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


class Daemon:
    """A daemon in the foreground and its mount."""

    def __init__(self, argv, mountpoint):
        os.makedirs(mountpoint, exist_ok=True)
        self.argv, self.path, self.daemon = argv, mountpoint, None

    def __enter__(self):
        quiet = dict(os.environ, RUST_LOG="warn")
        self.daemon = subprocess.Popen(self.argv, env=quiet)
        deadline = time.monotonic() + 120
        while not os.path.ismount(self.path):
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                sys.exit("bench: no mount came up: %s" % " ".join(self.argv))
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

    def ticks(self):
        """Processor time that the daemon has used."""
        with open("/proc/%d/stat" % self.daemon.pid) as stat:
            return stat.read().rpartition(") ")[2].split()[11:13]

    def resident(self):
        """Resident memory of the daemon, in bytes."""
        with open("/proc/%d/status" % self.daemon.pid) as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


class Mount(Daemon):
    """A mounted cache. With `sync_takes`, that many microseconds pass before anything is made durable, as on a slower disk."""

    def __init__(self, cache, mountpoint, options=(), sync_takes=0):
        extra = ["-o", ",".join(options)] if options else []
        # The daemon stays our child.
        tracer = ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", os.devnull, "-e", "trace=fsync,fdatasync"]
        delayed = tracer + ["-e", "inject=fsync,fdatasync:delay_enter=%d" % sync_takes] if sync_takes else []
        super().__init__(delayed + [BINARY, "mount", cache, mountpoint, "-f"] + extra, mountpoint)


class Served(Daemon):
    """What a program serves with fuser: `limits serve`, static links, or `limits null`, mkdir of nothing; mounted. With a
    processor, it runs there alone, and gives way to whoever wants to run there."""

    def __init__(self, program, what, mountpoint, *numbers, processor=None):
        gives_way = [] if processor is None else ["chrt", "-i", "0", *on(processor)]
        super().__init__([*gives_way, program, what, mountpoint, *map(str, numbers)], mountpoint)

    def __exit__(self, *_):
        # A signal would leave its mount; it ends with that.
        subprocess.run(["umount", self.path], check=False)
        super().__exit__()


def on(processor):
    """What has a command run on one processor only."""
    return ["taskset", "-c", str(processor)]


@contextlib.contextmanager
def timed(into):
    """Appends the seconds that the block took."""
    start = time.perf_counter()
    yield
    into.append(time.perf_counter() - start)


def command(*argv):
    """Runs a program, its output thrown away."""
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)


def execute(*argv):
    """Seconds from the start of a program to its end; its output is thrown away."""
    null = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    start = time.perf_counter()
    child = os.posix_spawn(argv[0], argv, os.environ, file_actions=null)
    _, status = os.waitpid(child, 0)
    took = time.perf_counter() - start
    if status:
        sys.exit("bench: %s failed" % " ".join(argv))
    return took


def until(true, seconds, what):
    """Waits until something is so."""
    end = time.perf_counter() + seconds
    while not true():
        if time.perf_counter() > end:
            sys.exit("bench: %s: not within %g s" % (what, seconds))
        time.sleep(0.0002)


@contextlib.contextmanager
def tmpfs(path):
    """An empty tmpfs; needs root."""
    os.makedirs(path, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4g,nr_inodes=4m", "bench", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


@contextlib.contextmanager
def ext4(path):
    """An empty ext4 in an image in memory; needs root."""
    with tmpfs(path + ".memory") as memory:
        image = os.path.join(memory, "image")
        with open(image, "wb") as file:
            file.truncate(int(3.75 * (1 << 30)))
        # What is put off is done while somebody measures.
        subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image], check=True)
        os.makedirs(path, exist_ok=True)
        subprocess.run(["mount", "-o", "loop", image, path], check=True)
        try:
            yield path
        finally:
            subprocess.run(["umount", path], check=True)
