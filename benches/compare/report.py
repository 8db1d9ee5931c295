"""What came out, as a table (plain or Markdown) and as CSV: medians over the rounds, and ratios taken within each round."""

import csv
import statistics
from dataclasses import dataclass

COLUMNS = ("case", "round", "proxy", "unit", "units", "figure", "measured", "user_us", "system_us", "wall_seconds",
           "cpu_share", "p50_ms", "p99_ms", "load_late_p99_ms")


@dataclass
class Spread:
    middle: float
    least: float
    most: float

    def __str__(self):
        return f"{self.middle:.2f} ({self.least:.2f} to {self.most:.2f})"


def spread(figures):
    figures = list(figures)
    return Spread(statistics.median(figures), min(figures), max(figures))


class Result:
    """A case and its rounds."""

    def __init__(self, case, contestants, rounds):
        self.case, self.rounds = case, rounds
        self.titles = {proxy.name: proxy.title for proxy in contestants}
        self.figures = {name: spread(found[name].figure for found in rounds) for name in self.titles}
        self.ours, *self.others = self.titles

    def ratio(self, other, figure=lambda outcome: outcome.figure):
        """Ours to another's; of a case with variants, another's to the first."""
        pairs = [(figure(found[self.ours]), figure(found[other])) for found in self.rounds]
        if self.case.variants:
            return spread(theirs / ours for ours, theirs in pairs)
        return spread(ours / theirs for ours, theirs in pairs)

    def best(self):
        """The peer that costs least; of variants, the last one."""
        if self.case.variants:
            return self.others[-1]
        return min(self.others, key=lambda name: self.figures[name].middle, default=None)

    def middle(self, name, column):
        """Of a latency, in ms."""
        return statistics.median(found[name].latency[column] for found in self.rounds)

    def missed(self):
        """What of the bar is missed, in sentences."""
        best, sentences = self.best(), []
        if best is None:
            return sentences
        ratio = self.ratio(best).middle
        if self.case.bar is not None and not ratio <= self.case.bar:
            what = f"{self.titles[best]} costs {ratio:.2f} of {self.titles[self.ours]}" if self.case.variants \
                else f"scorefront costs {ratio:.2f} of {self.titles[best]}"
            sentences.append(f"{self.case.name}: {what}, not {self.case.bar:.2f} or less")
        if self.case.has_latency:
            other = min(self.others, key=lambda name: self.middle(name, "p99"))
            ratio = self.ratio(other, lambda outcome: outcome.latency["p99"]).middle
            if not ratio <= 1:
                sentences.append(f"{self.case.name}: p99 is {ratio:.2f} of {self.titles[other]}'s, not 1 or less")
        return sentences


def verdict(result):
    """The bar, and whether it is met."""
    if result.case.bar is None or result.best() is None:
        return "–"
    return f"{result.case.bar:.2f}: {'missed' if result.missed() else 'met'}"


def table(results):
    """Rows of text: those against peers."""
    names = list(dict.fromkeys(name for result in results for name in result.titles))
    titles = {name: title for result in results for name, title in result.titles.items()}
    rows = [["case", "of one", *(titles[name] for name in names), "to the best of the others", "at most"]]
    for result in results:
        best = result.best()
        figures = [f"{result.figures[name].middle:.1f}" for name in names]
        ratio = f"{result.ratio(best)} {result.titles[best]}" if best else "–"
        rows.append([result.case.title, f"{result.case.unit}, {result.case.measured}", *figures, ratio, verdict(result)])
    return rows


def own_table(results):
    """scorefront beside itself."""
    rows = [["case", "of one", "figures", "the last to the first", "at most"]]
    for result in results:
        figures = ", ".join(f"{title}: {result.figures[name].middle:.1f}" for name, title in result.titles.items())
        rows.append([result.case.title, f"{result.case.unit}, {result.case.measured}", figures,
                     str(result.ratio(result.best())), verdict(result)])
    return rows


def ratio_table(results):
    """Each peer by itself: ours to its own, median and range."""
    names = list(dict.fromkeys(name for result in results for name in result.others))
    titles = {name: title for result in results for name, title in result.titles.items()}
    rows = [["scorefront to", *(titles[name] for name in names)]]
    return rows + [[result.case.title, *(str(result.ratio(name)) for name in names)] for result in results]


def latency_table(results):
    rows = [["ms from when a call was due", "p50", "p99", "p99.9", "scorefront's p99 to it"]]
    for result in results:
        for name, title in result.titles.items():
            figures = [f"{result.middle(name, column):.2f}" for column in ("p50", "p99", "p999")]
            ratio = "–" if name == result.ours else str(result.ratio(name, lambda outcome: outcome.latency["p99"]))
            rows.append([title, *figures, ratio])
    return rows


def tables(results):
    """All that have rows."""
    against = [result for result in results if not result.case.variants]
    with_peers = [result for result in against if result.others]
    own = [result for result in results if result.case.variants]
    timed = [result for result in against if result.case.has_latency]
    return [rows for rows in (against and table(against), with_peers and ratio_table(with_peers),
                              timed and latency_table(timed), own and own_table(own)) if rows]


def markdown(rows):
    head, *body = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *body])


def plain(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def write_csv(file, results):
    """A line for each turn that counts."""
    with open(file, "w", newline="") as output:
        writer = csv.writer(output)
        writer.writerow(COLUMNS)
        for result in results:
            for number, found in enumerate(result.rounds, 1):
                for name, outcome in found.items():
                    user, system, share = "", "", ""
                    if outcome.cpu:
                        user, system = (f"{part * 1e6 / outcome.units:.3f}" for part in
                                        (outcome.cpu.user, outcome.cpu.system))
                        share = f"{outcome.cpu.seconds / outcome.wall:.3f}"
                    writer.writerow([
                        result.case.name, number, name, result.case.unit, outcome.units, f"{outcome.figure:.3f}",
                        result.case.measured, user, system, f"{outcome.wall:.3f}", share,
                        outcome.latency.get("p50", ""), outcome.latency.get("p99", ""), outcome.lag.get("p99", "")])
