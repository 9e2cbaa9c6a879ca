"""The table of what was measured, as text."""

from __future__ import annotations

from .measure import Measurement, Row

HEAD = (
    f"{'':<30}{'':<9}{'calls/s':>9}  {'lowest-highest':>15}  {'speed-up':>8}"
    f"  {'CPU us/call':>11}  {'p50 ms':>8}  {'p99 ms':>8}  {'errors':>6}"
)


def table(measurement: Measurement) -> str:
    """One block of lines for each stretch of work, one line for each loop."""
    lines = [HEAD]
    for label in measurement.labels():
        lines.append("─" * len(HEAD))
        title = label
        for loop in measurement.loops:
            row = measurement.row(label, loop.name)
            cells = cells_of(row, measurement.speed_up(label, loop.name)) if row else "  failed"
            lines.append(f"{title:<30}{loop.name:<9}{cells}")
            title = ""
    lines.append("─" * len(HEAD))
    title = "Geometric mean, unpaced rows"
    for loop in measurement.loops:
        overall = measurement.overall(loop.name)
        if overall is not None:
            lines.append(f"{title:<30}{loop.name:<9}{'':>9}  {'':>15}  {overall:>7.2f}x")
            title = ""
    return "\n".join(lines)


def cells_of(row: Row, speed_up: float | None) -> str:
    """The figures of one line."""
    lowest, highest = row.range("calls_per_second")
    fewest, most = row.range("errors")
    errors = f"{fewest:.0f}" if fewest == most else f"{fewest:.0f}-{most:.0f}"
    ratio = f"{speed_up:.2f}x" if speed_up is not None else "-"
    return (
        f"{row.middle('calls_per_second'):>9,.0f}  {f'{lowest:,.0f}-{highest:,.0f}':>15}"
        f"  {ratio:>8}  {row.middle('cpu_us_per_call'):>11,.0f}"
        f"  {row.middle('p50_ms'):>8.2f}  {row.middle('p99_ms'):>8.2f}  {errors:>6}"
    )
