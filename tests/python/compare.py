"""Reads a cache as a Python program does, and through the mount, and says where they differ.

    compare.py CACHE MNT

The text forms are written down here once more, on their own, from the design.
"""

import json
import math
import os
import re
import sys
import urllib.parse


def load(cache):
    """The last object of each id that was not deleted."""
    found = {}
    with open(os.path.join(cache, "_entries")) as log:
        for line in log:
            record = json.loads(line)
            ident = os.path.basename(record.get("_id") or record.get("@"))
            found[ident] = record
    return {ident: record for ident, record in found.items() if not record.get("_deleted")}


def leaf(value):
    """What makes two values one."""
    if value is None or isinstance(value, bool):
        return ("const", value)
    if isinstance(value, (int, float)):
        return ("number", number_name(value))
    if isinstance(value, str):
        return ("string", value)
    if isinstance(value, list):
        return ("array", tuple(leaf(item) for item in value))
    return ("object", tuple(sorted((name, leaf(item)) for name, item in value.items())))


def number_name(value):
    """The one spelling of a number."""
    if value != value:
        return "NaN"
    if math.isinf(value) if isinstance(value, float) else False:
        return "Infinity" if value > 0 else "-Infinity"
    try:
        double = float(value)
    except OverflowError:
        return str(value)
    if double != value:
        return str(value)
    if double == int(double) and abs(double) < 10**17:
        return str(int(double))
    return repr(double)


def from_text(text):
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def escape_member(member):
    if member == "":
        return '""'
    out = ""
    for place, char in enumerate(member):
        code = ord(char)
        if char in "./%" or code < 0x20 or code == 0x7F or 0xD800 <= code < 0xE000 or (place == 0 and char == '"'):
            out += "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
        else:
            out += char
    return out


def flatten(attrs, prefix=()):
    for name, value in attrs.items():
        if not prefix and name in ("_id", "_timestamp", "@", "$"):
            continue
        if isinstance(value, dict) and value:
            yield from flatten(value, (*prefix, name))
        else:
            key = [escape_member(member) for member in (*prefix, name)]
            if name.endswith("[]"):
                key[-1] = key[-1][:-2] + "%5B%5D"
            yield ".".join(key), value


def file_name(key):
    """A key as a file name; `None` if it has to be cut."""
    return key if len(key.encode()) <= 255 else None


def main():
    cache, mnt = sys.argv[1:]
    wrong = []

    def expect(what, have, want):
        if have != want:
            wrong.append(f"{what}: the mount has {have!r}, Python {want!r}")

    entries = load(cache)
    expect("entries", sorted(os.listdir(f"{mnt}/entries")), sorted(entries))
    by_attr = {}
    for ident, record in sorted(entries.items()):
        path = f"{mnt}/entries/{ident}"
        attrs = dict(flatten(record))
        names = set(os.listdir(f"{path}/.attrs"))
        expect(f"number of attributes of {ident}", len(names), len(attrs))
        expect(f"attributes of {ident}", {n for n in names if "~" not in n}, {k for k in attrs if file_name(k) and "~" not in k})
        for key, value in attrs.items():
            by_attr.setdefault(key, {}).setdefault(repr(leaf(value)), set()).add(ident)
            if isinstance(value, list):
                for item in value:
                    by_attr.setdefault(key + "[]", {}).setdefault(repr(leaf(item)), set()).add(ident)
            if file_name(key) is None:
                continue
            with open(f"{path}/.attrs/{key}", "rb") as file:
                text = file.read().decode()
            expect(f"{ident} {key}: final newline", text[-1:], "\n")
            expect(f"{ident} {key}", repr(leaf(from_text(text[:-1]))), repr(leaf(value)))
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                expect(f"{ident} {key}: spelling", text[:-1], number_name(value))
        with open(f"{path}/.attrs.json") as file:
            expect(f".attrs.json of {ident}", repr(leaf(json.loads(file.read()))), repr(leaf(record)))
        with open(f"{path}/.attrs/_id") as file:
            expect(f"_id of {ident}", file.read(), ident + "\n")
        expect(f"time of {ident}", os.stat(path).st_mode & 0o170000, 0o040000)
    keys = os.listdir(f"{mnt}/by-attr")
    expect("number of keys", len(keys), len(by_attr))
    for key, values in by_attr.items():
        if file_name(key) is None:
            continue
        found = {}
        for name in os.listdir(f"{mnt}/by-attr/{key}"):
            ids = set(os.listdir(f"{mnt}/by-attr/{key}/{name}"))
            if re.search("~[0-9a-f]{16}$", name):
                # Cut: the whole value is in the attribute.
                ident = min(ids)
                value = dict(flatten(entries[ident]))[key.removesuffix("[]")]
                assert len(name.encode()) <= 255, name
            else:
                value = from_text(urllib.parse.unquote(name, errors="strict"))
            expect(f"by-attr/{key}/{name}: its like", repr(leaf(value)) in found, False)
            found[repr(leaf(value))] = ids
        expect(f"by-attr/{key}", found, values)
    if wrong:
        sys.exit("\n".join(wrong[:30]) + f"\n{len(wrong)} differences")


if __name__ == "__main__":
    main()
