"""Tables: on the terminal while a run goes on, and in Markdown after it."""

from __future__ import annotations

from benchmarks.loops import CONTENDERS
from benchmarks.results import LIMIT, Results, RowResult

TITLES = {
    "loop": "Pure loop (ns per operation, lower is better)",
    "memory": "Memory (bytes each, lower is better)",
    "startup": "Start-up (ms, lower is better)",
    "network": "Network (requests/s where the row names no other unit, higher is better)",
    "latency": "Latency (us, lower is better)",
    "programs": "Real programs (requests/s, higher is better)",
}

LIMITED = ("network", "programs")
"""The groups in which a bare server or client shows what the machine can do."""

BUSY_TITLES = {
    "network": "Network (us of processor time per request, connection or MiB, lower is better)",
    "programs": "Real programs (us of processor time per request, lower is better)",
}
PROCESSOR_TIME = "Processor time in the same rounds (us per request, connection or MiB)"
LATENCIES = "Latency in the same rounds (us, p50 / p99)"


class Table:
    """The cells of a group of rows as text."""

    def __init__(self, group: str, loops: list[str], processor_time: bool) -> None:
        self.title = (BUSY_TITLES if processor_time and group in BUSY_TITLES else TITLES)[group]
        self.loops = loops
        self.rivals = [loop for loop in loops if not CONTENDERS[loop].is_ours]
        self.ours = [loop for loop in loops if CONTENDERS[loop].is_ours]
        self.limited = group in LIMITED
        self.columns = [LIMIT] * self.limited + loops

    def header(self) -> list[str]:
        comparisons = [f"{loop} / best rival" for loop in self.ours if self.rivals]
        comparisons += [f"{loop} / limit" for loop in self.ours if self.limited]
        return ["row", *self.columns, *(comparisons or ["best"])]

    def line(self, row: RowResult) -> list[str]:
        cells = [figure(row, column) for column in self.columns]
        best = row.best_of(self.rivals)
        comparisons = [
            _comparison(row, loop, best, f" ({best})") for loop in self.ours if self.rivals
        ]
        comparisons += [_comparison(row, loop, LIMIT) for loop in self.ours if self.limited]
        return [row.name, *cells, *(comparisons or [best or "-"])]

    def widths(self) -> list[int]:
        """Wide enough for what is to come, since rows are printed as they are measured."""
        return [27, *(max(9, len(name)) for name in self.columns)] + [
            max(18, len(name)) for name in self.header()[1 + len(self.columns) :]
        ]

    def text(self, cells: list[str]) -> str:
        """A line for the terminal."""
        name, *others = zip(cells, self.widths(), strict=True)
        return "  ".join([f"{name[0]:<{name[1]}}", *(f"{cell:>{width}}" for cell, width in others)])


def figure(row: RowResult, column: str) -> str:
    """One loop's figure, or a dash where it has none."""
    if column not in row.cells:
        return "-"
    value = row.cells[column].best
    if value < 10:
        return f"{value:.2f}"
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _comparison(row: RowResult, loop: str, other: str | None, suffix: str = "") -> str:
    speedup = row.speedup(loop, other) if other else None
    return f"{speedup:.2f}x{suffix}" if speedup is not None else "-"


def markdown(results: Results) -> str:
    """All tables, and what one must know to read them."""
    loops = list(results.loops)
    about = ", ".join(f"{name} {version}" for name, version in results.loops.items())
    machine = results.machine
    parts = [
        f"{machine['python']}, {machine['system']}, {machine['cpu']}, {machine['date']}. {about}."
    ]
    for group in TITLES:
        rows = [row for row in results.rows if row.group == group]
        if not rows:
            continue
        table = Table(group, loops, results.settings["processor_time"])
        lines = [_escape(table.line(row)) for row in rows]
        parts += [f"### {table.title}", _table(_escape(table.header()), lines)]
        if table.limited:
            header = ["row", *table.columns]
            latencies = [
                [row.name, *(_latency(row, name) for name in table.columns)]
                for row in rows
                if any(cell.p50_us is not None for cell in row.cells.values())
            ]
            parts += [f"### {LATENCIES}", _table(header, latencies)]
            if not results.settings["processor_time"]:
                times = [[row.name, *(_cpu(row, name) for name in table.columns)] for row in rows]
                parts += [f"### {PROCESSOR_TIME}", _table(header, times)]
    parts += notes(results)
    return "\n\n".join(parts) + "\n"


def notes(results: Results) -> list[str]:
    """What went wrong, and how far the figures can be trusted."""
    lines = []
    if results.settings["processor_time"]:
        lines.append("The figures count processor time, not the time on the wall.")
    lines += [f"{name} is absent: {why}" for name, why in results.absent.items()]
    for row in results.rows:
        if row.left_out:
            lines.append(f"{row.name} is left out: {row.left_out}")
        elif not row.cells and len(set(row.errors.values())) == 1:
            lines.append(f"{row.name}: all fail: {next(iter(row.errors.values()))}")
        else:
            lines += [f"{row.name}: {loop} fails: {why}" for loop, why in row.errors.items()]
    cells = [cell for row in results.rows for cell in row.cells.values()]
    restless = sum(cell.is_restless for cell in cells)
    if restless:
        lines.append(
            f"In {restless} of {len(cells)} cells the median round was more than 15 % behind the "
            "best one: the machine was not quiet."
        )
    return lines


def _latency(row: RowResult, column: str) -> str:
    cell = row.cells.get(column)
    if cell is None or cell.p50_us is None or cell.p99_us is None:
        return "-"
    return f"{cell.p50_us:,.0f} / {cell.p99_us:,.0f}"


def _cpu(row: RowResult, column: str) -> str:
    cell = row.cells.get(column)
    return "-" if cell is None or cell.cpu_us is None else f"{cell.cpu_us:,.2f}"


def _escape(cells: list[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in cells]


def _table(header: list[str], lines: list[list[str]]) -> str:
    ruler = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ruler, *lines])
