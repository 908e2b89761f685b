"""A model of training on many ranks: what a step costs, and how much of that is communication.

    python3 bench/scale_model.py [--summary bench/results/<machine>/summary.json]
                                 [--page docs/scale.md] [--picture docs/scale-model.svg]

Nothing is measured here.  Computing takes what bench/scale.py has measured on one core of a
machine.  Bytes and calls are counted, exactly as the code makes them (a test compares); what they
cost follows from a latency and a bandwidth that are assumed.  Not in the model: ranks that wait for
a slow one, links that several ranks share, and communication that is hidden behind computing, of
which there is none.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dropwise.network.division import BLOCK_ROWS
from dropwise.network.tree import nodes_of, share_of_rank

BEGIN, END = "<!-- table: made by bench/scale_model.py -->", "<!-- end of table -->"
MODES, SCALINGS = ("exact", "allreduce"), ("weak", "strong")
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
WEAK_ROWS = 1024  # of each rank
STRONG_BLOCKS = 64  # of the whole batch
FLOAT = 4  # bytes
MEMORY = 10e9  # bytes a second that one core adds up or copies, assumed


class Network(NamedTuple):
    """Layers and their dropout."""

    sizes: tuple[int, ...]
    rate: float

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        pairs = zip(self.sizes, self.sizes[1:], strict=False)
        return sum((inputs + 1) * outputs for inputs, outputs in pairs)


NETWORKS = {
    "784-1024-1024-10": Network((784, 1024, 1024, 10), 0.5),
    "784-512-512-10": Network((784, 512, 512, 10), 0.5),
    "spiral": Network((2, 512, 3), 0.1),
    "small": Network((100, 100, 100, 10), 0.5),
}


class Link(NamedTuple):
    """What is assumed of the connection between two ranks."""

    name: str
    latency: float  # seconds for each message
    bandwidth: float  # bytes a second


LINKS = (
    Link("10 Gb/s Ethernet", 30e-6, 1.1e9),
    Link("100 Gb/s InfiniBand", 2e-6, 11e9),
)


class Compute(NamedTuple):
    """What one core takes, in seconds."""

    block: float  # forward and backward of 256 rows
    update: float  # a step of the optimizer, which every rank makes


class Step(NamedTuple):
    """What a step costs the rank that does most, in seconds."""

    computing: float
    latency: float
    sending: float

    @property
    def total(self) -> float:
        return sum(self)

    @property
    def communicating(self) -> float:
        return self.latency + self.sending


# ---- what is sent ------------------------------------------------------------------------------


def bytes_sent(parameters: int, ranks: int, rows: int, mode: str, rank: int) -> int:
    """Bytes that one rank sends in a step: of gradients, and of figures (losses, accuracies)."""
    others = ranks - 1
    figures = 2 * 8 * 2 * others
    if mode == "allreduce":
        return 2 * others * parameters * FLOAT // ranks + figures
    blocks = -(-rows // BLOCK_ROWS)
    mine = share_of_rank(blocks, rank, ranks)
    own = len(share_of_rank(parameters, rank, ranks))
    nodes = _nodes(ranks, rows)[rank]
    gradients = (nodes * (parameters - own) + own * others) * FLOAT
    return gradients + (len(mine) + 1) * 2 * 8 * others


def calls(ranks: int, rows: int, mode: str) -> int:
    """Collective calls of a step: one for each node that some rank has, and two that gather."""
    if mode == "allreduce":
        return 2
    return max(_nodes(ranks, rows)) + 2


def messages(ranks: int, rows: int, mode: str) -> int:
    """Messages that follow one another: rings for gradients, trees of log2(ranks) for figures."""
    doublings = math.ceil(math.log2(ranks))
    if mode == "allreduce":
        return 3 * doublings
    return (max(_nodes(ranks, rows)) + 1) * (ranks - 1) + doublings


@functools.cache
def _nodes(ranks: int, rows: int) -> list[int]:
    """How many nodes of the tree each rank has."""
    blocks = -(-rows // BLOCK_ROWS)
    return [len(nodes_of(share_of_rank(blocks, r, ranks), blocks)) for r in range(ranks)]


# ---- what it costs -----------------------------------------------------------------------------


def step(network: Network, compute: Compute, link: Link, ranks: int, rows: int, mode: str) -> Step:
    """The model of a step of `rows` rows in all."""
    blocks = -(-rows // BLOCK_ROWS)
    share = -(-blocks // ranks) if mode == "exact" else blocks / ranks
    size = network.parameters * FLOAT
    computing = share * compute.block + compute.update
    if ranks == 1:
        return Step(computing, 0.0, 0.0)
    # Gradients are copied out and in; in exact mode each rank adds up a slice of all nodes.
    moved = 2 * 2 * size
    if mode == "exact":
        moved += 3 * sum(_nodes(ranks, rows)) * size // ranks
    computing += moved / MEMORY
    sent = max(bytes_sent(network.parameters, ranks, rows, mode, rank) for rank in (0, ranks - 1))
    latency = messages(ranks, rows, mode) * link.latency
    return Step(computing, latency, sent / link.bandwidth)


def rows_of(scaling: str, ranks: int) -> int:
    """Rows of the whole batch."""
    return WEAK_ROWS * ranks if scaling == "weak" else STRONG_BLOCKS * BLOCK_ROWS


def ranks_of_half(
    network: Network, compute: Compute, link: Link, scaling: str, mode: str
) -> int | None:
    """The least number of ranks that communicate for more than half of a step; None: no number."""

    def is_more(ranks: int) -> bool:
        found = step(network, compute, link, ranks, rows_of(scaling, ranks), mode)
        return found.communicating > found.computing

    return next((ranks for ranks in range(2, RANKS[-1] + 1) if is_more(ranks)), None)


class Row(NamedTuple):
    """A line of the table."""

    network: str
    link: str
    scaling: str  # "weak" or "strong"
    mode: str
    ranks: int
    step: Step
    efficiency: float  # rows a second and rank, in units of those of one rank


def rows_of_table(computes: dict[str, Compute]) -> Iterator[Row]:
    """The model of all networks, links, kinds of scaling and modes."""
    for name, compute in computes.items():
        network = NETWORKS[name]
        for link in LINKS:
            for scaling in SCALINGS:
                for mode in MODES:
                    for ranks in RANKS:
                        rows = rows_of(scaling, ranks)
                        found = step(network, compute, link, ranks, rows, mode)
                        alone = rows_of(scaling, 1)
                        one = step(network, compute, link, 1, alone, mode).total / alone
                        efficiency = one / (found.total * ranks / rows)
                        yield Row(name, link.name, scaling, mode, ranks, found, efficiency)


def computes_of(summary: dict[str, Any]) -> dict[str, Compute]:
    """What bench/scale.py has measured of one rank in exact mode."""
    extra = summary["benches"]["scale-2"]["extra"]
    found = {}
    for name in NETWORKS:
        took = extra.get(f"strong, {name}: 1 rank, exact")
        if took is not None:
            steps = took["steps"]
            update = took["optimizer"] / steps
            blocks = -(-took["rows"] // BLOCK_ROWS)
            found[name] = Compute((took["seconds"] / steps - update) / blocks, update)
    return found


# ---- table and picture -------------------------------------------------------------------------


def page_of(rows: Sequence[Row], computes: dict[str, Compute], summary: dict[str, Any]) -> str:
    """The table, what it was made from, and what was measured beside it."""
    lines = [f"Computing as measured on one core, {summary['cpu']}:", ""]
    lines += ["| network | parameters | 256 rows | update |", "|---|---|---|---|"]
    for name, compute in computes.items():
        lines.append(
            f"| {name} | {NETWORKS[name].parameters:,} | {compute.block * 1e3:.2f} ms "
            f"| {compute.update * 1e3:.2f} ms |"
        )
    measured = list(_measured(computes, summary["benches"]["scale-2"]["extra"]))
    if measured:
        lines += [
            "",
            "Measured on two cores of it, beside the model of computing alone, with nothing sent:",
            "",
            "| network | scaling, mode | step | model | communicating | bytes a step |",
            "|---|---|---|---|---|---|",
            *measured,
        ]
    lines.append("")
    shown = (2, 8, 64, 1000)
    heads = [f"{ranks} ranks" for ranks in shown]
    lines += [
        "The least number of ranks for which communication is more than half of a step, by the",
        "model:",
        "",
        "| network | link | mode | weak scaling | strong scaling |",
        "|---|---|---|---|---|",
    ]
    for name, compute in computes.items():
        for link in LINKS:
            for mode in MODES:
                half = [ranks_of_half(NETWORKS[name], compute, link, s, mode) for s in SCALINGS]
                cells = [f"none to {RANKS[-1]}" if ranks is None else str(ranks) for ranks in half]
                lines.append(f"| {name} | {link.name} | {mode} | {' | '.join(cells)} |")
    lines += [
        "",
        "Milliseconds a step by the model (share of communication; efficiency: the rows that a",
        "rank does in a second, in units of what one rank alone does).",
    ]
    for scaling in SCALINGS:
        batch = (
            f"{WEAK_ROWS} rows for each rank"
            if scaling == "weak"
            else (f"a batch of {STRONG_BLOCKS * BLOCK_ROWS:,} rows")
        )
        lines += ["", f"*{scaling.capitalize()} scaling, {batch}*", ""]
        lines += [f"| network | link | mode | {' | '.join(heads)} |"]
        lines += ["|" + "---|" * (3 + len(shown))]
        for name in computes:
            for link in LINKS:
                for mode in MODES:
                    cells = [
                        f"{r.step.total * 1e3:.2f} ({r.step.communicating / r.step.total:.0%}; "
                        f"{r.efficiency:.2f})"
                        for r in rows
                        if (r.network, r.link, r.scaling, r.mode)
                        == (name, link.name, scaling, mode)
                        and r.ranks in shown
                    ]
                    lines.append(f"| {name} | {link.name} | {mode} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _measured(computes: dict[str, Compute], extra: dict[str, Any]) -> Iterator[str]:
    """What was measured of two ranks, beside the model of computing alone."""
    free = Link("free", 0.0, math.inf)
    for name, compute in computes.items():
        for scaling in ("strong", "weak"):
            for mode in MODES:
                took = extra.get(f"{scaling}, {name}: 2 ranks, {mode}")
                if took is None:
                    continue
                model = step(NETWORKS[name], compute, free, 2, took["rows"], mode).total
                seconds = took["seconds"] / took["steps"]
                share = took["communicating"] / took["seconds"]
                yield (
                    f"| {name} | {scaling}, {mode} | {seconds * 1e3:.2f} ms | {model * 1e3:.2f} ms "
                    f"| {share:.0%} | {took['bytes']:,} |"
                )


def draw(rows: Sequence[Row], path: Path) -> None:
    """Efficiency against ranks: a panel for each network and kind of scaling."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row.network for row in rows))
    figure = Figure(figsize=(3 * len(names), 5.2), layout="constrained")
    axes = figure.subplots(2, len(names), sharex=True, sharey=True, squeeze=False)
    for i, scaling in enumerate(("weak", "strong")):
        for name, axis in zip(names, axes[i], strict=True):
            for link, colour in zip(LINKS, ("tab:orange", "tab:blue"), strict=True):
                for mode, line in (("exact", "-"), ("allreduce", "--")):
                    points = [
                        (row.ranks, row.efficiency)
                        for row in rows
                        if row[:4] == (name, link.name, scaling, mode)
                    ]
                    label = f"{link.name}, {mode}"
                    axis.plot(*zip(*points, strict=True), line, color=colour, label=label)
            axis.set(xscale="log", ylim=(0, 1.05), title=f"{name}, {scaling}")
            axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=7)
    figure.supxlabel("ranks (a model, not a measurement)")
    figure.supylabel("efficiency")
    figure.savefig(path, metadata={"Date": None})  # the same picture gives the same file


def main() -> None:
    """Print the table, or put it between the marks of a page; draw it if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--summary", type=Path, help="default: that of this machine")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    path = args.summary
    if path is None:
        import harness

        path = harness.machine_folder() / "summary.json"
    summary = json.loads(path.read_text())
    if "scale-2" not in summary["benches"]:
        raise SystemExit(f"{path} has no figures of bench/scale.py, which measures them")
    computes = computes_of(summary)
    rows = list(rows_of_table(computes))
    text = page_of(rows, computes, summary)
    if args.page is None:
        print(text)
    else:
        before, _, rest = args.page.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        args.page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
    if args.picture is not None:
        draw(rows, args.picture)


if __name__ == "__main__":
    main()
