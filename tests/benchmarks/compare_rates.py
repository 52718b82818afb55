"""How often `compare` calls a change that is none, and how often it finds a slowdown that is one.

    python -m tests.benchmarks.compare_rates VISITS... [-o results/compare] [--pairs 200] [--slowdown 0.03]

VISITS: run folders, or files that this command wrote (`visits.csv`). A simulated pair is made of real rounds: `ROUNDS`
consecutive ones of one recording, with the rows of one file in roles drawn at random (base, its A/A row, new). Under
other hashes these go through `compare_sides` as run folders do. No number is drawn from a distribution. The slowdown
is made by multiplying every latency of the new side: that is the only thing that is not measured.

Designs: `paired`, both sides in one interleaved run; `referenced`, two runs at different times, with another network
whose file did not change in both; `apart`, the same without it; `confirmed`, `referenced` and then, for what is
suspected, a `paired` run of other rounds (`--confirm`). A recording too short for that many different rounds is drawn
from in blocks of `SHORT_BLOCK`, and rows of different networks are brought to one level first.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from scipy.special import betaincinv

from finet_deploy.bench.records import Run, read_run
from finet_deploy.bench.statistics import verdict
from finet_deploy.compare.changes import RowChange
from finet_deploy.compare.comparison import compare_sides
from finet_deploy.compare.sides import Side
from finet_deploy.files import atomic_write_bytes, atomic_write_text
from finet_deploy.json_files import encode_json
from finet_deploy.report.markdown import render_table
from tests.benchmarks.compare_recording import Recording, read_recordings, visit_lines, write_visits
from tests.compare_runs import simulated_run

ROUNDS = 10  # of preset `normal`
SHORT_BLOCK = 2
Columns = dict[str, tuple[str, list[float]]]  # row -> (file, images per second by round)


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """How often something was called, with the exact binomial 95 % interval (Clopper and Pearson)."""

    calls: int
    of: int
    low: float
    high: float

    @classmethod
    def count(cls, calls: int, of: int) -> Rate:
        low = float(betaincinv(calls, of - calls + 1, 0.025)) if calls else 0.0
        high = float(betaincinv(calls + 1, of - calls, 0.975)) if calls < of else 1.0
        return cls(calls=calls, of=of, low=low, high=high)

    def __str__(self) -> str:
        return f"{self.calls / self.of:.1%} ({self.low:.1%} to {self.high:.1%})"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One design on one recording. false_slower fails a build, false_any counts `faster` too; found: the slowdown."""

    runtime: str
    recorded_rounds: int
    design: str
    rounds: int
    false_slower: Rate
    false_any: Rate
    found: Rate
    table_rule_found: Rate | None
    verdicts_without_change: dict[str, int]
    verdicts_with_slowdown: dict[str, int]


class Noise(msgspec.Struct, frozen=True, kw_only=True):
    """Standard deviations of ln(images per second): of visits of a row in a run, of A minus A/A of one round, of the
    means of runs (what rounds explain is in it), and of those means less the reference's."""

    runtime: str
    runs: int
    rounds: int
    same_file_rows: int
    visit: float
    same_round_difference: float
    run_mean: float | None
    run_mean_to_reference: float | None


class Simulation:
    """Draws pairs from one recording."""

    def __init__(self, recording: Recording, random: np.random.Generator) -> None:
        self.recording, self.random, self.made = recording, random, 0
        self.short = len(recording.rounds) < 6 * ROUNDS
        self.levelled = len(recording.same) < 3
        names = (*recording.same, *(recording.others if self.levelled else ()))
        logs = {name: np.log([rates[name] for rates in recording.rounds]) for name in names}
        if (
            self.levelled
        ):  # other networks stand in for the missing twins: at one level, with their own scatter
            stretch = np.sqrt(len(recording.rounds) / (len(recording.rounds) - 1))
            logs = {name: (values - values.mean()) * stretch for name, values in logs.items()}
        self.logs, self.names = logs, names

    def window(self, rounds: int, avoid: np.ndarray | None = None) -> np.ndarray:
        """Numbers of rounds: consecutive, and none of `avoid`; of a short recording in short blocks, repeated."""
        total = len(self.recording.rounds)
        if self.short:
            starts = self.random.integers(total - SHORT_BLOCK + 1, size=-(-rounds // SHORT_BLOCK))
            return np.concatenate([np.arange(start, start + SHORT_BLOCK) for start in starts])[:rounds]
        while True:
            found = np.arange(rounds) + self.random.integers(total - rounds + 1)
            if avoid is None or not np.intersect1d(found, avoid).size:
                return found

    def roles(self, count: int, window: np.ndarray) -> list[list[float]]:
        """Images per second of `count` different rows of one file; drawn anew for each block of a short recording."""
        block = SHORT_BLOCK if self.short else len(window)
        columns: list[list[float]] = [[] for _ in range(count)]
        for start in range(0, len(window), block):
            names = self.random.permutation(self.names)[:count]
            for column, name in zip(columns, names):
                column += list(100 * np.exp(self.logs[name][window[start : start + block]] - self._center))
        return columns

    @property
    def _center(self) -> float:
        return float(np.mean([values.mean() for values in self.logs.values()]))

    def run(self, columns: Columns) -> Run:
        """A run folder that was never written, with these rates as its visits."""
        self.made += 1
        latencies = {
            name: (file, [round(1e9 / rate) for rate in rates]) for name, (file, rates) in columns.items()
        }
        return simulated_run(f"simulated-{self.made}", latencies)

    def paired(self, slowdown: float, rounds: int, avoid: np.ndarray | None = None) -> RowChange:
        """Base, its A/A row and new in one run."""
        base, again, new = self.roles(3, self.window(rounds, avoid))
        columns = {"base": ("old", base), "A/A: base": ("old", again), "new": ("new", _slowed(new, slowdown))}
        return compare_sides(Side("BASE", [self.run(columns)]), None, named=[("base", "new")]).rows[0]

    def two_runs(self, slowdown: float, rounds: int, *, reference: bool) -> tuple[RowChange, np.ndarray]:
        """A row and its A/A row in each of two runs, and the reference where it is wanted; and the rounds used."""
        first = self.window(rounds)
        second = self.window(rounds, avoid=first)
        sides = []
        for name, file, window, factor in (("BASE", "old", first, 0.0), ("NEW", "new", second, slowdown)):
            rates, again = (_slowed(column, factor) for column in self.roles(2, window))
            columns = {"net": (file, rates), "A/A: net": (file, again)}
            for other in self.recording.others if reference else ():
                columns[other] = (other, [self.recording.rounds[number][other] for number in window])
            sides.append(Side(name, [self.run(columns)]))
        row = next(row for row in compare_sides(*sides).rows if row.network == "net")
        return row, np.concatenate([first, second])

    def confirmed(self, slowdown: float, rounds: int) -> RowChange:
        """Two runs; a suspect is measured again, and what that says holds."""
        row, used = self.two_runs(slowdown, rounds, reference=True)
        return self.paired(slowdown, rounds, avoid=used) if row.suspect else row

    def designs(self) -> dict[str, tuple[int, Callable[[float, int], RowChange]]]:
        """Those that this recording allows, each with its rounds a side."""
        found: dict[str, tuple[int, Callable[[float, int], RowChange]]] = {"paired": (ROUNDS, self.paired)}
        if not self.short:
            found["paired, 20 rounds"] = (2 * ROUNDS, self.paired)
            found["apart"] = (ROUNDS, lambda slow, rounds: self.two_runs(slow, rounds, reference=False)[0])
        if not self.short and self.recording.others:
            found["referenced"] = (
                ROUNDS,
                lambda slow, rounds: self.two_runs(slow, rounds, reference=True)[0],
            )
            found["confirmed"] = (ROUNDS, self.confirmed)
        return found


def _slowed(rates: Sequence[float], slowdown: float) -> list[float]:
    return [rate / (1 + slowdown) for rate in rates]


def measure(recording: Recording, pairs: int, slowdown: float, seed: int) -> list[Result]:
    """Every design on one recording."""
    simulation = Simulation(recording, np.random.default_rng(seed))
    results = []
    for design, (rounds, draw) in simulation.designs().items():
        none = [draw(0.0, rounds) for _ in range(pairs)]
        slow = [draw(slowdown, rounds) for _ in range(pairs)]
        calls, found = (Counter(row.verdict for row in rows) for rows in (none, slow))
        table_rule = sum(verdict(row.ratio, row.noise_floor) == "slower" for row in slow)
        results.append(
            Result(
                runtime=recording.runtime,
                recorded_rounds=len(recording.rounds),
                design=design,
                rounds=rounds,
                false_slower=Rate.count(calls["slower"], pairs),
                false_any=Rate.count(calls["slower"] + calls["faster"], pairs),
                found=Rate.count(found["slower"], pairs),
                table_rule_found=Rate.count(table_rule, pairs) if design.startswith("paired") else None,
                verdicts_without_change=dict(calls),
                verdicts_with_slowdown=dict(found),
            )
        )
    return results


def noise(recording: Recording) -> Noise:
    """How this recording scatters."""
    logs = {name: np.log([rates[name] for rates in recording.rounds]) for name in recording.rounds[0]}
    runs = {run: np.array([own == run for own in recording.runs]) for run in dict.fromkeys(recording.runs)}
    first, second = (logs[name] for name in (*recording.same, *recording.others)[:2])
    means = {name: [values[mask].mean() for mask in runs.values()] for name, values in logs.items()}
    whole = len(runs) > 2
    reference = np.array(means[recording.others[0]]) if recording.others and whole else None
    own = np.array(means[recording.same[0]])
    return Noise(
        runtime=recording.runtime,
        runs=len(runs),
        rounds=len(recording.rounds),
        same_file_rows=len(recording.same),
        visit=float(np.sqrt(np.mean([v[m].var(ddof=1) for v in logs.values() for m in runs.values()]))),
        same_round_difference=float((first - second).std(ddof=1)),
        run_mean=float(own.std(ddof=1)) if whole else None,
        run_mean_to_reference=float((own - reference).std(ddof=1)) if reference is not None else None,
    )


def render(noises: Sequence[Noise], results: Sequence[Result], slowdown: float) -> str:
    """Both tables as Markdown."""
    columns = [
        "runtime",
        "recorded rounds",
        "design",
        "rounds a side",
        "called slower, was not",
        "any false call",
    ]
    columns += [f"{slowdown:.0%} slowdown found", "found by the tables' own rule"]
    rows = []
    for item in results:
        rates = (item.false_slower, item.false_any, item.found, item.table_rule_found or "–")
        counts = (item.recorded_rounds, item.design, item.rounds)
        rows.append([item.runtime, *map(str, counts), *map(str, rates)])
    scatter = [
        "runtime",
        "runs",
        "rounds",
        "rows of one file",
        "visits in a run",
        "two rows of one file, same round",
    ]
    scatter += ["means of runs", "means of runs, less the reference's"]
    deviations = []
    for one in noises:
        values = (one.visit, one.same_round_difference, one.run_mean, one.run_mean_to_reference)
        shown = ["–" if value is None else f"{value:.2%}" for value in values]
        deviations.append([one.runtime, *map(str, (one.runs, one.rounds, one.same_file_rows)), *shown])
    parts = [
        "# How often compare is wrong, and how much it finds",
        "Simulated pairs made of real rounds of this machine; 95 % intervals are binomial and take the pairs as "
        "independent, which pairs drawn from the same rounds are not quite.",
        render_table(columns, rows),
        "Standard deviations of ln(images per second):",
        render_table(scatter, deviations),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("visits", nargs="+", type=Path)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--slowdown", type=float, default=0.03)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    recordings = read_recordings(options.visits)
    results = [
        result for one in recordings for result in measure(one, options.pairs, options.slowdown, options.seed)
    ]
    noises = [noise(one) for one in recordings]
    text = render(noises, results, options.slowdown)
    print(text)
    if options.output is not None:
        folders = [path for path in options.visits if path.is_dir()]
        if folders:
            write_visits(visit_lines(map(read_run, folders)), options.output / "visits.csv")
        found = {"pairs": options.pairs, "slowdown": options.slowdown, "seed": options.seed}
        found |= {"noise": noises, "results": results}
        atomic_write_bytes(options.output / "rates.json", encode_json(found))
        atomic_write_text(options.output / "rates.md", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
