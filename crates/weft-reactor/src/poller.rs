//! Which descriptors are ready: epoll, level-triggered unless said otherwise, and an eventfd that ends a
//! wait from outside.
//!
//! Some facts about epoll that the loop has to know:
//!
//! - It watches open files, not numbers. A descriptor that is closed while a duplicate of it lives
//!   on (in a child process, say) goes on being reported, and can no longer be removed: remove
//!   first, close afterwards.
//! - Hang-up and error are reported whether asked for or not. A descriptor that nobody wants to hear
//!   of must be removed; an [`Interest`] in nothing would spin when its peer goes away.
//! - Regular files are refused (`EPERM`), for they are always ready.
//! - An edge-triggered descriptor is reported once for each arrival, wanted or not, so it never spins and
//!   may stay when nobody listens. Adding or changing it counts as an arrival if it is ready.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

use crate::clock::LONGEST_SLEEP;
use crate::sys::with_fd;

/// How many events one wait can bring. What is ready beyond them comes first at the next wait.
const BATCH: usize = 1024;

/// The token of the eventfd. A [`crate::WatchTable`] never gives it out.
const WAKER_TOKEN: u64 = u64::MAX;

const ARRIVALS: EventFlags = EventFlags::IN.union(EventFlags::ET);

/// What a watcher wants to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// There is something to read or to accept, or the end of the stream.
    pub readable: bool,
    /// There is room to write, or a connection attempt has ended.
    pub writable: bool,
}

impl Interest {
    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.readable);
        flags.set(EventFlags::OUT, self.writable);
        flags
    }
}

/// What a wait found. Hang-up and error set both, so that whoever watches is told and meets
/// the error in its own system call; mask with the watcher's own interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The token that the descriptor was added with.
    pub token: u64,
    /// A reader should look.
    pub readable: bool,
    /// A writer should look.
    pub writable: bool,
}

/// An epoll instance, and the eventfd that its [`Waker`]s write to.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    waker: Waker,
}

impl Poller {
    /// Opens both descriptors, close-on-exec.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Edge-triggered: each write is one event, so that the counter never needs to be read.
        epoll::add(
            &epoll,
            &eventfd,
            EventData::new_u64(WAKER_TOKEN),
            EventFlags::IN | EventFlags::ET,
        )?;
        let waker = Waker {
            eventfd: Arc::new(eventfd),
        };
        Ok(Self { epoll, waker })
    }

    /// What ends a [`wait`](Self::wait) from another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The epoll descriptor, which is readable when a wait would not block.
    #[must_use]
    pub fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Starts to watch `fd`. `EEXIST` if it is watched already.
    pub fn add(&self, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        let data = event_data(token)?;
        with_fd(fd, |fd| epoll::add(&self.epoll, fd, data, interest.flags()))
    }

    /// Changes token and interest of a descriptor. `ENOENT` if it is not watched.
    pub fn modify(&self, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        let data = event_data(token)?;
        with_fd(fd, |fd| {
            epoll::modify(&self.epoll, fd, data, interest.flags())
        })
    }

    /// Starts to watch `fd` for what arrives, edge-triggered. `EEXIST` if it is watched already.
    pub fn add_for_arrivals(&self, fd: RawFd, token: u64) -> io::Result<()> {
        let data = event_data(token)?;
        with_fd(fd, |fd| epoll::add(&self.epoll, fd, data, ARRIVALS))
    }

    /// Changes a watched descriptor to one that is watched for what arrives, edge-triggered. `ENOENT` if
    /// it is not watched.
    pub fn modify_for_arrivals(&self, fd: RawFd, token: u64) -> io::Result<()> {
        let data = event_data(token)?;
        with_fd(fd, |fd| epoll::modify(&self.epoll, fd, data, ARRIVALS))
    }

    /// Stops watching `fd`. `ENOENT` if it is not watched, `EBADF` if it was closed before.
    pub fn remove(&self, fd: RawFd) -> io::Result<()> {
        with_fd(fd, |fd| epoll::delete(&self.epoll, fd))
    }

    /// Waits until a descriptor is ready, a [`Waker`] wakes, a signal arrives or `timeout` has
    /// passed, and puts what is ready into `events`, which is emptied first. A wake-up or a signal
    /// alone leaves it empty.
    ///
    /// No timeout means for ever; any other is rounded up to whole milliseconds, so that a timer is
    /// due when the wait for it ends, and cut to [`LONGEST_SLEEP`].
    pub fn wait(&self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        self.wait_for_batch::<BATCH>(events, timeout)
    }

    fn wait_for_batch<const SIZE: usize>(
        &self,
        events: &mut Vec<Event>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        events.clear();
        let timeout = timeout.map(timespec);
        let mut batch = [const { MaybeUninit::uninit() }; SIZE];
        match epoll::wait(&self.epoll, &mut batch, timeout.as_ref()) {
            Ok((ready, _)) => {
                events.extend(ready.iter().copied().filter_map(translate));
                Ok(())
            }
            Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// Ends the wait of one [`Poller`], now or the next one. Any thread may have one, and keep it for
/// longer than the poller lives; it wakes nobody then.
#[derive(Clone, Debug)]
pub struct Waker {
    eventfd: Arc<OwnedFd>,
}

impl Waker {
    /// One write to the eventfd: no lock, no allocation, and fit for a signal handler.
    ///
    /// Wake-ups before the next wait count as one.
    pub fn wake(&self) {
        loop {
            match rustix::io::write(&*self.eventfd, &1_u64.to_ne_bytes()) {
                Err(Errno::INTR) => {}
                // The counter is full, after 2^64 wake-ups. Empty it, and write again.
                Err(Errno::AGAIN) => {
                    let mut count = [0; 8];
                    // Another thread may have emptied it before us, which is as good.
                    let _emptied = rustix::io::read(&*self.eventfd, &mut count);
                }
                // Nothing else can happen to an eventfd that we hold open.
                result => {
                    debug_assert!(result.is_ok(), "write to an eventfd: {result:?}");
                    return;
                }
            }
        }
    }
}

fn event_data(token: u64) -> io::Result<EventData> {
    if token == WAKER_TOKEN {
        let reason = "this token is the poller's own";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    Ok(EventData::new_u64(token))
}

/// What the kernel reports, in the loop's terms; nothing for a wake-up.
fn translate(event: epoll::Event) -> Option<Event> {
    let epoll::Event { flags, data, .. } = event;
    let token = data.u64();
    (token != WAKER_TOKEN).then(|| Event {
        token,
        // All but the other direction, so that hang-ups and errors count for both.
        readable: flags.intersects(EventFlags::OUT.complement()),
        writable: flags.intersects(EventFlags::IN.complement()),
    })
}

fn timespec(timeout: Duration) -> Timespec {
    let timeout = timeout.min(LONGEST_SLEEP);
    Timespec {
        // At most a day, by the line above.
        tv_sec: timeout.as_secs().cast_signed(),
        tv_nsec: timeout.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests;
