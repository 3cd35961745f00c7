"""Writes entries as the programs of both generations do, and prints each acknowledged state: `ID JSON`.

    writer.py CACHE COUNT TAG path|name
"""

import json
import os
import sys
import tempfile
import time

from filelock import FileLock


class Writer:
    def __init__(self, cache, dialect):
        self.cache = os.path.abspath(cache)
        self.dialect = dialect
        self.lock = FileLock(os.path.join(cache, "_lock"))

    def new(self, **attrs):
        directory = tempfile.mkdtemp(prefix="item_" if self.dialect == "path" else "e", dir=self.cache)
        self.save(directory, attrs)
        return directory

    def save(self, directory, attrs):
        if self.dialect == "path":
            record = {"_id": directory, "_timestamp": time.time(), **attrs}
        else:
            record = {**attrs, "@": os.path.basename(directory), "$": time.time()}
        # The same lock, asked for more often than every 50 ms.
        with self.lock.acquire(poll_interval=0.001):
            with open(os.path.join(self.cache, "_entries"), "a") as log:
                log.write(json.dumps(record))
                log.write("\n")
        print(os.path.basename(directory), json.dumps(attrs), flush=True)


def main():
    cache, count, tag, dialect = sys.argv[1:]
    writer = Writer(cache, dialect)
    for number in range(int(count)):
        attrs = {"writer": tag, "number": number, "lr": 1e-05 * (number + 1), "big": 2**70 + number}
        directory = writer.new(**attrs)
        with open(os.path.join(directory, "out"), "w") as out:
            out.write(f"{tag} {number}\n")
        if number % 5 == 0:
            attrs["loss"] = 1.0 / (number + 1)
            writer.save(directory, attrs)


if __name__ == "__main__":
    main()
