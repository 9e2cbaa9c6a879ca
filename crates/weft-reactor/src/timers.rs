//! Timers, ordered by deadline, and by arrival among equal deadlines.
//!
//! The queue knows nothing of cancellation: a cancelled timer stays where it is until it comes up,
//! or until its owner, who counts them, finds them too many and calls [`TimerQueue::compact`].

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A priority queue of payloads by deadline, in seconds of the loop's clock.
///
/// Equal deadlines come out in the order in which they went in.
pub struct TimerQueue<T> {
    heap: BinaryHeap<Entry<T>>,
    /// The arrival number of the next entry. It never goes back and never repeats.
    arrivals: u64,
}

struct Entry<T> {
    /// Neither NaN nor -0.0, so that `<` is a total order; see [`TimerQueue::push`].
    deadline: f64,
    arrival: u64,
    payload: T,
}

impl<T> Ord for Entry<T> {
    /// Reversed: the standard heap gives out its greatest element, and ours is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .deadline
            .total_cmp(&self.deadline)
            .then_with(|| other.arrival.cmp(&self.arrival))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> TimerQueue<T> {
    /// An empty queue; allocates nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            arrivals: 0,
        }
    }

    /// How many timers there are, cancelled ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether there is no timer at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Adds a timer. A NaN deadline counts as long past, as it does in asyncio, where every
    /// comparison that would hold the timer back is false.
    pub fn push(&mut self, deadline: f64, payload: T) {
        let deadline = if deadline.is_nan() {
            f64::NEG_INFINITY
        } else {
            deadline + 0.0 // turns -0.0 into 0.0
        };
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.heap.push(Entry {
            deadline,
            arrival,
            payload,
        });
    }

    /// The earliest timer and its deadline.
    #[must_use]
    pub fn peek(&self) -> Option<(f64, &T)> {
        let first = self.heap.peek()?;
        Some((first.deadline, &first.payload))
    }

    /// Takes the earliest timer out, due or not.
    pub fn pop(&mut self) -> Option<(f64, T)> {
        let first = self.heap.pop()?;
        Some((first.deadline, first.payload))
    }

    /// Takes the earliest timer out if its deadline is before `limit`.
    ///
    /// asyncio's loop passes `time() + clock_resolution` here, and leaves what is due at exactly
    /// that moment for the next turn; hence strictly before.
    pub fn pop_due(&mut self, limit: f64) -> Option<T> {
        if self.heap.peek()?.deadline < limit {
            self.heap.pop().map(|entry| entry.payload)
        } else {
            None
        }
    }

    /// Removes the timers that `keep` refuses, in linear time, and returns them in no particular
    /// order. Those that stay keep their order, arrival among equals included.
    #[must_use = "the payloads are the caller's to free, once nothing borrows the queue"]
    pub fn compact(&mut self, mut keep: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        let dropped = entries
            .extract_if(.., |entry| !keep(&entry.payload))
            .map(|entry| entry.payload)
            .collect();
        self.heap = BinaryHeap::from(entries);
        dropped
    }

    /// All timers, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.heap.iter().map(|entry| &entry.payload)
    }

    /// Empties the queue and returns what was in it, in no particular order.
    #[must_use = "the payloads are the caller's to free, once nothing borrows the queue"]
    pub fn drain(&mut self) -> Vec<T> {
        let entries = std::mem::take(&mut self.heap).into_vec();
        entries.into_iter().map(|entry| entry.payload).collect()
    }
}

impl<T> Default for TimerQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
