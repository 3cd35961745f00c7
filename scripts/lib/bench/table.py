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
    def missed(row, noise=True):
        """Whether a row misses its target by more than its noise; or at all."""
        if row["target"] is None:
            return False
        far = row["target"] - row["figure"] if row["faster"] else row["figure"] - row["target"]
        return far > (row["noise"] if noise else 0)

    def verdict(self, grown=None):
        """What there is to say of targets, line by line, and whether they hold: not if nothing that has one was measured.
        `grown` are the rows that grow but should not, if growth was judged."""
        aimed = [row for row in self.rows if row["target"] is not None]
        missed = [row for row in aimed if self.missed(row)]
        doubtful = [row for row in aimed if self.missed(row, noise=False) and not self.missed(row)]
        lines = []
        for what, rows in (("missed", missed), ("missed, but by no more than the noise", doubtful)):
            if rows:
                lines.append("%s: %s" % (what, "; ".join(map(self.shown, rows))))
        if grown:
            lines.append("grows with the cache: " + "; ".join(grown))
        if not aimed and grown is None:
            lines.append("nothing that has a target was measured")
        return lines, not missed and not grown and (bool(aimed) or grown is not None)

    @staticmethod
    def shown(row):
        """A row and its target, in short."""
        against = " / " + row["against"] if row["against"] else ""
        sign = ">=" if row["faster"] else "<="
        return "%s%s: %.4g %s [%s %g]" % (row["row"], against, row["figure"], row["unit"], sign, row["target"])

    def growth(self):
        """The exponents of all rows that were measured at several sizes; those that grow but should not, or none at all if no
        row was measured that should not."""
        grown, judged = [], False
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
                judged |= not large["grows"]
                large["exponent"] = exponent
                label = name + (" / " + against if against else "")
                between = "%d and %d" % (small["entries"], large["entries"])
                note = " (may)" if large["grows"] else " GROWS" if bad else ""
                print("%-52s %-24s %6.2f +- %.2f%s" % (label[:52], between, exponent, noise, note))
                if bad and label not in grown:
                    grown.append(label)
        return grown if judged else None
