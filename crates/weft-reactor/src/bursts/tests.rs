use std::time::{Duration, Instant};

use super::{Bursts, LEAST, LEAST_UNSENT, MOST, SEVERAL};

/// A turn of so many writes that takes so long. Answers how many of them belonged to a burst.
fn turn(bursts: &Bursts, writes: u32, took: Duration) -> u32 {
    let start = Instant::now();
    bursts.turn_begins(|| start);
    let burst = (0..writes).filter(|_| bursts.count()).count();
    bursts.turn_ends(|| start + took);
    u32::try_from(burst).expect("no more than there are")
}

#[test]
fn turns_of_many_writes_become_bursts() {
    let bursts = Bursts::default();
    // The first shows that there are many, the second how long they take.
    assert_eq!(turn(&bursts, 50, LEAST * 50), 0);
    assert_eq!(turn(&bursts, 50, LEAST * 50), 0);
    assert_eq!(turn(&bursts, 50, LEAST_UNSENT * 50), 50);
    assert_eq!(turn(&bursts, SEVERAL, LEAST * SEVERAL), SEVERAL);
}

#[test]
fn turns_without_writes_say_nothing() {
    let bursts = Bursts::default();
    for _ in 0..2 {
        turn(&bursts, 50, LEAST * 50);
        turn(&bursts, 0, Duration::from_secs(1));
    }
    assert_eq!(turn(&bursts, 50, LEAST * 50), 50);
}

#[test]
fn slow_writes_end_it() {
    let bursts = Bursts::default();
    for _ in 0..2 {
        turn(&bursts, 50, LEAST * 50);
    }
    assert_eq!(turn(&bursts, 50, MOST * 50), 50);
    assert_eq!(turn(&bursts, 50, LEAST * 50), 0);
    assert_eq!(turn(&bursts, 50, LEAST * 50), 50);
}

#[test]
fn writes_with_nothing_between_them_are_no_burst() {
    let bursts = Bursts::default();
    for _ in 0..3 {
        assert_eq!(turn(&bursts, 50, LEAST * 49), 0);
    }
}

#[test]
fn few_writes_end_it() {
    let bursts = Bursts::default();
    for _ in 0..2 {
        turn(&bursts, 50, LEAST * 50);
    }
    assert_eq!(turn(&bursts, SEVERAL - 1, LEAST * SEVERAL), SEVERAL - 1);
    assert_eq!(turn(&bursts, SEVERAL - 1, LEAST * SEVERAL), 0);
}

#[test]
fn turns_of_single_writes_are_not_timed() {
    let bursts = Bursts::default();
    for _ in 0..3 {
        bursts.turn_begins(|| panic!("the clock is not looked at"));
        assert!(!bursts.count());
        bursts.turn_ends(|| panic!("nor here"));
    }
}
