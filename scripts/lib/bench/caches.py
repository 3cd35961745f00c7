"""Caches of any size, the same in every run."""

import os
import random

MODELS = ["resnet18", "resnet50", "vit-s", "vit-b", "mlp"]
RATES = ["1e-05", "3e-05", "0.0001", "0.001", "0.01", "0.03", "0.1", "0.3", "1.0", "3.0"]
HOSTS = 100
# One seed has so many entries; so one seed and one host have a hundred, however large the cache.
A_SEED = 10_000


def seeds(entries):
    """How many values the attribute `seed` has."""
    return max(1, entries // A_SEED)


def record(draw, number, cache, entries=1_000_000):
    """One record of ten attributes: two of high cardinality, a nested object, an array; both dialects."""
    attrs = (
        '"lr": %s, "model": "%s", "seed": %d, "epochs": %d, "loss": %r, "wall": %r, '
        '"opt": {"name": "%s", "momentum": %s}, "tags": ["%s", "sweep"], "status": "%s", "host": "node%02d"'
        % (
            draw.choice(RATES), draw.choice(MODELS), draw.randrange(seeds(entries)), draw.choice([10, 20, 50, 100]),
            draw.random() ** 2 * 5, draw.random() * 1e4, draw.choice(["adam", "sgd"]), draw.choice(["0.9", "0.99"]),
            draw.choice(["best", "draft", "paper"]), draw.choice(["done", "failed", "running"]), draw.randrange(HOSTS),
        )
    )
    when = 1.7e9 + number
    if number % 2:
        return '{"@": "e%08d", %s, "$": %r}' % (number, attrs, when)
    return '{"_id": "%s/e%08d", %s, "_timestamp": %r}' % (cache, number, attrs, when)


def make_cache(path, entries, directories=0):
    """A cache whose log has `entries` records, the same for every run; the first `directories` of them have directories."""
    os.makedirs(path)
    draw = random.Random(20261122)
    with open(os.path.join(path, "_entries"), "w") as log:
        for number in range(entries):
            log.write(record(draw, number, path, entries) + "\n")
    open(os.path.join(path, "_lock"), "w").close()
    for number in range(min(entries, directories)):
        os.mkdir(os.path.join(path, "e%08d" % number))
