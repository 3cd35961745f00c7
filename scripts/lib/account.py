"""The account of a load: what every process asked for, what was acknowledged, and whether a cache tells the same.

A process writes what it is about to do *before* it does it, and what came of it afterwards, as lines of JSON in a file of
its own. What was acknowledged must be in the cache. What failed, or was never answered (its process or node died),
may be there as a whole or not at all. What nobody asked for must not be there.

Every entry has a name in the account: its attribute `tag`, or else its id. Every attribute of an entry has one process
that sets it, so the order of its values is known; `tags` is an array to which everybody adds.
"""

import collections
import hashlib
import json
import os
import time

RESERVED = ("_id", "_timestamp", "@", "$")
OK = "ok"


class Recorder:
    """One process's part of the account."""

    def __init__(self, directory, who):
        self.who = who
        self.file = os.open(os.path.join(directory, who + ".jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.number = 0

    def line(self, **members):
        os.write(self.file, (json.dumps(members) + "\n").encode())

    def begin(self, op, **members):
        """Says what is about to be done; gives its number."""
        self.number += 1
        self.line(n=self.number, op=op, t=time.monotonic(), **members)
        return self.number

    def end(self, number, result, **members):
        """Says what came of it."""
        self.line(of=number, result=result, t=time.monotonic(), **members)

    def violation(self, what):
        """Something that must never be seen was seen."""
        self.line(violation=what, t=time.monotonic())


class Operation:
    """Something that was asked for. `result` is None if nobody knows what came of it."""

    __slots__ = ("who", "op", "asked", "begun", "ended", "result", "told")

    def __init__(self, who, line):
        self.who, self.op, self.asked, self.begun = who, line["op"], line, line["t"]
        self.ended, self.result, self.told = None, None, {}

    @property
    def done(self):
        return self.result in (OK, "won", "found")

    @property
    def refused(self):
        """The answer was that nothing was done, and it is to be believed."""
        return self.result in ("EEXIST", "ENOENT", "ENOTEMPTY")


class Account:
    """Everything that was asked for, by all processes."""

    def __init__(self, directory):
        self.operations, self.violations, self.lags, self.notes = [], [], [], collections.Counter()
        for name in sorted(os.listdir(directory)):
            self._read(os.path.join(directory, name), name[: -len(".jsonl")])
        self.operations.sort(key=lambda operation: operation.begun)

    def _read(self, path, who):
        open_ones = {}
        with open(path) as file:
            for text in file:
                if not text.endswith("\n"):
                    break  # its process died within the line
                line = json.loads(text)
                if "violation" in line:
                    self.violations.append("%s at %.3f: %s" % (who, line["t"], line["violation"]))
                elif "lag" in line:
                    self.lags.append(line)
                elif "of" in line:
                    operation = open_ones.pop(line["of"])
                    operation.result, operation.ended, operation.told = line["result"], line["t"], line
                else:
                    open_ones[line["n"]] = operation = Operation(who, line)
                    self.operations.append(operation)

    def results(self, since=0.0):
        """How many operations of each kind had each result."""
        counts = collections.Counter()
        for operation in self.operations:
            if operation.begun >= since:
                counts[operation.op, operation.result or "unanswered"] += 1
        return counts

    def model(self):
        """What must, and what may be in the cache: name -> Expected."""
        model = collections.defaultdict(Expected)
        for operation in self.operations:
            if "name" in operation.asked:
                model[operation.asked["name"]].take(operation)
        return model

    def check(self, entries, files=None):
        """Compares entries (id -> attributes) with the account; gives what is wrong, as texts.

        `files`, if given, reads a file of an entry: files(id, file) -> bytes or None.
        """
        wrong, found = [], {}
        for ident, attrs in entries.items():
            name = attrs.get("tag", ident)
            if name in found:
                wrong.append("%s is there twice: %s and %s" % (name, found[name], ident))
            found[name] = ident
        model = self.model()
        for name, ident in found.items():
            if name not in model:
                wrong.append("nobody made %s (%s)" % (name, ident))
        for name, expected in model.items():
            ident = found.get(name)
            wrong.extend("%s (%s): %s" % (name, ident, text) for text in expected.check(ident, entries, files))
        return wrong + self.violations


class Expected:
    """What must, and what may be known of one entry."""

    def __init__(self):
        self.makers, self.deletions, self.ids = [], [], set()
        self.base = {}
        self.values = collections.defaultdict(list)
        self.files = collections.defaultdict(list)
        self.elements = []

    def take(self, operation):
        asked = operation.asked
        if operation.op in ("create", "memo"):
            self.makers.append(operation)
            self.base = asked.get("attrs", {})
            if "id" in operation.told:
                self.ids.add(operation.told["id"])
        elif operation.op == "delete":
            self.deletions.append(operation)
        elif operation.op == "add":
            self.elements.append(operation)
        elif operation.op == "file":
            self.files[asked["file"]].append(operation)
        else:
            for key, value in asked["values"].items():
                self.values[key].append((operation, value))

    def check(self, ident, entries, files):
        if len(self.ids) > 1:
            yield "has several ids: %s" % ", ".join(sorted(self.ids))
        ends = possible_ends(self.makers, self.deletions)
        if not ends:
            yield "cannot have come about: %s" % ", ".join(
                "%s by %s at %.2f to %.2f" % (each.op, each.who, each.begun, each.ended or 0)
                for each in self.makers + self.deletions if not each.refused)
            return
        if any(maker.result == "found" for maker in self.makers) or self._used():
            # Somebody has seen it.
            if not any(maker.result in (OK, "won") or not maker.result for maker in self.makers) and all(
                    maker.refused or maker.result == "found" for maker in self.makers):
                yield "was seen, but nobody has made it"
            if not any(not deletion.refused for deletion in self.deletions):
                ends = ends & {True}
        if (ident is not None) not in ends:
            yield "was acknowledged, and is lost" if ident is None else "is there, but was deleted, or never made"
            return
        if ident is None:
            return
        if self.ids and ident not in self.ids:
            yield "was made as %s" % ", ".join(self.ids)
        yield from self._attributes(entries[ident])
        if files and not self.deletions:
            yield from self._files(ident, files)

    def _used(self):
        """Whether something was done to it: then it was there."""
        histories = [operation for history in self.values.values() for operation, _ in history]
        return any(operation.done for operation in histories + self.elements)

    def _attributes(self, attrs):
        for key in attrs:
            if key not in self.base and key not in self.values and key not in RESERVED and not (key == "tags" and self.elements):
                yield "nobody set %s = %r" % (key, attrs[key])
        for key, value in self.base.items():
            if key not in self.values and attrs.get(key) != value and not (key == "tags" and self.elements):
                yield "%s is %r, made with %r" % (key, attrs.get(key), value)
        for key, history in self.values.items():
            first = [self.base[key]] if key in self.base else [None]
            if len({operation.who for operation, _ in history}) > 1:
                # The entry was made, deleted and made again: whoever made it set this.
                if attrs.get(key) not in first + [value for _, value in history]:
                    yield "%s is %r, which nobody set" % (key, attrs.get(key))
                continue
            allowed, must = allowed_values(history, first)
            if attrs.get(key) not in allowed:
                yield "%s is %r, acknowledged was %r%s" % (key, attrs.get(key), must, _others(allowed, must))
        if not self.elements:
            return
        there, first = attrs.get("tags", []), self.base.get("tags", [])
        asked = {operation.asked["element"] for operation in self.elements}.union(first)
        done = {operation.asked["element"] for operation in self.elements if operation.done}.union(first)
        lost, invented = done - set(there), set(there) - asked
        if lost:
            yield "%d of %d acknowledged elements of tags are lost: %s" % (len(lost), len(done), sorted(lost)[:5])
        if invented or len(there) != len(set(there)):
            yield "tags has what nobody added, or twice: %s" % sorted(invented)[:5]

    def _files(self, ident, files):
        for name, operations in self.files.items():
            history = [(operation, operation.asked["sha"]) for operation in operations]
            last = max((i for i, (operation, _) in enumerate(history) if operation.done), default=None)
            if last is None or last + 1 < len(history):
                continue  # a write that failed half-way leaves what it leaves
            content = files(ident, name)
            if content is None or digest(content) != history[last][1]:
                size = "is not there" if content is None else "has %d other bytes" % len(content)
                yield "file %s %s, %d bytes were written and closed" % (name, size, operations[last].asked["size"])


def possible_ends(makers, deletions):
    """Whether an entry can be there, or not, in the end: the set of answers, empty if what was acknowledged contradicts itself.

    Of all orders that agree with the clock, one in which every entry is made only while it is not there and deleted only while
    it is. What was never answered may have happened at any time after it was asked for, or not at all.
    """
    steps = []
    for operations, makes in ((makers, True), (deletions, False)):
        for each in operations:
            if each.result in (OK, "won"):
                steps.append((each.begun, each.ended, makes, True))
            elif not each.refused and each.result != "found":
                steps.append((each.begun, float("inf"), makes, False))
    steps.sort()
    seen, ends = set(), set()

    def go(left, there):
        if (left, there) in seen:
            return
        seen.add((left, there))
        if not any(steps[i][3] for i in left):
            ends.add(there)
        first_end = min((steps[i][1] for i in left if steps[i][3]), default=float("inf"))
        for i in left:
            begun, _, makes, _ = steps[i]
            if begun <= first_end and makes != there:
                go(left - {i}, makes)

    go(frozenset(range(len(steps))), False)
    return ends


def allowed_values(history, first):
    """Which values an attribute may have in the end, and which was acknowledged last."""
    allowed = list(first)
    for operation, value in history:
        if operation.done:
            allowed = [value]
        elif not operation.refused:
            allowed.append(value)
    return allowed, allowed[0]


def _others(allowed, must):
    others = [value for value in allowed if value != must]
    return " (or, unanswered, %r)" % others[:5] if others else ""


def digest(content):
    return hashlib.sha256(content).hexdigest()[:16]


def read_log(path):
    """The entries of a log as a Python program reads them (id -> attributes), and the lines that are none."""
    entries, bad = {}, []
    with open(path, "rb") as log:
        data = log.read()
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        record, start = None, 0
        while record is None and start >= 0:
            # A good record behind a torn one, whose writer did not look, counts.
            try:
                record = json.loads(line[start:])
                ident = os.path.basename(record["_id"] if "_id" in record else record["@"])
            except (ValueError, KeyError, TypeError):
                record, start = None, line.find(b"{", start + 1)
        if start != 0:
            bad.append((number, line[:80] if start < 0 else line[:start]))
        if record is None:
            continue
        if record.get("_deleted"):
            entries.pop(ident, None)
        else:
            entries[ident] = record
    return entries, bad


def attributes(record):
    """A record without its reserved members."""
    return {key: value for key, value in record.items() if key not in RESERVED}
