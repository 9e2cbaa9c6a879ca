//! The loop's clock.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The longest time that a loop sleeps at once: a day, as in asyncio.
pub const LONGEST_SLEEP: Duration = Duration::from_secs(24 * 3600);

/// `CLOCK_MONOTONIC` in seconds: the same number that Python's `time.monotonic()` gives.
#[must_use]
pub fn monotonic() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Whole nanoseconds first, then one division, exactly as CPython rounds.
    #[allow(clippy::cast_precision_loss)]
    let nanoseconds = (now.tv_sec * 1_000_000_000 + now.tv_nsec) as f64;
    nanoseconds / 1e9
}

/// How long to sleep at `now` for something due at `deadline`: never negative, never more than
/// [`LONGEST_SLEEP`], whatever the numbers are (infinities and NaN included).
#[must_use]
pub fn sleep_until(deadline: f64, now: f64) -> Duration {
    let seconds = deadline - now;
    if seconds >= LONGEST_SLEEP.as_secs_f64() {
        LONGEST_SLEEP
    } else if seconds > 0.0 {
        Duration::from_secs_f64(seconds)
    } else {
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests;
