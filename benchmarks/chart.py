"""Charts: how many times faster than stock asyncio each loop is, row by row."""

from __future__ import annotations

from pathlib import Path

from benchmarks.results import LIMIT, Results, RowResult

BASE = "asyncio"

TITLES = {
    "loop": "Pure loop: speed relative to asyncio",
    "network": "Network: speed relative to asyncio",
}

COLOURS = {
    "asyncio": "#8c8c8c",
    "uvloop": "#2f7fc1",
    "rloop": "#3a9d6b",
    "rsloop": "#b0793a",
    "zuvloop": "#8a5fb5",
    "weft": "#d6294b",
    "weft+install": "#f07f23",
    LIMIT: "#222222",
}


def draw(results: Results, directory: Path) -> list[Path]:
    """Write a chart of each group as SVG and as PNG; return the files."""
    import matplotlib

    matplotlib.use("Agg")
    # Text stays text, and the same figures give the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "benchmarks"})
    written = []
    for group, title in TITLES.items():
        rows = [row for row in results.rows if row.group == group and BASE in row.cells]
        if rows:
            written += _draw(rows[::-1], results, title, directory / f"bench-{group}")
    return written


def _draw(rows: list[RowResult], results: Results, title: str, stem: Path) -> list[Path]:
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullFormatter

    names = [BASE, *(name for name in results.loops if name != BASE), LIMIT]
    figure, axes = pyplot.subplots(figsize=(9, 1.4 + 0.3 * len(rows)), layout="constrained")
    for position, row in enumerate(rows):
        reached = [speed for name in names if (speed := row.speedup(name, BASE))]
        axes.plot([min(reached), max(reached)], [position] * 2, color="#dddddd", zorder=1)
    for name in names:
        points = [
            (speed, position)
            for position, row in enumerate(rows)
            if (speed := row.speedup(name, BASE))
        ]
        if not points:
            continue
        ours = name.startswith("weft")
        speeds, positions = zip(*points, strict=True)
        axes.scatter(
            speeds,
            positions,
            s=80 if ours else 32,
            color=COLOURS[name],
            marker="|" if name == LIMIT else "o",
            label=name,
            zorder=3 if ours else 2,
        )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="x", color="#eeeeee", zorder=0)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_title(f"{title} ({results.machine['python']}, higher is better)", loc="left")
    figure.legend(loc="outside lower center", ncols=len(names), frameon=False, fontsize="small")
    written = []
    for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
        path = stem.with_suffix(suffix)
        figure.savefig(path, dpi=160, metadata=metadata, facecolor="white")
        written.append(path)
    pyplot.close(figure)
    return written
