"""A place that goes away whatever happens: namespaces of processes and mounts of its own, a temporary directory,
and machines with networks of their own in it.

The program runs as process 1 of a namespace of processes. When it ends, or is killed, the kernel kills whatever it has
started, and with the last process go its mounts and its networks. Outside, a parent waits that passes signals on and
removes the temporary directory. Nothing outside is ever touched.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

_LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWPID = 0x00020000, 0x20000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
GRACE = 60  # seconds after a signal until everything is killed


class Failed(Exception):
    """What cannot be gone on from; its text is for the user."""


class Stopped(BaseException):
    """Somebody sent a signal."""


def _call(name, *args):
    if getattr(_LIBC, name)(*args) != 0:
        error = ctypes.get_errno()
        raise OSError(error, "%s: %s" % (name, os.strerror(error)))


def mount(source, target, kind, flags=0):
    _call("mount", source.encode(), target.encode(), kind.encode() if kind else None, flags, None)


def unmount(target):
    """Takes a mount away, whoever uses it."""
    try:
        _call("umount2", target.encode(), MNT_DETACH)
    except OSError:
        return False
    return True


def die_with_parent():
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _stop(number, _frame):
    raise Stopped(signal.Signals(number).name)


def run(name, main, limit):
    """Runs main(base) in a sandbox with a temporary directory, for at most so many seconds; gives its exit status."""
    if os.geteuid() != 0:
        sys.exit("%s: needs root (namespaces, mounts)" % name)
    base = os.path.realpath(tempfile.mkdtemp(prefix="cachedirfs-%s-" % name))
    try:
        _call("unshare", CLONE_NEWPID)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = _inside(name, main, base)
            finally:
                os._exit(status)  # whatever happens: what follows is the parent's
        return _outside(name, child, limit)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _outside(name, child, limit):
    told = []

    def forward(number, _frame):
        if number == signal.SIGALRM and not told:
            print("%s: FAILED: it did not end within %d s" % (name, limit), file=sys.stderr, flush=True)
        # First politely, so that it says where it was.
        os.kill(child, signal.SIGKILL if number == signal.SIGALRM and told else signal.SIGTERM)
        told.append(number)
        signal.alarm(GRACE)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, forward)
    signal.alarm(limit)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else 128 - status


def _inside(name, main, base):
    die_with_parent()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    status = 1
    try:
        _call("unshare", CLONE_NEWNS)
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        mount("proc", "/proc", "proc")
        os.makedirs("/run/netns", exist_ok=True)
        mount("tmpfs", "/run/netns", "tmpfs")
        if not os.path.isdir("/sys/fs/fuse/connections/") or not os.path.ismount("/sys/fs/fuse/connections"):
            mount("fusectl", "/sys/fs/fuse/connections", "fusectl")
        status = main(base)
    except Stopped as stopped:
        print("%s: stopped by %s" % (name, stopped), file=sys.stderr)
        status = 130
    except Failed as failed:
        print("%s: FAILED: %s" % (name, failed), file=sys.stderr)
    except BaseException:  # process 1 reports everything itself
        import traceback

        traceback.print_exc()
    finally:
        # It is ending: whoever asks once more need not be heard.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # So that nothing that hangs in a mount keeps the kernel from ending it.
        for path in mounts_below(base):
            abort(path)
        sys.stdout.flush()
        sys.stderr.flush()
    return status


def wait_for(what, seconds, ask, every=0.02):
    """Asks until the answer is true; gives it."""
    end = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > end:
            raise Failed("%s: not within %g s" % (what, seconds))
        time.sleep(every)


def _mountinfo():
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fields = line.split()
            yield fields[4].encode().decode("unicode_escape"), fields[2], fields[fields.index("-") + 1]


def mounted(path):
    """The connection number of the FUSE mount on a path; asks nobody who could hang."""
    found = None
    for where, device, kind in _mountinfo():
        if where == path and kind.startswith("fuse"):
            found = int(device.split(":")[1])
    return found


def mounts_below(base):
    return [where for where, _, kind in _mountinfo() if where.startswith(base + "/") and kind.startswith("fuse")]


def abort(path):
    """Cuts a FUSE mount's connection: who waits for it gets an error."""
    connection = mounted(path)
    if connection is not None:
        try:
            with open("/sys/fs/fuse/connections/%d/abort" % connection, "w") as file:
                file.write("1")
        except OSError:
            pass


class Process:
    """A program that was started, or a function in a process of its own."""

    def __init__(self, pid, popen=None):
        self.pid, self.popen, self.status = pid, popen, None

    def poll(self):
        """The exit status, if it has ended."""
        if self.status is None:
            if self.popen:
                self.status = self.popen.poll()
            else:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def send(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self, seconds=30):
        """Ends it at once and waits for that."""
        self.send(signal.SIGKILL)
        wait_for("process %d to be killed" % self.pid, seconds, lambda: self.poll() is not None)


def start(command, log, machine=None, **more):
    """Starts a program, on a machine if one is named."""
    if machine:
        command = ["nsenter", "--net=/run/netns/" + machine, "--"] + command
    with open(log, "ab") as out:
        popen = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=die_with_parent, **more
        )
    return Process(popen.pid, popen)


def spawn(function, *args):
    """Runs a function in a process of its own; it fails if the function raises."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return Process(pid)
    status = 1
    try:
        die_with_parent()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        function(*args)
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def command(arguments, seconds=30, machine=None, check=True):
    """Runs a program to its end; gives what it printed."""
    if machine:
        arguments = ["nsenter", "--net=/run/netns/" + machine, "--"] + arguments
    popen = subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=die_with_parent,
    )
    try:
        text = popen.communicate(timeout=seconds)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        popen.kill()  # not waited for: it may hang in the kernel
        raise Failed("%s did not end within %g s" % (" ".join(arguments), seconds))
    if check and popen.returncode:
        raise Failed("%s: exit status %d: %s" % (" ".join(arguments), popen.returncode, text.strip()))
    return text


class Network:
    """Machines that hang on one switch, and nowhere else."""

    PREFIX = "10.77.0"

    def __init__(self, machines):
        self.machines = {name: "%s.%d" % (self.PREFIX, number) for number, name in enumerate(machines, 11)}
        command(["ip", "netns", "add", "switch"])
        self._switch("link", "add", "br0", "type", "bridge")
        self._switch("link", "set", "br0", "up")
        for name, address in self.machines.items():
            command(["ip", "netns", "add", name])
            command(["ip", "link", "add", "v-" + name, "netns", "switch", "type", "veth", "peer", "name", "eth0",
                     "netns", name])
            self._switch("link", "set", "v-" + name, "master", "br0", "up")
            for line in ("link set lo up", "addr add %s/24 dev eth0" % address, "link set eth0 up"):
                command(["ip"] + line.split(), machine=name)

    def __getitem__(self, name):
        return self.machines[name]

    def _switch(self, *words):
        command(["ip"] + list(words), machine="switch")

    def cut(self, name):
        """Pulls a machine's cable: nobody is told."""
        self._switch("link", "set", "v-" + name, "down")

    def plug(self, name):
        """Plugs it in again."""
        self._switch("link", "set", "v-" + name, "up")
