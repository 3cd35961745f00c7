"""Processes that work on a cache: through a mount, and as a Python program that writes the log itself."""

import errno
import fcntl
import json
import mmap
import os
import random
import tempfile
import time

import sandbox
from account import OK, Recorder, digest

# What an answer means that leaves nothing behind; every other error leaves open what was done.
REFUSALS = {errno.EEXIST: "EEXIST", errno.ENOENT: "ENOENT", errno.ENOTEMPTY: "ENOTEMPTY"}
ENTRIES = 25  # so many entries a process keeps; older ones it deletes
SHARED = 6  # entries that all processes change


class Switch:
    """Tells all processes of a load what the hour is."""

    def __init__(self):
        self.byte = mmap.mmap(-1, 4096)

    def stop(self):
        self.byte[0] = 1

    @property
    def stopped(self):
        return self.byte[0] == 1

    @property
    def trouble(self):
        """A fault is going on: errors and delays are to be expected."""
        return self.byte[1] == 1

    @trouble.setter
    def trouble(self, value):
        self.byte[2] = (self.byte[2] + 1) % 256
        self.byte[1] = int(value)

    @property
    def quiet(self):
        """Compared with one from before: no fault has been going on since."""
        return (self.byte[2], self.byte[1] == 0)


def put(path, text):
    """Writes a file as a shell does; an error of close is an error."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def get(path):
    with open(path) as file:
        return file.read()


class Worker:
    """One process that works through a mount, on entries of its own and on those that all share."""

    def __init__(self, who, mnt, events, switch, phase, shared, seed, pause):
        self.who, self.mnt, self.switch, self.phase, self.shared = who, mnt, switch, phase, shared
        self.events, self.seed, self.pause = events, seed, pause

    def run(self):
        self.account = Recorder(self.events, "%s-%s" % (self.phase, self.who))
        self.draw = random.Random("%s %s %s" % (self.seed, self.phase, self.who))
        self.own = {}  # tag -> id, of entries that are surely there
        self.numbers = 0
        self.last = {}  # kind of race -> its last number
        steps = (
            (self.make, 18), (self.race, 6), (self.claim, 6), (self.set_shared, 25), (self.add_shared, 8),
            (self.set_own, 14), (self.write_file, 7), (self.look, 8), (self.delete, 4),
        )
        kinds, weights = zip(*steps)
        while not self.switch.stopped:
            step = self.draw.choices(kinds, weights)[0]
            if len(self.own) > ENTRIES:
                step = self.delete
            elif not self.own:
                step = self.make
            step()
            time.sleep(self.draw.uniform(0, 2 * self.pause))

    def attempt(self, op, action, surely=False, **asked):
        """Does something with a line before and after; gives whether it was acknowledged. What is `surely` possible must
        not be refused."""
        quiet = self.switch.quiet
        number = self.account.begin(op, **asked)
        try:
            told = action() or {}
        except OSError as error:
            result = REFUSALS.get(error.errno) or errno.errorcode.get(error.errno, str(error.errno))
            self.account.end(number, result)
            if surely and quiet[1] and quiet == self.switch.quiet:
                self.account.violation("%s: %s %s" % (result, op, asked))
            if result not in REFUSALS.values():
                time.sleep(0.05)  # a mount that fails at once must not be asked in a tight loop
            return False
        self.account.end(number, told.pop("result", OK), **told)
        return True

    def fresh(self, prefix=""):
        self.numbers += 1
        return "%s%s.%s.%d" % (prefix, self.phase, self.who, self.numbers)

    def entry(self, ident, *more):
        return os.path.join(self.mnt, "entries", ident, *more)

    def make(self):
        tag = self.fresh()
        attrs = {"tag": tag, "worker": self.who, "number": self.numbers, "status": "new"}
        name = "new/" + ",".join("%s=%s" % pair for pair in attrs.items())
        path = os.path.join(self.mnt, name)
        ident = []

        def act():
            os.mkdir(path)
            try:
                ident.append(get(path + "/.attrs/_id").strip())
                return {"id": ident[0]}
            except OSError:
                return {}

        if self.attempt("create", act, surely=True, name=tag, attrs=attrs) and ident:
            self.own[tag] = ident[0]

    def race(self):
        """All make the same entry at the same time, and later take the same entry away."""
        number = int(time.monotonic() * 2)
        if self.last.get("race") == number:
            return
        self.last["race"] = number
        name = "race.%s.%d" % (self.phase, number)
        if self.attempt("create", lambda: os.mkdir(self.entry(name)), name=name, attrs={}):
            self.attempt("set", lambda: put(self.entry(name, ".attrs/winner"), self.who), name=name,
                         values={"winner": self.who})
        old = "race.%s.%d" % (self.phase, number - 6)
        self.attempt("delete", lambda: os.rmdir(self.entry(old)), name=old)

    def claim(self):
        """All claim the same memo."""
        number = int(time.monotonic() * 3)
        if self.last.get("claim") == number:
            return
        self.last["claim"] = number
        tag = "memo.%s.%d" % (self.phase, number)
        path = os.path.join(self.mnt, "memo", "tag=%s,kind=claim" % tag)

        def act():
            try:
                os.mkdir(path)
                result = "won"
            except FileExistsError:
                result = "found"
            try:
                return {"result": result, "id": get(path + "/.attrs/_id").strip()}
            except OSError:
                return {"result": result}

        self.attempt("memo", act, name=tag, attrs={"tag": tag, "kind": "claim"})

    def set_shared(self):
        """Everybody has an attribute of its own in entries that everybody changes."""
        tag, ident = self.draw.choice(list(self.shared.items()))
        self.set(tag, ident, "%s-%s" % (self.phase, self.who))

    def set_own(self):
        tag, ident = self.draw.choice(list(self.own.items()))
        self.set(tag, ident, self.draw.choice(["loss", "opt.name", "status"]))

    def set(self, tag, ident, key):
        self.numbers += 1
        value = self.numbers if key != "status" else self.draw.choice(["running", "done", "failed"])
        way = self.draw.randrange(3)
        if way == 0:
            acknowledged = self._set(tag, key, value, lambda: put(self.entry(ident, ".attrs", key), str(value)))
        elif way == 1:
            acknowledged = self._set(
                tag, key, value, lambda: os.setxattr(self.entry(ident), "user." + key, str(value).encode()))
        else:
            members = {key: value}
            for member in reversed(key.split(".")):
                members = {member: value if member == key.split(".")[-1] else members}
            acknowledged = self._set(tag, key, value, lambda: self._merge(ident, members))
        if acknowledged:
            self.must_read(self.entry(ident, ".attrs", key), str(value))

    def _merge(self, ident, members):
        descriptor = os.open(self.entry(ident, ".attrs.json"), os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, json.dumps(members).encode())
        finally:
            os.close(descriptor)

    def _set(self, tag, key, value, action):
        # The account's attributes are those of the record: a dotted key is an object in it.
        values = {key: value}
        if "." in key:
            first, second = key.split(".")
            values = {first: {second: value}}
        return self.attempt("set", action, surely=True, name=tag, values=values)

    def must_read(self, path, text):
        """What was acknowledged is there for the next system call."""
        quiet = self.switch.quiet
        try:
            seen = get(path).rstrip("\n")
        except FileNotFoundError:
            seen = None
        except OSError:
            return
        # While a daemon is mounted anew there is nothing at all.
        if seen != text and (seen is not None or (quiet[1] and quiet == self.switch.quiet)):
            self.account.violation("%s is %r, just acknowledged was %r" % (path, seen, text))

    def add_shared(self):
        tag, ident = self.draw.choice(list(self.shared.items()))
        element = self.fresh()
        value = os.path.join(self.mnt, "by-attr/tags[]", element)

        def act():
            try:
                os.mkdir(value)
            except FileExistsError:
                pass
            os.symlink("../../../entries/" + ident, os.path.join(value, ident))

        self.attempt("add", act, surely=True, name=tag, element=element)

    def write_file(self):
        tag, ident = self.draw.choice(list(self.own.items()))
        content = self.draw.randbytes(self.draw.choice([0, 100, 5000, 70000, 300000]))
        name = self.draw.choice(["model", "log"])

        def act():
            with open(self.entry(ident, name), "wb") as file:
                file.write(content)

        self.attempt("file", act, surely=True, name=tag, file=name, sha=digest(content), size=len(content))

    def look(self):
        """Asks; what this process knows to be there must be there."""
        try:
            seen = set(os.listdir(os.path.join(self.mnt, "by-attr/worker", self.who)))
            found = set(os.listdir(os.path.join(self.mnt, "where", "worker = %s and has(number)" % self.who)))
            get(os.path.join(self.mnt, "by-attr/worker", self.who, "table.csv"))
        except OSError:
            return
        for what, names in (("by-attr/worker/" + self.who, seen), ("where/", found)):
            missing = [tag for tag, ident in self.own.items() if ident not in names]
            if missing:
                self.account.violation("%s lacks %s" % (what, ", ".join(missing[:5])))

    def delete(self):
        if not self.own:
            return
        tag = next(iter(self.own))
        ident = self.own.pop(tag)
        directory = self.entry(ident)

        def act():
            for name in os.listdir(directory):
                os.unlink(os.path.join(directory, name))
            os.rmdir(directory)

        self.attempt("delete", act, surely=True, name=tag)


def make_shared(account, mnt, phase):
    """Makes the entries that all processes of a phase change; gives tag -> id."""
    shared = {}
    for number in range(SHARED):
        tag = "shared.%s.%d" % (phase, number)
        path = os.path.join(mnt, "new", 'tag=%s,tags=["first"]' % tag)
        begun = account.begin("create", name=tag, attrs={"tag": tag, "tags": ["first"]})
        os.mkdir(path)
        shared[tag] = get(path + "/.attrs/_id").strip()
        account.end(begun, OK, id=shared[tag])
    return shared


class Program:
    """A program that writes the cache itself, as the Python package does."""

    def __init__(self, who, cache, events, switch, phase, seed, pause):
        self.who, self.cache, self.events, self.switch, self.phase = who, cache, events, switch, phase
        self.draw, self.pause = random.Random("%s %s %s" % (seed, phase, who)), pause

    def run(self):
        account = Recorder(self.events, "%s-%s" % (self.phase, self.who))
        numbers, own = 0, []
        while not self.switch.stopped:
            numbers += 1
            if own and self.draw.random() < 0.4:
                directory, attrs = self.draw.choice(own)
                attrs["loss"] = numbers
                begun = account.begin("set", name=attrs["tag"], values={"loss": numbers})
            else:
                tag = "%s.%s.%d" % (self.phase, self.who, numbers)
                attrs = {"tag": tag, "worker": self.who, "big": 2**70 + numbers}
                begun = account.begin("create", name=tag, attrs=dict(attrs))
                directory = None
            try:
                if directory is None:
                    directory = tempfile.mkdtemp(prefix="item_", dir=self.cache)
                    own = own[-ENTRIES:] + [(directory, attrs)]
                self.save(directory, attrs)
            except OSError as error:
                account.end(begun, errno.errorcode.get(error.errno, str(error)))
                # Its own state may be what nobody has: it does not write that entry again.
                own = [pair for pair in own if pair[1] is not attrs]
                time.sleep(0.05)
                continue
            account.end(begun, OK)
            time.sleep(self.draw.uniform(0, 2 * self.pause))

    def save(self, directory, attrs):
        record = {"_id": directory, "_timestamp": time.time(), **attrs}
        with lock(os.path.join(self.cache, "_lock")):
            with open(os.path.join(self.cache, "_entries"), "a") as log:
                log.write(json.dumps(record))
                log.write("\n")


def lock(path):
    """The lock of the package filelock if there is one, else the flock that it takes."""
    try:
        from filelock import FileLock
    except ImportError:
        return Flock(path)
    return FileLock(path).acquire(poll_interval=0.003)


class Flock:
    def __init__(self, path):
        self.path = path

    def __enter__(self):
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_):
        os.close(self.file)


def tear(cache, account, draw, name):
    """A writer that dies within its record, at any byte of it."""
    directory = tempfile.mkdtemp(prefix="item_", dir=cache)
    attrs = {"tag": name, "worker": "torn"}
    record = json.dumps({"_id": directory, "_timestamp": time.time(), **attrs}) + "\n"
    account.begin("create", name=name, attrs=attrs)
    with Flock(os.path.join(cache, "_lock")):
        with open(os.path.join(cache, "_entries"), "a") as log:
            log.write(record[: draw.randrange(1, len(record) + 1)])
            log.flush()
            os._exit(9)


class Prober:
    """Makes a change on one node and measures how long the others do not see it. If that takes long, how much of it the file
    system below takes until it shows the change to them is measured too: that is not the mount's."""

    LIMIT = 2.0  # seconds
    LONG = 0.5  # seconds after which the log is looked at below the mount, too

    def __init__(self, places, events, switch, phase):
        """`places`: mount -> the cache below it, as that node sees it."""
        self.mounts, self.caches = list(places), places
        self.events, self.switch, self.phase = events, switch, phase

    def run(self):
        account = Recorder(self.events, self.phase + "-prober")
        number, path, tag = 0, None, None
        while not self.switch.stopped:
            number += 1
            here = self.mounts[number % len(self.mounts)]
            try:
                if number % 5 == 1:
                    tag = "probe.%s.%d" % (self.phase, number)
                    begun = account.begin("create", name=tag, attrs={"tag": tag})
                    os.mkdir(os.path.join(here, "new", "tag=" + tag))
                    path = get(os.path.join(here, "new", "tag=" + tag, ".attrs/_id")).strip()
                else:
                    begun = account.begin("set", name=tag, values={"probe": number})
                    put(os.path.join(here, "entries", path, ".attrs/probe"), str(number))
                account.end(begun, OK)
            except OSError as error:
                account.end(begun, errno.errorcode.get(error.errno, str(error)))
                number += -number % 5  # the next makes a new entry
                time.sleep(0.1)
                continue
            self.measure(account, number, here, tag, path)
            time.sleep(0.1)

    def measure(self, account, number, here, tag, ident):
        done, trouble, quiet = time.monotonic(), self.switch.trouble, self.switch.quiet
        waiting = [mount for mount in self.mounts if mount != here]
        below = {}  # mount -> for how long the file system below it did not show the change, where that was found out
        while waiting and not self.switch.stopped:
            for mount in list(waiting):
                try:
                    seen = self.seen(mount, number, tag, ident)
                except FileNotFoundError:
                    seen = False
                except OSError:
                    seen, trouble = False, True
                lag = time.monotonic() - done
                if seen:
                    waiting.remove(mount)
                    trouble = trouble or quiet != self.switch.quiet
                    theirs = below.get(mount, 0.0)
                    theirs = lag if theirs is None else theirs
                    account.line(lag=lag, below=theirs, trouble=trouble, t=time.monotonic())
                    if lag - theirs > self.LIMIT and not trouble:
                        account.violation("%s showed a change of another node after %.1f s, the file system below after %.1f s"
                                          % (mount, lag, theirs))
                elif lag > self.LONG and below.get(mount) is None:
                    shown = self.shown_below(mount, number, tag)
                    if shown:
                        # If it was there the first time, it may have been since the beginning.
                        below[mount] = time.monotonic() - done if mount in below else 0.0
                    else:
                        below[mount] = None
            if waiting and time.monotonic() - done > 120:
                account.violation("%s never showed %s = %d" % (waiting[0], tag, number))
                return
            time.sleep(0.01)

    def shown_below(self, mount, number, tag):
        """Whether the log has the change, as the node of this mount sees it without us."""
        tag, value = '"tag": "%s"' % tag, '"probe": %d' % number
        try:
            with open(os.path.join(self.caches[mount], "_entries")) as log:
                lines = [line for line in log if tag in line]
        except OSError:
            return False
        return any(number % 5 == 1 or value + "," in line or value + "}" in line for line in lines)

    def seen(self, mount, number, tag, ident):
        if number % 5 == 1:
            return ident in os.listdir(os.path.join(mount, "by-attr/tag", tag))
        return get(os.path.join(mount, "entries", ident, ".attrs/probe")) == "%d\n" % number


def start(people):
    """Starts processes."""
    return [sandbox.spawn(person.run) for person in people]
