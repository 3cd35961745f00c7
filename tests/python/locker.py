"""A program that locks files, told what to do line by line; answers each line with `ok` or the name of an errno.

    open NAME PATH [FLAGS]       close NAME          dup NAME OLD
    flock NAME sh|ex|un [nb]     whole file, flock
    lock NAME r|w|u [START LEN] [nb]      fcntl; ofd instead of lock: F_OFD_SETLK
    get NAME r|w [START LEN]     `free`, or type, start, length and process of what is in the way
    write NAME TEXT              from the start, to the end of the file
    read NAME                    as much as fstat says
    fork NAME                    a child goes on under this name: lines that start with `@NAME ` are its
    alarm MILLISECONDS [restart] signals until the next call has ended, with a handler that does nothing
    exit
"""

import errno
import fcntl
import os
import signal
import struct
import sys

OFD_SETLK, OFD_SETLKW = 37, 38
FLOCK = "hhqqi4x"
KINDS = {"r": fcntl.F_RDLCK, "w": fcntl.F_WRLCK, "u": fcntl.F_UNLCK}
files, children = {}, {}


def lock(words, command, command_wait):
    wait = words[-1] != "nb"
    numbers = [int(word) for word in words[2:] if word != "nb"] or [0, 0]
    data = struct.pack(FLOCK, KINDS[words[1]], os.SEEK_SET, *numbers, 0)
    # Not through fcntl.fcntl(), which calls again after EINTR.
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(data)
    if libc.fcntl(files[words[0]], command_wait if wait else command, buffer) < 0:
        raise OSError(ctypes.get_errno(), "fcntl")


def flock(words):
    import ctypes

    how = {"sh": fcntl.LOCK_SH, "ex": fcntl.LOCK_EX, "un": fcntl.LOCK_UN}[words[1]]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.flock(files[words[0]], how | (fcntl.LOCK_NB if words[-1] == "nb" else 0)) < 0:
        raise OSError(ctypes.get_errno(), "flock")


def get(words):
    numbers = [int(word) for word in words[2:]] or [0, 0]
    data = struct.pack(FLOCK, KINDS[words[1]], os.SEEK_SET, *numbers, 0)
    kind, _, start, length, pid = struct.unpack(FLOCK, fcntl.fcntl(files[words[0]], fcntl.F_GETLK, data))
    if kind == fcntl.F_UNLCK:
        return "free"
    return "%s %d %d %d" % ("r" if kind == fcntl.F_RDLCK else "w", start, length, pid)


def fork(name):
    to_child, from_child = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(to_child[0], 0)
        os.dup2(from_child[1], 1)
        for fd in to_child + from_child:
            os.close(fd)
        children.clear()
        serve()
        os._exit(0)
    os.close(to_child[0])
    os.close(from_child[1])
    children[name] = (os.fdopen(to_child[1], "w", 1), os.fdopen(from_child[0], "r", 1))
    return "ok %d" % pid


def alarm(words):
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, "restart" not in words)
    # Again and again: the first may come before the call does.
    signal.setitimer(signal.ITIMER_REAL, int(words[0]) / 1000, int(words[0]) / 1000)
    return "ok"


def act(words):
    verb, rest = words[0], words[1:]
    if verb == "open":
        flags = rest[2] if len(rest) > 2 else "RDWR"
        files[rest[0]] = os.open(rest[1], sum(getattr(os, "O_" + flag) for flag in flags.split("|")), 0o666)
    elif verb == "dup":
        files[rest[0]] = os.dup(files[rest[1]])
    elif verb == "close":
        os.close(files.pop(rest[0]))
    elif verb == "flock":
        flock(rest)
    elif verb == "lock":
        lock(rest, fcntl.F_SETLK, fcntl.F_SETLKW)
    elif verb == "ofd":
        lock(rest, OFD_SETLK, OFD_SETLKW)
    elif verb == "write":
        os.pwrite(files[rest[0]], rest[1].encode(), 0)
        os.ftruncate(files[rest[0]], len(rest[1]))
    elif verb == "read":
        return os.pread(files[rest[0]], os.fstat(files[rest[0]]).st_size, 0).decode()
    elif verb == "get":
        return get(rest)
    elif verb == "fork":
        return fork(rest[0])
    elif verb == "alarm":
        return alarm(rest)
    else:
        return "what?"
    return "ok"


def line():
    # Byte by byte: what is read ahead would be lost to a child.
    text = b""
    while not text.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return None
        text += byte
    return text.decode().split()


def serve():
    while True:
        words = line()
        if not words or words[0] == "exit":
            return
        if words[0].startswith("@"):
            to_child, from_child = children[words[0][1:]]
            to_child.write(" ".join(words[1:]) + "\n")
            answer = from_child.readline().strip() or "gone"
        else:
            try:
                answer = act(words)
            except OSError as error:
                answer = errno.errorcode[error.errno]
            if words[0] != "alarm":
                signal.setitimer(signal.ITIMER_REAL, 0)
        os.write(1, (answer + "\n").encode())


serve()
