//! A thin layer over epoll: tokens in, tokens out.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData};
use rustix::io::Errno;

pub use rustix::event::epoll::EventFlags as Interest;

/// How many events one wait can return.
const BATCH: usize = 1024;

/// One epoll instance and the room for its answers.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// Opens an epoll instance.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
        })
    }

    /// Watches a descriptor. What happens to it is reported under `token`.
    pub fn add(&self, source: impl AsFd, token: usize, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            source,
            EventData::new_u64(token as u64),
            interest,
        )?)
    }

    /// Changes what a watched descriptor is watched for.
    pub fn modify(&self, source: impl AsFd, token: usize, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(
            &self.epoll,
            source,
            EventData::new_u64(token as u64),
            interest,
        )?)
    }

    /// Waits until something happened, or the time is over, and replaces `events` with it.
    pub fn wait(&self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        events.reserve(BATCH);
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().cast_signed(),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        match epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The token of an event.
pub fn token(event: &Event) -> usize {
    // Tokens are indices of this process's own tables, so that they fit by construction.
    usize::try_from(event.data.u64()).unwrap_or(usize::MAX)
}
