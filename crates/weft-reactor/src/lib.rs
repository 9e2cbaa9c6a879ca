//! What an event loop needs from the operating system, and from data structures: readiness
//! polling, timers, wake-ups, and socket calls that never block. There is no Python in here.
//!
//! # Ground rules
//!
//! - **One thread owns everything.** A loop's [`Poller`], [`TimerQueue`] and [`WatchTable`] belong
//!   to the thread that runs the loop (under Python: to whoever holds the GIL), so nothing here
//!   has a lock. The one thing that other threads may hold is a [`Waker`].
//! - **Descriptors are borrowed.** Every `RawFd` that comes in belongs to the caller. This crate
//!   closes only what it opened itself: the epoll descriptor, the eventfd, and nothing else; what
//!   [`socket::accept`] returns is the caller's at once. A wrong or closed number is an
//!   `EBADF`, never a panic.
//! - **Readiness is level-triggered.** An event says what is true now; who does not act on it is
//!   told again at the next [`Poller::wait`].
//! - **A token outlives nothing.** [`WatchTable`] tokens carry a generation: a token whose watch
//!   was removed resolves to nothing for ever after, even when the slot and the descriptor's number
//!   are in use again. So an event that was collected before a removal is harmless.
//! - **Payloads are never dropped behind the caller's back.** Dropping one may run any code (a
//!   Python destructor), which may come back to the same structure. Whatever removes payloads
//!   returns them, so that the caller drops them when its borrow has ended.
//! - **Interrupted calls** (`EINTR`) are retried, except the wait itself, which returns without
//!   events: whoever owns the loop wants to look at its signals then.
//! - **Errors keep their errno**: every `io::Error` has a `raw_os_error()`, except those that say
//!   that an argument can never be right.
//! - **Fork.** A child shares the parent's epoll instance and eventfd. Dropping the inherited
//!   `Poller` there is safe (it closes descriptors and changes no registration); adding to,
//!   removing from or waiting on it would act on the parent's loop. A child that wants a loop makes
//!   a new `Poller`.
//!
//! Unsafe code lives in `sys` only.
//!
//! # A loop in small
//!
//! ```
//! use std::io::Write;
//! use std::os::fd::AsRawFd;
//! use std::os::unix::net::UnixStream;
//! use weft_reactor::{Interest, Poller, TimerQueue, WatchTable, clock, monotonic, socket};
//!
//! # fn main() -> std::io::Result<()> {
//! let (ours, mut theirs) = UnixStream::pair()?;
//! let poller = Poller::new()?;
//! let mut watches = WatchTable::new();
//! let mut timers = TimerQueue::new();
//!
//! let token = watches.insert(ours.as_raw_fd(), "the connection");
//! let readable = Interest { readable: true, writable: false };
//! poller.add(ours.as_raw_fd(), token, readable)?;
//! timers.push(monotonic() + 60.0, "a timeout");
//! theirs.write_all(b"hello")?;
//!
//! let sleep = timers.peek().map(|(deadline, _)| clock::sleep_until(deadline, monotonic()));
//! let mut events = Vec::new();
//! poller.wait(&mut events, sleep)?;
//! for event in &events {
//!     assert_eq!(watches.get(event.token), Some(&"the connection"));
//!     let mut buf = [0; 16];
//!     let received = socket::recv(ours.as_raw_fd(), &mut buf)?;
//!     assert_eq!(&buf[..received], b"hello");
//! }
//! assert_eq!(timers.pop_due(monotonic()), None, "that minute is not over");
//! # Ok(())
//! # }
//! ```

#![deny(missing_docs)]
#![deny(unsafe_code)]

pub mod addresses;
pub mod bursts;
pub mod clock;
pub mod pipe;
pub mod poller;
pub mod socket;
mod sys;
#[cfg(test)]
mod testing;
pub mod timers;
pub mod watches;

pub use bursts::Bursts;
pub use clock::monotonic;
pub use poller::{Event, Interest, Poller, Waker};
pub use timers::TimerQueue;
pub use watches::WatchTable;
