"""What users would write instead."""

import json


def python_loop(log, wanted):
    """What a user would write: parse every record, keep what matches; the last record of an id wins."""
    found = {}
    with open(log) as lines:
        for line in lines:
            attrs = json.loads(line)
            name = (attrs.get("_id") or attrs.get("@")).rsplit("/", 1)[-1]
            found[name] = wanted(attrs)
    return [name for name, matched in found.items() if matched]
