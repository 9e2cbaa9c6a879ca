//! Joining the writes of one turn.
//!
//! The first write of a turn is sent at once, as asyncio does. Those that follow in the same turn are collected and go
//! out together when it has ended: many small writes cost two system calls. A transport whose last turn had several
//! writes (a web server's head and body) collects from the first one on, so that they cost one. Where turns have had a
//! single write, only one in [`PROBE_EVERY`] is looked at: looking costs an entry in a queue of the loop's.
//!
//! Where many transports write in a turn, all of them collect, and what they have goes out in one burst; see
//! [`Bursts`](weft_reactor::Bursts).
//!
//! Nobody else needs to know. Whatever looks at the buffer or ends the connection calls [`StreamTransport::flush`]
//! first, and then finds what it would have found had every write been sent at once. So `pause_writing()` still
//! means that the socket is full.
//!
//! Invariant: while `joins` is set, the buffer holds only what no socket has refused, and [`end_of_turn`] is among what
//! the loop does when the turn ends.

use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::{StreamTransport, in_context};
use crate::event_loop::{EVENT_LOOP, Ready, leave_task};
use crate::transports::methods::Reading;

/// More than so many bytes are not collected but sent.
const MOST: usize = 32 * 1024;

/// After a turn with a single write, so many writes less one pass before another turn is looked at.
const PROBE_EVERY: u8 = 16;

impl StreamTransport {
    /// Whether a write of `length` bytes is to be collected.
    #[inline]
    pub(super) fn collects(&self, py: Python<'_>, length: usize) -> bool {
        if self.joins.get() {
            return length <= MOST;
        }
        let bursts = self.belongs_to_burst(py);
        if bursts {
            self.passing.set(0);
        }
        (bursts || self.chatty.get()) && length <= MOST && self.unsent.borrow().is_empty()
    }

    /// Tells the loop of the first write of a turn.
    #[inline]
    fn belongs_to_burst(&self, py: Python<'_>) -> bool {
        let event_loop = self.event_loop.get(py);
        event_loop.is_some_and(|event_loop| EVENT_LOOP.of(&event_loop).bursts().count())
    }

    /// Collects the writes of this turn from now on, where the loop's queue may be used for it.
    pub(super) fn join(&self, object: &Bound<'_, PyAny>) {
        if self.joins.get() {
            self.several.set(true);
            return;
        }
        let passing = self.passing.get();
        if passing > 0 {
            self.passing.set(passing - 1);
            return;
        }
        let Some(event_loop) = self.event_loop.get(object.py()) else {
            return;
        };
        let state = EVENT_LOOP.of(&event_loop);
        // A debugged loop, and one whose `call_soon` is somebody else's, does what asyncio does to the letter.
        let ending = Ready::Job {
            run: end_of_turn,
            object: object.clone().into(),
            argument: None,
        };
        if self.closing.get()
            || !state.schedules_directly(&event_loop)
            || !state.push_ending(ending)
        {
            self.chatty.set(false);
            self.passing.set(PROBE_EVERY - 1);
            return;
        }
        self.joins.set(true);
    }

    /// Sends where too much has been collected, or where nothing could be queued to send it later.
    pub(super) fn collected(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let bound = self.limits.get().high.min(MOST);
        let fits = {
            let unsent = self.unsent.borrow();
            unsent.len() <= bound && unsent.fits_one_call()
        };
        if self.joins.get() && fits {
            return Ok(());
        }
        self.send_collected(object)
    }

    /// Sends what has been collected. Afterwards the buffer holds what the socket does not take.
    #[inline]
    pub(super) fn flush(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.joins.get() && !self.unsent.borrow().is_empty() {
            return self.send_collected(object);
        }
        Ok(())
    }

    fn send_collected(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.send_unsent(object)? && !self.unsent.borrow().is_empty() {
            self.joins.set(false);
            self.update_interest(object)?;
            self.maybe_pause_protocol(object)?;
        }
        Ok(())
    }
}

fn end_of_turn<'py>(
    event_loop: &Bound<'py, PyAny>,
    object: &Bound<'py, PyAny>,
    _: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    let state = super::STREAM.of(object);
    let several = state.several.replace(false);
    state.chatty.set(several);
    state.passing.set(if several { 0 } else { PROBE_EVERY - 1 });
    if !state.joins.replace(false) || state.unsent.borrow().is_empty() || state.lost.get() > 0 {
        return Ok(());
    }
    leave_task(EVENT_LOOP.of(event_loop), event_loop)?;
    in_context(object, |state| state.send_collected(object))
}
