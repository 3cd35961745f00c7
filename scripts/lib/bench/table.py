"""The rows of a run, and how they grow with the cache."""

import math
import statistics

# A row that grows by more than this power of the size of the cache grows with it: chance and caches of the processor
# account for less.
GROWTH = 0.2


class Table:
    """The rows of a run."""

    def __init__(self, runs):
        self.runs, self.rows = runs, []
        # The size of the cache that is measured, and the section that measures it.
        self.entries, self.section = 0, ""

    def add(self, name, against, measured, baseline, target=None, faster=False, at=0, grows=False):
        """A row of paired times in seconds: the ratio is measured / baseline, bounded above by `target`; with `faster` it is
        how many times faster than the baseline, bounded below. The target is one for caches of `at` entries or more.
        `grows`: what is measured may grow with the cache. Without a baseline (no times) it is a row of seconds."""
        if not baseline:
            return self.value(name, "s", measured, grows=grows)
        ratios = [b / m if faster else m / b for m, b in zip(measured, baseline)]
        self._row(
            name, ratios, target if self.entries >= at else None, faster, "x faster" if faster else "x time", grows,
            measured=statistics.median(measured), baseline=statistics.median(baseline), against=against)

    def value(self, name, unit, values, target=None, faster=False, at=0, grows=False):
        """A row of figures that are no ratios; `target` bounds them above, with `faster` below."""
        self._row(
            name, values, target if self.entries >= at else None, faster, unit, grows,
            measured=statistics.median(values), baseline=None, against="")

    def _row(self, name, figures, target, faster, unit, grows, **more):
        quartiles = statistics.quantiles(figures, n=4, method="inclusive") if len(figures) > 1 else [figures[0]] * 3
        row = {
            "section": self.section, "entries": self.entries, "row": name, "figure": statistics.median(figures),
            "unit": unit, "noise": (quartiles[2] - quartiles[0]) / 2, "target": target, "faster": faster,
            "grows": grows, "figures": figures, **more,
        }
        self.rows.append(row)
        times = ""
        if row["baseline"] is not None:
            times = "  (%.6f s / %.6f s)  %s" % (row["measured"], row["baseline"], row["against"])
        wanted = ""
        if target is not None:
            wanted = "  [%s %g]%s" % (">=" if faster else "<=", target, " MISSED" if self.missed(row) else "")
        print("%-52s %10.4g %-8s +- %-7.2g%s%s" % (name, row["figure"], unit, row["noise"], times, wanted), flush=True)

    @staticmethod
    def missed(row):
        """Whether a row misses its target by more than its noise."""
        if row["target"] is None:
            return False
        if row["faster"]:
            return row["figure"] + row["noise"] < row["target"]
        return row["figure"] - row["noise"] > row["target"]

    def growth(self):
        """The exponents of all rows that were measured at several sizes; those that grow but should not."""
        grown = []
        sizes = {}
        for row in self.rows:
            sizes.setdefault((row["section"], row["row"], row["against"]), []).append(row)
        print("\n%-52s %-24s %s" % ("grows with the cache as N to the power of", "between", "exponent"))
        for (_, name, against), rows in sizes.items():
            rows.sort(key=lambda row: row["entries"])
            for small, large in zip(rows, rows[1:]):
                if min(small["measured"], large["measured"]) <= 0:
                    continue
                span = math.log(large["entries"] / small["entries"])
                exponent = math.log(large["measured"] / small["measured"]) / span
                # How far the figures scatter, as a power.
                noise = sum(row["noise"] / abs(row["figure"]) for row in (small, large)) / span
                bad = not large["grows"] and exponent - noise > GROWTH
                large["exponent"] = exponent
                label = name + (" / " + against if against else "")
                between = "%d and %d" % (small["entries"], large["entries"])
                note = " (may)" if large["grows"] else " GROWS" if bad else ""
                print("%-52s %-24s %6.2f +- %.2f%s" % (label[:52], between, exponent, noise, note))
                if bad and label not in grown:
                    grown.append(label)
        return grown
