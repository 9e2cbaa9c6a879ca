//! The queue of timers, beside a list that is sorted each time: the same order, whatever is done.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use weft_reactor::TimerQueue;

#[derive(Arbitrary, Debug)]
enum Step {
    Push(f64),
    /// A deadline that others are likely to have, too.
    PushNear(u8),
    Pop,
    PopDue(f64),
    Compact(u8),
    Drain,
}

/// In the order of arrival.
#[derive(Default)]
struct Model(Vec<(f64, u32)>);

impl Model {
    fn first(&self) -> Option<usize> {
        // Of equal deadlines min_by() gives the first.
        (0..self.0.len())
            .min_by(|&one, &other| self.0[one].0.partial_cmp(&self.0[other].0).expect("no NaN"))
    }

    fn pop(&mut self) -> Option<(f64, u32)> {
        let place = self.first()?;
        Some(self.0.remove(place))
    }
}

fn sorted(mut values: Vec<u32>) -> Vec<u32> {
    values.sort_unstable();
    values
}

fuzz_target!(|steps: Vec<Step>| {
    let mut queue = TimerQueue::new();
    let mut model = Model::default();
    for (number, step) in (0_u32..).zip(steps) {
        match step {
            Step::Push(deadline) => {
                queue.push(deadline, number);
                let deadline = if deadline.is_nan() {
                    f64::NEG_INFINITY
                } else {
                    deadline
                };
                model.0.push((deadline, number));
            }
            Step::PushNear(deadline) => {
                queue.push(f64::from(deadline % 4), number);
                model.0.push((f64::from(deadline % 4), number));
            }
            Step::Pop => assert_eq!(queue.pop(), model.pop()),
            Step::PopDue(limit) => {
                let due = model.first().is_some_and(|place| model.0[place].0 < limit);
                let expected = if due {
                    model.pop().map(|(_, payload)| payload)
                } else {
                    None
                };
                assert_eq!(queue.pop_due(limit), expected);
            }
            Step::Compact(divisor) => {
                let divisor = u32::from(divisor % 5) + 1;
                let dropped = queue.compact(|payload| payload % divisor != 0);
                let gone = model
                    .0
                    .extract_if(.., |(_, payload)| *payload % divisor == 0);
                assert_eq!(
                    sorted(dropped),
                    gone.map(|(_, payload)| payload).collect::<Vec<_>>()
                );
            }
            Step::Drain => {
                let all = model
                    .0
                    .drain(..)
                    .map(|(_, payload)| payload)
                    .collect::<Vec<_>>();
                assert_eq!(sorted(queue.drain()), all);
            }
        }
        assert_eq!(queue.len(), model.0.len());
        assert_eq!(queue.is_empty(), model.0.is_empty());
        let first = model.first().map(|place| model.0[place]);
        assert_eq!(
            queue.peek().map(|(deadline, payload)| (deadline, *payload)),
            first
        );
        assert_eq!(queue.iter().count(), model.0.len());
    }
});
