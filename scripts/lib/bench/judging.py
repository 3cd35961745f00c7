"""What --check makes of rows, checked itself: it must be able to fail."""

import contextlib
import io

from bench.table import Table


def self_test():
    """0 if the verdicts are right; says which are not."""
    wrong = []

    def expect(what, holds, said, fill, growth=False):
        table = Table(5)
        with contextlib.redirect_stdout(io.StringIO()):
            fill(table)
            lines, held = table.verdict(table.growth() if growth else None)
        if held != holds or not all(any(line.startswith(start) for line in lines) for start in said) or len(lines) != len(said):
            wrong.append("%s: %s, %s" % (what, held, lines))

    def slower(table, *ratios, target=1.5, entries=1000, at=0, faster=False):
        table.entries = entries
        table.add("row", "baseline", ratios, [1] * len(ratios), target, at=at, faster=faster)

    def sized(table, *seconds, grows=False):
        for entries, took in zip((10_000, 100_000, 1_000_000), seconds):
            table.entries = entries
            table.value("row", "s", [took] * 5, grows=grows)

    expect("below", True, [], lambda t: slower(t, 1.2, 1.3, 1.4))
    expect("above", False, ["missed:"], lambda t: slower(t, 1.8, 1.9, 2.0))
    expect("above, one run", False, ["missed:"], lambda t: slower(t, 1.51))
    expect("above, within the noise", True, ["missed, but"], lambda t: slower(t, 1.2, 1.6, 2.4))
    expect("too slow", False, ["missed:"], lambda t: slower(t, 1, 1, 1, target=2, faster=True))
    expect("fast enough", True, [], lambda t: slower(t, 0.3, 0.3, 0.3, target=2, faster=True))
    expect("one of two", False, ["missed:"], lambda t: (slower(t, 1, 1), slower(t, 3, 3)))
    expect("no target at this size", False, ["nothing"], lambda t: slower(t, 9, 9, entries=10, at=1000))
    expect("nothing", False, ["nothing"], lambda t: None)
    expect("no growth", True, [], lambda t: sized(t, 1, 1.1, 1.2), growth=True)
    expect("growth", False, ["grows"], lambda t: sized(t, 1, 2, 4), growth=True)
    expect("growth at the end", False, ["grows"], lambda t: sized(t, 1, 1, 2), growth=True)
    expect("growth that may be", False, ["nothing"], lambda t: sized(t, 1, 2, 4, grows=True), growth=True)
    expect("one size", False, ["nothing"], lambda t: sized(t, 1), growth=True)
    for verdict in wrong:
        print("wrong: " + verdict)
    return 1 if wrong else 0
