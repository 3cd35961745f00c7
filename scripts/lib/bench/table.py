"""The rows of a run."""

import statistics


class Table:
    """The rows of a run."""

    def __init__(self, runs):
        self.runs, self.rows = runs, []

    def add(self, name, against, measured, baseline, target=None, faster=False):
        """A row of paired times in seconds: the ratio is measured / baseline, bounded above by `target`; with
        `faster` it is how many times faster than the baseline, bounded below."""
        ratios = [b / m if faster else m / b for m, b in zip(measured, baseline)]
        quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
        row = {
            "row": name, "against": against, "ratio": statistics.median(ratios), "noise": (quartiles[2] - quartiles[0]) / 2,
            "target": target, "faster": faster,
            "measured": statistics.median(measured), "baseline": statistics.median(baseline),
        }
        self.rows.append(row)
        print("%-52s %9.2f %-8s +-%6.2f  (%.6f s / %.6f s)  %s%s" % (
            name, row["ratio"], "x faster" if faster else "x time", row["noise"], row["measured"], row["baseline"], against,
            "" if target is None else "  [%s %g]%s" % (">=" if faster else "<=", target, " MISSED" if self.missed(row) else "")),
            flush=True)

    @staticmethod
    def missed(row):
        """Whether a row misses its target by more than its noise."""
        if row["target"] is None:
            return False
        if row["faster"]:
            return row["ratio"] + row["noise"] < row["target"]
        return row["ratio"] - row["noise"] > row["target"]
