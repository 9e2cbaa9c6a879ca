"""call_later, call_at and time: order, cancellation, and clocks that tests replace."""

from __future__ import annotations

import asyncio
import math
import random
import time
from typing import Any

import pytest
from backends import PY315, Backend
from turns import Clock, raised, turn


def nothing(*arguments: Any) -> None:
    pass


class TestTime:
    def test_is_monotonic_time(self, loop: asyncio.AbstractEventLoop) -> None:
        before = time.monotonic()
        now = loop.time()
        assert before <= now <= time.monotonic()
        assert isinstance(now, float)

    def test_works_on_a_closed_loop(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        loop.close()
        assert loop.time() <= time.monotonic()


class TestOrder:
    def test_by_deadline(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []
        now = loop.time()
        for number in (3, 1, 4, 0, 2):
            loop.call_at(now - 10 + number, seen.append, number)
        turn(loop)
        assert seen == [0, 1, 2, 3, 4]

    def test_random_deadlines(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[float] = []
        order = random.Random(7)
        start = loop.time() - 10
        deadlines = [start + order.random() for _ in range(3000)]
        for deadline in deadlines:
            loop.call_at(deadline, seen.append, deadline)
        turn(loop)
        assert seen == sorted(deadlines)

    def test_all_that_is_due_runs_in_one_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []
        for number in range(500):
            loop.call_later(-1 - number, seen.append, number)
        turn(loop)
        assert sorted(seen) == list(range(500))

    def test_two_equal_deadlines_both_run(self, loop: asyncio.AbstractEventLoop) -> None:
        """asyncio's heap promises no order among more than two equal ones."""
        seen: list[str] = []
        when = loop.time() - 1
        loop.call_at(when, seen.append, "first")
        loop.call_at(when, seen.append, "second")
        turn(loop)
        assert seen == ["first", "second"]

    @pytest.mark.backends("weft")
    def test_equal_deadlines_run_in_the_order_of_their_making(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Better than asyncio's heap, which shuffles them."""
        seen: list[int] = []
        when = loop.time() - 1
        for number in range(1000):
            loop.call_at(when, seen.append, number)
        turn(loop)
        assert seen == list(range(1000))

    def test_a_timer_that_makes_a_due_timer_does_not_run_it_in_the_same_turn(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        seen: list[str] = []

        def first() -> None:
            seen.append("first")
            loop.call_later(-1, seen.append, "second")

        loop.call_later(-1, first)
        turn(loop)
        assert seen == ["first"]
        turn(loop)
        assert seen == ["first", "second"]

    def test_timers_are_not_starved_by_callbacks(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []
        turns = 0

        def again() -> None:
            nonlocal turns
            turns += 1
            if turns < 1_000_000 and not seen:
                loop.call_soon(again)
            else:
                loop.stop()

        for _ in range(100):
            loop.call_soon(again)
        loop.call_later(0.005, seen.append, "timer")
        loop.run_forever()
        assert seen == ["timer"]

    def test_callbacks_are_not_starved_by_timers(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []
        left = 1000

        def again() -> None:
            nonlocal left
            left -= 1
            if left:
                loop.call_later(0, again)

        again()
        loop.call_soon(seen.append, "callback")
        turn(loop, 2)
        assert seen == ["callback"]
        assert left > 900
        left = 1
        turn(loop, 2)


class TestDelay:
    def test_zero_delay_is_a_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []
        loop.call_later(0, seen.append, "timer")
        loop.call_soon(seen.append, "soon")
        turn(loop, 2)
        assert seen == ["soon", "timer"]

    def test_not_before_its_time(self, loop: asyncio.AbstractEventLoop) -> None:
        start = loop.time()
        loop.call_later(0.02, loop.stop)
        loop.run_forever()
        passed = loop.time() - start
        # asyncio may be early by the resolution of its clock, and no more.
        assert passed >= 0.02 - 1e-3

    def test_short_sleeps_are_not_rounded_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ten sleeps of a millisecond each end well before a tenth of a second has passed."""

        async def main() -> float:
            start = loop.time()
            for _ in range(10):
                await asyncio.sleep(0.001)
            return loop.time() - start

        best = min(loop.run_until_complete(main()) for _ in range(3))
        assert 0.009 <= best < 0.1

    def test_a_sleeping_loop_burns_no_time(self, loop: asyncio.AbstractEventLoop) -> None:
        used = time.thread_time()
        loop.call_later(0.2, loop.stop)
        loop.run_forever()
        assert time.thread_time() - used < 0.1

    def test_far_future(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beyond what a poll can take as its timeout: asyncio caps it at a day."""
        handles = [
            loop.call_later(delay, nothing)
            for delay in (24 * 3600, 1e7, 2**31, 2**32 + 1, 2**63, 1e18, 1e300)
        ]
        loop.call_later(0.001, loop.stop)
        loop.run_forever()
        assert not any(handle.cancelled() for handle in handles)
        for handle in handles:
            handle.cancel()

    def test_infinity(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []
        never = loop.call_later(math.inf, seen.append, "never")
        loop.call_later(-math.inf, seen.append, "at once")
        assert never.when() == math.inf
        loop.call_later(0.001, loop.stop)
        loop.run_forever()
        assert seen == ["at once"]
        never.cancel()

    def test_integers_and_other_numbers(self, loop: asyncio.AbstractEventLoop) -> None:
        from fractions import Fraction

        seen: list[Any] = []
        for delay in (0, True, Fraction(-1, 3), -5):
            loop.call_later(delay, seen.append, delay)  # type: ignore[arg-type]
        turn(loop)
        assert seen == [-5, Fraction(-1, 3), 0] or seen == [-5, Fraction(-1, 3)]

    def test_none(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        try:
            # Before 3.12 the addition complains.
            error, message = raised(loop.call_later, None, nothing)
            assert error is TypeError
            assert message in (
                "delay must not be None",
                "unsupported operand type(s) for +: 'float' and 'NoneType'",
            )
            error, message = raised(loop.call_at, None, nothing)
            assert error is TypeError
            assert message == "when cannot be None"
        finally:
            loop.close()

    @pytest.mark.parametrize("delay", ["1", [], object()])
    def test_not_a_number(self, loop: asyncio.AbstractEventLoop, delay: Any) -> None:
        with pytest.raises(TypeError):
            loop.call_later(delay, nothing)

    def test_callback_is_needed(self, loop: asyncio.AbstractEventLoop) -> None:
        for function in (loop.call_later, loop.call_at):
            with pytest.raises(
                TypeError, match="missing 1 required positional argument: 'callback'"
            ):
                function(1)  # type: ignore[call-arg]

    def test_keywords(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []
        loop.call_later(delay=0, callback=lambda: seen.append("later"))
        loop.call_at(when=loop.time(), callback=lambda: seen.append("at"))
        turn(loop, 2)
        assert sorted(seen) == ["at", "later"]


class TestCancel:
    def test_by_a_callback_of_the_same_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Both are due; the first to run cancels the second, which the turn had taken already."""
        seen: list[str] = []
        handles: list[asyncio.TimerHandle] = []
        now = loop.time()
        loop.call_at(now - 2, lambda: handles[0].cancel())
        handles.append(loop.call_at(now - 1, seen.append, "cancelled"))
        loop.call_at(now, seen.append, "kept")
        turn(loop)
        assert seen == ["kept"]

    def test_after_it_ran(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []
        handle = loop.call_later(-1, seen.append, 1)
        turn(loop)
        handle.cancel()
        assert handle.cancelled()
        turn(loop)
        assert seen == [1]

    def test_by_itself(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[bool] = []
        handles: list[asyncio.TimerHandle] = []

        def callback() -> None:
            handles[0].cancel()
            seen.append(handles[0].cancelled())

        handles.append(loop.call_later(-1, callback))
        turn(loop, 2)
        assert seen == [True]

    def test_the_earliest_does_not_keep_the_loop_waiting(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        loop.call_later(0.001, nothing).cancel()
        loop.call_later(0.002, loop.stop)
        loop.run_forever()

    def test_most_of_them(self, loop: asyncio.AbstractEventLoop) -> None:
        """Enough cancelled timers make the heap clean itself; none of the others gets lost."""
        order = random.Random(11)
        seen: list[float] = []
        start = loop.time() - 100
        kept: list[float] = []
        handles: list[asyncio.TimerHandle] = []
        for number in range(5000):
            when = start + order.random()
            handles.append(loop.call_at(when, seen.append, when))
            if number % 7 == 0:
                kept.append(when)
            else:
                handles.pop().cancel()
        turn(loop)
        assert seen == sorted(kept)

    def test_all_of_them_and_again(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(20):
            handles = [loop.call_later(1000, nothing) for _ in range(200)]
            for handle in handles:
                handle.cancel()
            turn(loop)
        assert len(loop._scheduled) < 1000  # type: ignore[attr-defined]

    def test_a_cancelled_timer_frees_its_arguments_at_once(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        import weakref

        class Thing:
            pass

        thing = Thing()
        alive = weakref.ref(thing)
        handle = loop.call_later(1000, nothing, thing)
        del thing
        handle.cancel()
        assert alive() is None

    def test_in_a_destructor_of_another(self, loop: asyncio.AbstractEventLoop) -> None:
        class Canceller:
            def __init__(self, handle: asyncio.TimerHandle) -> None:
                self.handle = handle

            def __call__(self) -> None:
                pass

            def __del__(self) -> None:
                self.handle.cancel()

        seen: list[str] = []
        far = loop.call_later(0.001, seen.append, "never")
        loop.call_later(1000, Canceller(far)).cancel()
        assert far.cancelled()
        loop.call_later(0.002, loop.stop)
        loop.run_forever()
        assert seen == []


class TestClocks:
    """Tests of other people travel in time by replacing the clock: the timers must follow."""

    def test_patched_on_the_instance(
        self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = Clock()
        monkeypatch.setattr(loop, "time", clock)
        assert loop.time() == 1000.0
        seen: list[str] = []
        handle = loop.call_later(60, seen.append, "late")
        assert handle.when() == 1060.0
        turn(loop)
        assert seen == []
        clock.now += 59.9
        turn(loop)
        assert seen == []
        clock.now += 0.2
        turn(loop)
        assert seen == ["late"]

    def test_a_jump_is_noticed_while_callbacks_are_ready(
        self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """asyncio looks at its timers every turn; a few turns later will do."""
        clock = Clock()
        monkeypatch.setattr(loop, "time", clock)
        turns = 0
        seen: list[int] = []
        loop.call_later(60, lambda: seen.append(turns))

        def again() -> None:
            nonlocal turns
            turns += 1
            if turns == 100:
                clock.now += 61
            if turns < 1000:
                loop.call_soon(again)
            else:
                loop.stop()

        loop.call_soon(again)
        loop.run_forever()
        assert 100 <= seen[0] <= 100 + 16

    def test_patched_on_the_class(
        self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = Clock()
        seen: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(type(loop), "time", lambda self: clock())
            assert loop.time() == 1000.0
            loop.call_later(60, seen.append, "late")
            turn(loop)
            assert seen == []
            clock.now += 61
            turn(loop)
            assert seen == ["late"]
        assert loop.time() != clock.now

    def test_overridden_in_a_subclass(self, backend: Backend) -> None:
        class TravellingLoop(backend.loop_class):  # type: ignore[misc]
            now = 50.0

            def time(self) -> float:
                return self.now

        loop = TravellingLoop()
        try:
            seen: list[str] = []
            assert loop.call_later(10, seen.append, "ten").when() == 60.0
            loop.call_at(55, seen.append, "five")
            turn(loop)
            assert seen == []
            loop.now = 55.0
            turn(loop)
            assert seen == ["five"]
            loop.now = 1e9
            turn(loop)
            assert seen == ["five", "ten"]
        finally:
            loop.close()

    def test_a_loop_that_jumps_to_its_next_timer(self, backend: Backend) -> None:
        """looptime and aiotools do it: no test has to wait for `asyncio.sleep(3600)`."""

        class JumpingLoop(backend.loop_class):  # type: ignore[misc]
            offset = 0.0

            def time(self) -> float:
                return float(super().time()) + self.offset

        loop = JumpingLoop()

        async def jump() -> None:
            for _ in range(3):
                await asyncio.sleep(0)
            loop.offset += 3600

        async def main() -> float:
            start = loop.time()
            jumping = asyncio.ensure_future(jump())
            await asyncio.sleep(3600)
            await jumping
            return loop.time() - start

        try:
            started = time.monotonic()
            assert 3600 <= loop.run_until_complete(main()) < 3660
            assert time.monotonic() - started < 10
        finally:
            loop.close()

    def test_time_monotonic_patched(
        self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """freezegun and time-machine replace `time.monotonic`."""
        seen: list[str] = []
        clock = Clock(time.monotonic())
        with monkeypatch.context() as patch:
            patch.setattr(time, "monotonic", clock)
            assert loop.time() == clock.now
            handle = loop.call_later(60, seen.append, "late")
            assert handle.when() == clock.now + 60
            turn(loop)
            assert seen == []
            clock.now += 61
            turn(loop)
            assert seen == ["late"]
        assert loop.time() < clock.now

    def test_a_clock_that_has_lost_its_precision(
        self, backend: Backend, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A nanosecond is nothing beside the seconds since 1970: what is due now is due."""
        if not backend.is_weft and not PY315:
            pytest.skip("asyncio waited for the clock to move on until 3.15")
        monkeypatch.setattr(loop, "time", Clock(1.8e9))
        seen: list[str] = []
        loop.call_later(0, seen.append, "due")
        loop.call_later(1e-6, seen.append, "not yet")
        turn(loop)
        assert seen == ["due"]

    def test_a_clock_that_is_put_back(
        self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(loop, "time", Clock(loop.time() + 5000))
            ahead = loop.call_later(0, seen.append, "ahead")
        turn(loop)
        assert seen == []
        ahead.cancel()

    def test_sleep_under_a_patched_clock(
        self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = Clock()
        monkeypatch.setattr(loop, "time", clock)
        ended: list[float] = []

        async def sleeper(seconds: float) -> None:
            await asyncio.sleep(seconds)
            ended.append(seconds)

        async def main() -> None:
            tasks = [asyncio.ensure_future(sleeper(seconds)) for seconds in (30, 10, 20)]
            for _ in range(4):
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                clock.now += 10
            await asyncio.gather(*tasks)

        loop.run_until_complete(main())
        assert ended == [10, 20, 30]

    def test_timeout_under_a_patched_clock(
        self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = Clock()
        monkeypatch.setattr(loop, "time", clock)

        async def main() -> None:
            async with asyncio.timeout(100):
                clock.now += 101
                await asyncio.sleep(1000)

        with pytest.raises(TimeoutError):
            loop.run_until_complete(main())

    def test_a_clock_that_raises_ends_the_run(
        self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Broken(Exception):
            pass

        def broken() -> float:
            raise Broken

        handle = loop.call_later(1000, nothing)
        loop.call_later(0, loop.stop)
        with monkeypatch.context() as patch:
            patch.setattr(loop, "time", broken)
            with pytest.raises(Broken):
                loop.call_later(1, nothing)
            with pytest.raises(Broken):
                loop.run_forever()
        assert not loop.is_running()
        handle.cancel()
        loop.run_forever()

    def test_a_clock_of_integers(
        self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ticks = [0]
        monkeypatch.setattr(loop, "time", lambda: ticks[0])
        seen: list[str] = []
        assert loop.call_later(3, seen.append, "three").when() == 3
        ticks[0] = 2
        turn(loop)
        assert seen == []
        ticks[0] = 4
        turn(loop)
        assert seen == ["three"]
