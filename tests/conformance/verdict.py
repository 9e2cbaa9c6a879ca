"""Run the suite, hold what happens against the expectations, and look closer at every failure.

A failure that is not listed is run again by itself, on the loop under test and on unmodified
asyncio.  Nothing is excused by that, but the report can tell a test that fails by itself from one
that is flaky or was upset by an earlier failure, and both from one that this machine cannot pass.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from . import processes
from .expectations import Expectation, Kind, lookup
from .processes import Limits, ModuleOutcomes, ModuleRun, Outcome
from .scope import Variant

TIMING_REPEATS = 5
_MOST_EXAMINED = 150

Key = tuple[str, Variant]


class Verdict(enum.Enum):
    """What is made of one test's outcome."""

    PASSED = "passed"
    SKIPPED = "skipped"
    EXCUSED = "excused"
    FAILED = "failed"
    UNEXPECTED_PASS = "unexpected pass"

    @property
    def good(self) -> bool:
        """Whether a run with this verdict can succeed."""
        return self not in {Verdict.FAILED, Verdict.UNEXPECTED_PASS}


@dataclass
class Judged:
    """One test's outcome, and what is made of it."""

    outcome: Outcome
    variant: Variant
    verdict: Verdict
    expectation: Expectation | None = None
    notes: list[str] = field(default_factory=list)
    passes_alone: bool = False


@dataclass
class ModuleReport:
    """All tests of one module in one variant."""

    run: ModuleRun
    tests: list[Judged]
    seconds: float

    def count(self, *verdicts: Verdict) -> int:
        """How many tests got one of ``verdicts``."""
        return sum(test.verdict in verdicts for test in self.tests)


@dataclass
class Report:
    """A whole run."""

    modules: list[ModuleReport]
    stale: list[Expectation] = field(default_factory=list)
    """Entries that list a test which does not exist."""

    @property
    def tests(self) -> list[Judged]:
        """Every test of the run."""
        return [test for module in self.modules for test in module.tests]

    @property
    def good(self) -> bool:
        """Whether everything is as the expectations say."""
        return not self.stale and all(test.verdict.good for test in self.tests)


class Conformance:
    """One run of the suite on one loop."""

    def __init__(
        self,
        loop: str,
        expectations: Sequence[Expectation],
        *,
        limits: Limits,
        workers: int,
        progress: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._expectations = [e for e in expectations if e.concerns(loop)]
        self._limits = limits
        self._workers = workers
        self._progress = progress

    def run(self, runs: Sequence[ModuleRun]) -> Report:
        """Run the modules and judge every test; ``runs`` say which."""
        prepared = [replace(run, apart=self._patterns(run, Kind.FAILS)) for run in runs]
        outcomes = processes.run_modules(
            prepared, self._limits, workers=self._workers, progress=self._show
        )
        self._run_apart(outcomes)
        report = Report([self._judge(module) for module in outcomes])
        self._examine(report)
        self._verify_stock(report)
        self._repeat_timing(report)
        if all(run.only is None for run in runs):
            report.stale = self._stale(outcomes)
        return report

    def _patterns(self, run: ModuleRun, kind: Kind) -> tuple[str, ...]:
        return tuple(
            e.pattern for e in self._expectations if e.kind is kind and run.variant in e.variants
        )

    def _show(self, outcomes: ModuleOutcomes) -> None:
        failed = sum(outcome.status == "failed" for outcome in outcomes.outcomes.values())
        number = len(outcomes.outcomes)
        self._progress(
            f"{outcomes.run.label}: {number} tests in {outcomes.seconds:.1f} s"
            + (f", {failed} not passed" if failed else "")
        )

    def _run_apart(self, modules: list[ModuleOutcomes]) -> None:
        """Run what is expected to fail, each test alone: what it leaves behind upsets no other."""
        of_test = {(test, m.run.variant): m for m in modules for test in m.apart()}
        if not of_test:
            return
        self._progress(f"{len(of_test)} tests that are expected to fail, each by itself")
        by_limit: dict[float, list[Key]] = {}
        for test, variant in of_test:
            expectation = lookup(self._expectations, test, variant)
            limit = expectation.limit if expectation else None
            by_limit.setdefault(limit or self._limits.test, []).append((test, variant))
        for limit, keys in by_limit.items():
            limits = replace(self._limits, test=limit)
            found = processes.run_tests(self._loop, keys, limits, workers=self._workers)
            for (test, variant), outcome in found.items():
                module = of_test[test, variant]
                module.outcomes[test] = outcome
                module.seconds += outcome.seconds

    def _alone(self, loop: str, keys: Iterable[Key]) -> dict[Key, Outcome]:
        return processes.run_tests(loop, keys, self._limits, workers=self._workers)

    def _judge(self, module: ModuleOutcomes) -> ModuleReport:
        run = module.run
        tests = []
        for outcome in module.outcomes.values():
            expectation = lookup(self._expectations, outcome.id, run.variant)
            verdict = Verdict(outcome.status)
            if expectation is not None and expectation.kind is Kind.FAILS:
                verdict = {
                    Verdict.PASSED: Verdict.UNEXPECTED_PASS,
                    Verdict.FAILED: Verdict.EXCUSED,
                }.get(verdict, verdict)
            tests.append(Judged(outcome, run.variant, verdict, expectation))
        return ModuleReport(run, tests, module.seconds)

    def _examine(self, report: Report) -> None:
        """Run unlisted failures again, each alone, here and on unmodified asyncio."""
        failures = [
            test
            for test in report.tests
            if test.verdict is Verdict.FAILED
            and test.expectation is None
            and not test.outcome.id.endswith(")")
        ][:_MOST_EXAMINED]
        if not failures:
            return
        self._progress(f"{len(failures)} unlisted failures again, each by itself")
        keys = [(test.outcome.id, test.variant) for test in failures]
        here = self._alone(self._loop, keys)
        stock = {} if self._loop == "asyncio" else self._alone("asyncio", keys)
        for test, key in zip(failures, keys, strict=True):
            if here[key].status == "passed":
                test.passes_alone = True
                test.notes.append("passes by itself: flaky, or upset by an earlier test")
            if key in stock and stock[key].status == "failed":
                test.notes.append("unmodified asyncio fails here too")

    def _verify_stock(self, report: Report) -> None:
        """Believe ``stock`` entries only where unmodified asyncio fails the test now."""
        failing = [
            test
            for test in report.tests
            if test.verdict is Verdict.FAILED
            and test.expectation
            and test.expectation.kind is Kind.STOCK
        ]
        if self._loop == "asyncio":
            for test in failing:
                test.verdict = Verdict.EXCUSED
            return
        stock = self._alone("asyncio", [(test.outcome.id, test.variant) for test in failing])
        for test in failing:
            if stock[test.outcome.id, test.variant].status == "failed":
                test.verdict = Verdict.EXCUSED
            else:
                test.notes.append("listed as failing on unmodified asyncio, which passes it here")

    def _repeat_timing(self, report: Report) -> None:
        """Let a failed ``timing`` test pass if it passes alone, time and again."""
        failing = [
            test
            for test in report.tests
            if test.verdict is Verdict.FAILED
            and test.expectation
            and test.expectation.kind is Kind.TIMING
        ]
        keys = [(test.outcome.id, test.variant) for test in failing]
        failed: set[Key] = set()
        for _ in range(TIMING_REPEATS if keys else 0):
            again = processes.run_tests(self._loop, keys, self._limits, workers=1)
            failed |= {key for key, outcome in again.items() if outcome.status != "passed"}
        for test, key in zip(failing, keys, strict=True):
            if key not in failed:
                test.verdict = Verdict.PASSED
                test.notes.append(f"failed once, then passed {TIMING_REPEATS} times by itself")

    def _stale(self, modules: list[ModuleOutcomes]) -> list[Expectation]:
        """Entries for this version and these modules that list no test there is."""
        names = {module.run.module for module in modules}
        variants = {module.run.variant for module in modules}
        return [
            expectation
            for expectation in self._expectations
            if expectation.pattern.partition(".")[0] in names
            and expectation.variants & variants
            and not any(
                expectation.matches(test, module.run.variant)
                for module in modules
                for test in (*module.planned, *module.outcomes)
            )
        ]
