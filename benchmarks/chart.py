"""Charts: how many times faster than stock asyncio each loop is, row by row."""

from __future__ import annotations

from pathlib import Path

from benchmarks.results import LIMIT, Results, RowResult

BASE = "asyncio"

TITLES = {
    "loop": "Pure loop: speed relative to asyncio",
    "network": "Network: speed relative to asyncio",
    "programs": "Real programs: speed relative to asyncio",
}

WITHOUT_LIMIT = ("programs",)
"""Where the bare server is so far away that the loops would be hard to tell apart."""

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
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for group in TITLES:
        rows = [row for row in results.rows if row.group == group and BASE in row.cells]
        if rows:
            written += _draw(group, rows[::-1], results, directory / f"bench-{group}")
    return written


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two bounds: powers of two, and more of them where these are near."""
    between = (1, 1.25, 1.5, 1.75) if high / low < 3 else (1, 1.5) if high / low < 12 else (1,)
    ticks = [2.0**power * step for power in range(-6, 12) for step in between]
    return [tick for tick in ticks if low <= tick <= high]


def _draw(group: str, rows: list[RowResult], results: Results, stem: Path) -> list[Path]:
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullFormatter

    names = [BASE, *(name for name in results.loops if name != BASE)]
    # Each loop has a lane of its own within a row, so that equal figures do not hide one another.
    lane = 0.76 / len(names)
    height = max(0.3, 0.1 + 0.055 * len(names))
    figure, axes = pyplot.subplots(figsize=(9, 1.4 + height * len(rows)), layout="constrained")
    for position in range(0, len(rows), 2):
        axes.axhspan(position - 0.5, position + 0.5, color="#f6f6f6", linewidth=0, zorder=0)
    for index, name in enumerate(names):
        shift = ((len(names) - 1) / 2 - index) * lane
        points = [
            (speed, position + shift)
            for position, row in enumerate(rows)
            if (speed := row.speedup(name, BASE))
        ]
        if not points:
            continue
        ours = name.startswith("weft")
        speeds, positions = zip(*points, strict=True)
        axes.scatter(
            speeds, positions, s=34 if ours else 16, color=COLOURS[name], label=name, zorder=3
        )
    if group not in WITHOUT_LIMIT:
        limits = [
            (speed, position)
            for position, row in enumerate(rows)
            if (speed := row.speedup(LIMIT, BASE))
        ]
        if limits:
            speeds, positions = zip(*limits, strict=True)
            tall = (height * 72 * 0.7) ** 2
            axes.scatter(
                speeds, positions, s=tall, color=COLOURS[LIMIT], marker="|", label=LIMIT, zorder=2
            )
    axes.set_xscale("log", base=2)
    axes.set_xticks(_ticks(*axes.get_xlim()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="x", color="#e4e4e4", zorder=1)
    axes.axvline(1, color="#8c8c8c", linewidth=0.8, zorder=1)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    title = f"{TITLES[group]} ({results.machine['python']}, higher is better)"
    figure.suptitle(title, x=0.01, ha="left")
    # One size of mark for all: the limit's is as tall as a row.
    legend = figure.legend(
        loc="outside lower center", ncols=len(names) + 1, frameon=False, fontsize="small"
    )
    for handle in legend.legend_handles:
        handle.set_sizes([40])  # type: ignore[union-attr]
    written = []
    for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
        path = stem.with_suffix(suffix)
        figure.savefig(path, dpi=160, metadata=metadata, facecolor="white")
        written.append(path)
    pyplot.close(figure)
    return written
