use super::*;

#[test]
fn is_the_monotonic_clock_in_seconds() {
    let system = || Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap();
    let before = system();
    let now = monotonic();
    let after = system();
    assert!(before.as_secs_f64() <= now && now <= after.as_secs_f64());
}

#[test]
fn never_runs_backwards() {
    let mut last = monotonic();
    for _ in 0..1000 {
        let now = monotonic();
        assert!(now >= last);
        last = now;
    }
}

#[test]
fn sleeps_for_the_difference() {
    assert_eq!(sleep_until(12.5, 10.0), Duration::from_millis(2500));
    assert_eq!(sleep_until(10.125, 10.0), Duration::from_millis(125));
    assert!(sleep_until(10.0_f64.next_up(), 10.0) <= Duration::from_nanos(1));
}

#[test]
fn does_not_sleep_for_what_is_due() {
    for deadline in [10.0, 9.0, -1e300, f64::NEG_INFINITY] {
        assert_eq!(sleep_until(deadline, 10.0), Duration::ZERO, "{deadline}");
    }
}

#[test]
fn sleeps_a_day_at_most() {
    for deadline in [1e6, 1e300, f64::MAX, f64::INFINITY] {
        assert_eq!(sleep_until(deadline, 10.0), LONGEST_SLEEP, "{deadline}");
    }
}

#[test]
fn looks_again_at_once_when_the_numbers_mean_nothing() {
    for (deadline, now) in [
        (f64::NAN, 1.0),
        (1.0, f64::NAN),
        (f64::INFINITY, f64::INFINITY),
    ] {
        assert_eq!(sleep_until(deadline, now), Duration::ZERO);
    }
}

#[test]
fn rounding_does_not_add_a_millisecond() {
    // What a `call_later(0.001)` leaves of its millisecond at various times since boot.
    for now in [0.1, 1234.567, 1e6 + 0.1] {
        let sleep = sleep_until(now + 0.001, now);
        assert!(sleep <= Duration::from_millis(1), "{now}: {sleep:?}");
    }
}
