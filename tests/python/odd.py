"""Makes a cache with every odd value and key, in one dialect or both in turn.

    odd.py CACHE path|name|mixed
"""

import sys

from writer import Writer

VALUES = [
    None, True, False, 0, 1, 1.0, -1, 0.1, 1e-05, 1e22, 1e16, 123456789012345678, 2**53, 2**53 + 1, 2**63,
    2**63 + 1, 2**70, -(2**70), 10**400, 5e-324, 1.7976931348623157e308, -0.0, 0.30000000000000004,
    float("nan"), float("inf"), float("-inf"),
    "", "a", "0.1", "1", "true", "null", "NaN", "Infinity", "[1]", "{}", '"', '"a"', "a b", " 1 ", " a ",
    ".", "..", "a/b", "/", "%", "%41", "%2F", "a=b,c", "line\nbreak", "tail\n", "\n", "tab\there", "\x00",
    "nul\x00byte", "\x01", "\x7f", "\u0085", "grün", "日本語", "😀", "e\u0301", "\ud800", "a\udcffb", "x" * 300,
    "é" * 200, "日" * 100, "/" * 100, "-x", "~", "*", "a\\b", "'",
    [], {}, [1, 2.0, "a", None, True], [[1], {"a": {"b": []}}], ["a", "b", "a"], [0.10, float("nan"), 2**70],
    ["\ud800", "é"], [{}], {"k": {}}, {"a": 1, "b": {"c": "x", "d": [1]}}, {"": {"": 0}}, {"a.b": {"c": 1}},
]  # fmt: skip

KEYS = [
    "plain", "", ".", "..", "a.b", ".hidden", "a/b", "%", "%2E", "a%2Eb", '"', '""', "tags[]", "[]", "a b",
    "a=b", "a,b", "line\nbreak", "\x00", "\x7f", "grün", "日本語", "\ud800", "k" * 300, "é" * 150, "_x", "-", "~",
]  # fmt: skip


def main():
    cache, dialects = sys.argv[1:]
    kinds = ["path", "name"] if dialects == "mixed" else [dialects]
    writers = [Writer(cache, kind) for kind in kinds]
    turn = 0

    def new(**attrs):
        nonlocal turn
        turn += 1
        writers[turn % len(writers)].new(**attrs)

    for number, value in enumerate(VALUES):
        new(number=number, value=value)
        # The same value again: equal ones share a directory.
        new(number=number, value=value, again=True)
    new(**{key: number for number, key in enumerate(KEYS)})
    for key in KEYS:
        new(**{"outer": {key: {"inner": key}}})
    new()


if __name__ == "__main__":
    main()
