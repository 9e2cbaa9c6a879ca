use std::rc::Rc;

use proptest::prelude::*;

use super::*;

fn drain_in_order<T>(queue: &mut TimerQueue<T>) -> Vec<T> {
    std::iter::from_fn(|| queue.pop())
        .map(|(_, payload)| payload)
        .collect()
}

#[test]
fn a_new_queue_is_empty() {
    let mut queue = TimerQueue::<u32>::default();
    assert!(queue.is_empty());
    assert_eq!(queue.len(), 0);
    assert_eq!(queue.peek(), None);
    assert_eq!(queue.pop(), None);
    assert_eq!(queue.pop_due(f64::INFINITY), None);
    assert!(queue.compact(|_| false).is_empty());
    assert!(queue.drain().is_empty());
}

#[test]
fn can_be_a_constant() {
    const QUEUE: TimerQueue<u32> = TimerQueue::new();
    assert!(QUEUE.is_empty());
}

#[test]
fn gives_out_the_earliest_first() {
    let mut queue = TimerQueue::new();
    for deadline in [3.0, 1.0, 2.0] {
        queue.push(deadline, deadline);
    }
    assert_eq!(queue.peek(), Some((1.0, &1.0)));
    assert_eq!(queue.pop(), Some((1.0, 1.0)));
    assert_eq!(queue.len(), 2);
    assert_eq!(drain_in_order(&mut queue), [2.0, 3.0]);
}

#[test]
fn equal_deadlines_come_out_as_they_went_in() {
    let mut queue = TimerQueue::new();
    for number in 0..100 {
        queue.push(f64::from(number % 3), number);
    }
    let order = drain_in_order(&mut queue);
    let expected: Vec<i32> = (0..3)
        .flat_map(|rest| (0..100).filter(move |number| number % 3 == rest))
        .collect();
    assert_eq!(order, expected);
}

#[test]
fn due_means_strictly_before_the_limit() {
    let mut queue = TimerQueue::new();
    queue.push(1.0, "timer");
    assert_eq!(queue.pop_due(1.0), None);
    assert_eq!(queue.pop_due(f64::NAN), None);
    assert_eq!(queue.pop_due(1.0_f64.next_up()), Some("timer"));
}

#[test]
fn odd_deadlines_hold_nobody_up() {
    let mut queue = TimerQueue::new();
    queue.push(f64::INFINITY, "never");
    queue.push(0.0, "zero");
    queue.push(-0.0, "minus zero");
    queue.push(-f64::NAN, "minus nan");
    queue.push(f64::NAN, "nan");
    queue.push(f64::NEG_INFINITY, "always");
    let due: Vec<_> = std::iter::from_fn(|| queue.pop_due(1.0)).collect();
    assert_eq!(due, ["minus nan", "nan", "always", "zero", "minus zero"]);
    assert_eq!(queue.pop(), Some((f64::INFINITY, "never")));
}

#[test]
fn compacting_returns_what_it_drops_and_keeps_the_order() {
    let mut queue = TimerQueue::new();
    for number in 0..50 {
        queue.push(7.0, number);
    }
    let mut dropped = queue.compact(|number| number % 5 == 0);
    dropped.sort_unstable();
    let expected: Vec<i32> = (0..50).filter(|number| number % 5 != 0).collect();
    assert_eq!(dropped, expected);
    queue.push(7.0, 1000);
    let kept: Vec<i32> = (0..50).step_by(5).chain([1000]).collect();
    assert_eq!(drain_in_order(&mut queue), kept);
}

#[test]
fn no_payload_is_dropped_inside() {
    let payload = Rc::new(());
    let mut queue = TimerQueue::new();
    for number in 0..10 {
        queue.push(f64::from(number), Rc::clone(&payload));
    }
    let mut keep = [true, false].into_iter().cycle();
    let dropped = queue.compact(|_| keep.next().unwrap());
    let drained = queue.drain();
    assert_eq!((dropped.len(), drained.len()), (5, 5));
    assert_eq!(Rc::strong_count(&payload), 11);
    drop((dropped, drained));
    assert_eq!(Rc::strong_count(&payload), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Push(f64),
    Pop,
    PopDue(f64),
    /// Keeps the payloads that this does not divide.
    Compact(u32),
    Drain,
}

/// Few values, so that many are equal.
fn deadlines() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => (0..6_i8).prop_map(f64::from),
        1 => prop_oneof![Just(-0.0), Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY)],
        1 => any::<f64>(),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => deadlines().prop_map(Step::Push),
        4 => Just(Step::Pop),
        4 => deadlines().prop_map(Step::PopDue),
        2 => (1..5_u32).prop_map(Step::Compact),
        1 => Just(Step::Drain),
    ];
    prop::collection::vec(step, 0..if cfg!(miri) { 40 } else { 300 })
}

/// A vector that is sorted at all times, new entries behind their equals.
#[derive(Default)]
struct Model(Vec<(f64, u32)>);

impl Model {
    fn push(&mut self, deadline: f64, payload: u32) {
        let deadline = if deadline.is_nan() {
            f64::NEG_INFINITY
        } else {
            deadline
        };
        let place = self.0.partition_point(|&(earlier, _)| earlier <= deadline);
        self.0.insert(place, (deadline, payload));
    }

    fn pop(&mut self) -> Option<(f64, u32)> {
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }

    fn pop_due(&mut self, limit: f64) -> Option<u32> {
        let (deadline, _) = self.0.first()?;
        if *deadline < limit {
            self.pop().map(|(_, payload)| payload)
        } else {
            None
        }
    }

    fn compact(&mut self, keep: impl Fn(u32) -> bool) -> Vec<u32> {
        let (kept, dropped) = self.0.iter().partition(|(_, payload)| keep(*payload));
        self.0 = kept;
        sorted(Vec::into_iter(dropped).map(|(_, payload): (f64, u32)| payload))
    }
}

fn sorted(payloads: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let mut payloads: Vec<u32> = payloads.into_iter().collect();
    payloads.sort_unstable();
    payloads
}

proptest! {
    #![proptest_config(crate::testing::proptest_config())]

    #[test]
    fn behaves_like_a_sorted_vector(steps in steps()) {
        let mut queue = TimerQueue::new();
        let mut model = Model::default();
        for (payload, step) in (0..).zip(steps) {
            match step {
                Step::Push(deadline) => {
                    queue.push(deadline, payload);
                    model.push(deadline, payload);
                }
                Step::Pop => prop_assert_eq!(queue.pop(), model.pop()),
                Step::PopDue(limit) => prop_assert_eq!(queue.pop_due(limit), model.pop_due(limit)),
                Step::Compact(divisor) => {
                    let dropped = sorted(queue.compact(|payload| payload % divisor != 0));
                    prop_assert_eq!(dropped, model.compact(|payload| payload % divisor != 0));
                }
                Step::Drain => {
                    prop_assert_eq!(sorted(queue.drain()), model.compact(|_| false));
                }
            }
            prop_assert_eq!(queue.len(), model.0.len());
            prop_assert_eq!(queue.is_empty(), model.0.is_empty());
            let first = model.0.first().map(|(deadline, payload)| (*deadline, payload));
            prop_assert_eq!(queue.peek(), first);
            prop_assert_eq!(
                sorted(queue.iter().copied()),
                sorted(model.0.iter().map(|(_, payload)| *payload))
            );
        }
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        prop_assert_eq!(rest, model.0);
    }
}
