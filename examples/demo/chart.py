"""The chart of what was measured: speed on the left, latency on the right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .measure import Measurement

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"asyncio": "#9aa3ad", "uvloop": "#3f7cac", "weft": "#d1495b"}
NAMES = {"asyncio": "asyncio", "uvloop": "uvloop", "weft": "Weft"}
INK = "#22272e"
QUIET = "#66707a"
BAR = 0.27

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": "#c4cad0",
    "axes.labelcolor": QUIET,
    "xtick.color": QUIET,
    "ytick.color": INK,
    "svg.fonttype": "none",
    # The same figures give the same file.
    "svg.hashsalt": "weft",
}


def draw(measurement: Measurement, conditions: str, stem: Path) -> list[Path]:
    """Write `stem`.png and `stem`.svg; `conditions` is the small print below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels = measurement.labels()
    with pyplot.rc_context(cast(Any, STYLE)):
        height = 2.3 + 0.62 * len(labels)
        figure, (left, right) = pyplot.subplots(
            1, 2, figsize=(13.5, height), sharey=True, width_ratios=(1.25, 1)
        )
        figure.subplots_adjust(
            left=0.185, right=0.985, top=1 - 1.25 / height, bottom=0.95 / height, wspace=0.06
        )
        draw_speed(left, measurement, labels)
        draw_latency(right, measurement, labels)
        for axes in (left, right):
            axes.set_ylim(len(labels) - 0.45, -0.55)
            axes.set_axisbelow(True)
            axes.tick_params(length=0)
            for side in ("top", "right", "left"):
                axes.spines[side].set_visible(False)
            for between in range(1, len(labels)):
                axes.axhline(between - 0.5, color="#eceff2", linewidth=1, zorder=0)
        left.set_yticks(range(len(labels)), labels)
        left_edge = 0.015
        figure.text(
            left_edge, 1 - 0.42 / height, headline(measurement), fontsize=15, fontweight="bold"
        )
        figure.text(
            left_edge,
            1 - 0.72 / height,
            f"The same unmodified programs and server, {measurement.calls:,} calls in"
            f" {measurement.rounds} round{'s' if measurement.rounds > 1 else ''};"
            " medians over the rounds, geometric mean over the unpaced rows",
            color=QUIET,
        )
        figure.text(left_edge, 0.2 / height, conditions, color=QUIET, fontsize=8.5)
        handles, names = left.get_legend_handles_labels()
        figure.legend(
            handles,
            names,
            loc="upper right",
            bbox_to_anchor=(0.99, 1 - 0.2 / height),
            ncols=len(names),
            frameon=False,
            fontsize=11,
        )
        paths = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
        figure.savefig(paths[0], dpi=150, facecolor="white")
        figure.savefig(paths[1], facecolor="white", metadata={"Date": None})
        pyplot.close(figure)
    return paths


def headline(measurement: Measurement) -> str:
    """What the figures say, and no more than that."""
    parts = []
    for loop in measurement.loops:
        overall = measurement.overall(loop.name)
        if loop.name != "asyncio" and overall is not None:
            parts.append(f"{NAMES[loop.name]} {overall:.2f}x")
    if not parts:
        return "Ordinary asyncio programs"
    return f"Ordinary asyncio programs: {', '.join(parts)} the speed of asyncio"


def draw_speed(axes: Axes, measurement: Measurement, labels: list[str]) -> None:
    """Bars: calls a second against asyncio's. The calls a second themselves stand beside them."""
    from matplotlib.patheffects import withStroke

    loops = [loop.name for loop in measurement.loops]
    widest = 1.0
    for index, loop in enumerate(loops):
        shift = (index - (len(loops) - 1) / 2) * BAR
        places, ratios, texts = [], [], []
        for place, label in enumerate(labels):
            row, ratio = measurement.row(label, loop), measurement.speed_up(label, loop)
            if row is not None and ratio is not None:
                places.append(place + shift)
                ratios.append(ratio)
                speed = f"{row.middle('calls_per_second'):,.0f}/s"
                texts.append(speed if loop == "asyncio" else f"{ratio:.2f}x  {speed}")
        bars = axes.barh(
            places, ratios, BAR * 0.86, color=COLOURS[loop], label=NAMES[loop], zorder=2
        )
        # A white rim keeps the text readable where the line of asyncio's speed passes.
        rim = [withStroke(linewidth=2.5, foreground="white")]
        axes.bar_label(bars, texts, padding=4, fontsize=8, color=INK, path_effects=rim, zorder=4)
        widest = max([widest, *ratios])
    axes.axvline(1, color="#8b949e", linewidth=0.9, linestyle=(0, (4, 3)), zorder=3)
    # Room for the text to the right of the longest bar.
    axes.set_xlim(0, widest * 1.3)
    axes.xaxis.grid(color="#eceff2")
    axes.set_xlabel("calls per second, asyncio = 1")
    axes.set_title("Speed", loc="left", fontsize=11, color=INK)


def draw_latency(axes: Axes, measurement: Measurement, labels: list[str]) -> None:
    """Lines from the p50 to the p99 of each loop, on a logarithmic scale."""
    from matplotlib.ticker import NullLocator

    loops = [loop.name for loop in measurement.loops]
    for index, loop in enumerate(loops):
        shift = (index - (len(loops) - 1) / 2) * BAR
        for place, label in enumerate(labels):
            row = measurement.row(label, loop)
            if row is None:
                continue
            p50, p99 = row.middle("p50_ms"), row.middle("p99_ms")
            y = place + shift
            axes.plot([p50, p99], [y, y], color=COLOURS[loop], linewidth=2.2, zorder=2)
            axes.plot(p50, y, "o", color=COLOURS[loop], markersize=6, zorder=3)
            axes.plot(p99, y, "|", color=COLOURS[loop], markersize=9, markeredgewidth=2.2)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.grid(color="#eceff2")
    axes.set_xlabel("milliseconds, logarithmic scale:  ● p50   | p99")
    axes.set_title("Latency of a call", loc="left", fontsize=11, color=INK)
