use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::pipe::pipe;

use super::*;
use crate::testing::tcp_pair;

const READ: Interest = Interest {
    readable: true,
    writable: false,
};
const WRITE: Interest = Interest {
    readable: false,
    writable: true,
};
const BOTH: Interest = Interest {
    readable: true,
    writable: true,
};

fn event(token: u64, readable: bool, writable: bool) -> Event {
    Event {
        token,
        readable,
        writable,
    }
}

/// What is ready now.
fn ready(poller: &Poller) -> Vec<Event> {
    let mut events = vec![event(0xdead, true, true)];
    poller.wait(&mut events, Some(Duration::ZERO)).unwrap();
    events
}

fn errno<T>(result: io::Result<T>) -> Option<Errno> {
    let code = result.err()?.raw_os_error();
    Some(Errno::from_raw_os_error(code.expect("an errno")))
}

#[test]
fn reports_nothing_when_nothing_happens() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let poller = Poller::new().unwrap();
    poller.add(ours.as_raw_fd(), 1, READ).unwrap();
    assert_eq!(ready(&poller), []);
}

#[test]
fn arrivals_are_reported_once_each() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let poller = Poller::new().unwrap();
    poller.add_for_arrivals(ours.as_raw_fd(), 7).unwrap();
    assert_eq!(ready(&poller), []);
    for _ in 0..2 {
        theirs.write_all(b"x").unwrap();
        assert_eq!(ready(&poller), [event(7, true, false)]);
        assert_eq!(ready(&poller), []);
    }
    // Nobody has read. Being registered again counts as an arrival.
    poller.modify_for_arrivals(ours.as_raw_fd(), 8).unwrap();
    assert_eq!(ready(&poller), [event(8, true, false)]);
    assert_eq!(ready(&poller), []);
    poller.modify(ours.as_raw_fd(), 9, READ).unwrap();
    assert_eq!(ready(&poller), [event(9, true, false)]);
    assert_eq!(ready(&poller), [event(9, true, false)]);
    drop(theirs);
    poller.modify_for_arrivals(ours.as_raw_fd(), 8).unwrap();
    assert_eq!(ready(&poller).len(), 1);
    assert_eq!(ready(&poller), []);
}

#[test]
fn what_is_left_of_a_closed_descriptor_does_not_spin() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let poller = Poller::new().unwrap();
    poller.add_for_arrivals(ours.as_raw_fd(), 7).unwrap();
    let duplicate = ours.try_clone().unwrap();
    drop(ours);
    theirs.write_all(b"x").unwrap();
    assert_eq!(ready(&poller), [event(7, true, false)]);
    assert_eq!(ready(&poller), []);
    drop(duplicate);
}

#[test]
fn goes_on_reporting_until_someone_reads() {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let poller = Poller::new().unwrap();
    poller.add(ours.as_raw_fd(), 7, READ).unwrap();
    theirs.write_all(b"x").unwrap();
    for _ in 0..3 {
        assert_eq!(ready(&poller), [event(7, true, false)]);
    }
    ours.read_exact(&mut [0]).unwrap();
    assert_eq!(ready(&poller), []);
}

#[test]
fn reports_both_directions_in_one_event() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let poller = Poller::new().unwrap();
    poller.add(ours.as_raw_fd(), 1, BOTH).unwrap();
    assert_eq!(ready(&poller), [event(1, false, true)]);
    theirs.write_all(b"x").unwrap();
    assert_eq!(ready(&poller), [event(1, true, true)]);
}

#[test]
fn modifying_changes_token_and_interest() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let poller = Poller::new().unwrap();
    let fd = ours.as_raw_fd();
    theirs.write_all(b"x").unwrap();
    poller.add(fd, 1, READ).unwrap();
    poller.modify(fd, u64::MAX - 1, WRITE).unwrap();
    assert_eq!(ready(&poller), [event(u64::MAX - 1, false, true)]);
    poller.modify(fd, 3, READ).unwrap();
    assert_eq!(ready(&poller), [event(3, true, false)]);
}

#[test]
fn a_removed_descriptor_is_silent_and_open() {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let poller = Poller::new().unwrap();
    poller.add(ours.as_raw_fd(), 1, READ).unwrap();
    theirs.write_all(b"x").unwrap();
    poller.remove(ours.as_raw_fd()).unwrap();
    assert_eq!(ready(&poller), []);
    ours.read_exact(&mut [0]).unwrap();
    poller.add(ours.as_raw_fd(), 2, WRITE).unwrap();
    assert_eq!(ready(&poller), [event(2, false, true)]);
}

#[test]
fn dropping_the_poller_leaves_watched_descriptors_open() {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let poller = Poller::new().unwrap();
    poller.add(ours.as_raw_fd(), 1, READ).unwrap();
    drop(poller);
    theirs.write_all(b"x").unwrap();
    ours.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_closed_descriptor_is_forgotten() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let poller = Poller::new().unwrap();
    poller.add(ours.as_raw_fd(), 1, READ).unwrap();
    theirs.write_all(b"x").unwrap();
    drop(ours);
    assert_eq!(ready(&poller), []);
}

/// The reason for "remove first, close afterwards".
#[test]
fn a_closed_descriptor_with_a_duplicate_is_not_forgotten() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let poller = Poller::new().unwrap();
    poller.add(ours.as_raw_fd(), 1, READ).unwrap();
    let _duplicate = ours.try_clone().unwrap();
    theirs.write_all(b"x").unwrap();
    drop(ours);
    assert_eq!(ready(&poller), [event(1, true, false)]);
}

#[test]
fn the_end_of_the_stream_reaches_reader_and_writer() {
    let poller = Poller::new().unwrap();
    for interest in [READ, WRITE] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        poller.add(ours.as_raw_fd(), 1, interest).unwrap();
        assert_eq!(ready(&poller), [event(1, true, true)], "{interest:?}");
    }
}

#[test]
fn a_half_closed_stream_is_only_readable() {
    let (ours, theirs) = tcp_pair();
    let poller = Poller::new().unwrap();
    poller.add(ours.as_raw_fd(), 1, READ).unwrap();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    let mut events = Vec::new();
    poller.wait(&mut events, None).unwrap();
    assert_eq!(events, [event(1, true, false)]);
}

#[test]
fn a_pipe_without_reader_is_an_error_for_its_writer() {
    let (reader, writer) = pipe().unwrap();
    let poller = Poller::new().unwrap();
    poller.add(writer.as_raw_fd(), 1, WRITE).unwrap();
    assert_eq!(ready(&poller), [event(1, false, true)]);
    drop(reader);
    assert_eq!(ready(&poller), [event(1, true, true)]);
}

#[test]
fn a_pipe_without_writer_is_a_hang_up_for_its_reader() {
    let (reader, writer) = pipe().unwrap();
    let poller = Poller::new().unwrap();
    poller.add(reader.as_raw_fd(), 1, READ).unwrap();
    rustix::io::write(&writer, b"x").unwrap();
    assert_eq!(ready(&poller), [event(1, true, false)]);
    drop(writer);
    assert_eq!(ready(&poller), [event(1, true, true)]);
}

/// The reason for "remove what nobody wants to hear of".
#[test]
fn an_interest_in_nothing_still_hears_of_hang_ups() {
    let nothing = Interest {
        readable: false,
        writable: false,
    };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let poller = Poller::new().unwrap();
    poller.add(ours.as_raw_fd(), 1, nothing).unwrap();
    assert_eq!(ready(&poller), []);
    drop(theirs);
    assert_eq!(ready(&poller), [event(1, true, true)]);
}

#[test]
fn what_does_not_fit_comes_first_next_time() {
    let poller = Poller::new().unwrap();
    let pairs: Vec<_> = (0..6).map(|_| UnixStream::pair().unwrap()).collect();
    for (token, (ours, _)) in (0..).zip(&pairs) {
        poller.add(ours.as_raw_fd(), token, WRITE).unwrap();
    }
    let mut seen = Vec::new();
    let mut events = Vec::new();
    for _ in 0..3 {
        poller
            .wait_for_batch::<2>(&mut events, Some(Duration::ZERO))
            .unwrap();
        seen.extend(events.iter().map(|event| event.token));
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn errors_carry_the_errno() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let fd = ours.as_raw_fd();
    let poller = Poller::new().unwrap();
    assert_eq!(errno(poller.modify(fd, 1, READ)), Some(Errno::NOENT));
    assert_eq!(errno(poller.remove(fd)), Some(Errno::NOENT));
    poller.add(fd, 1, READ).unwrap();
    assert_eq!(errno(poller.add(fd, 1, READ)), Some(Errno::EXIST));
    for bad in [-1, i32::MIN, i32::MAX] {
        assert_eq!(errno(poller.add(bad, 1, READ)), Some(Errno::BADF));
        assert_eq!(errno(poller.modify(bad, 1, READ)), Some(Errno::BADF));
        assert_eq!(errno(poller.remove(bad)), Some(Errno::BADF));
    }
}

#[test]
fn refuses_regular_files() {
    let file = File::open(std::env::current_exe().unwrap()).unwrap();
    let poller = Poller::new().unwrap();
    assert_eq!(
        errno(poller.add(file.as_raw_fd(), 1, READ)),
        Some(Errno::PERM)
    );
}

#[test]
fn refuses_its_own_token() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let poller = Poller::new().unwrap();
    let error = poller.add(ours.as_raw_fd(), u64::MAX, READ).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    poller.add(ours.as_raw_fd(), 1, READ).unwrap();
    let error = poller.modify(ours.as_raw_fd(), u64::MAX, READ);
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn its_descriptors_are_close_on_exec() {
    let poller = Poller::new().unwrap();
    for fd in [poller.as_fd(), poller.waker.eventfd.as_fd()] {
        assert!(fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC));
    }
    let eventfd = poller.waker.eventfd.as_fd();
    assert!(fcntl_getfl(eventfd).unwrap().contains(OFlags::NONBLOCK));
}

#[test]
fn can_be_polled_by_another_poller() {
    let (inner, outer) = (Poller::new().unwrap(), Poller::new().unwrap());
    outer.add(inner.as_raw_fd(), 1, READ).unwrap();
    assert_eq!(ready(&outer), []);
    inner.waker().wake();
    assert_eq!(ready(&outer), [event(1, true, false)]);
    assert_eq!(ready(&inner), []);
    assert_eq!(ready(&outer), []);
}

#[test]
fn waits_at_least_as_long_as_it_was_told() {
    let poller = Poller::new().unwrap();
    let mut events = Vec::new();
    for timeout in [Duration::from_nanos(1), Duration::from_micros(2500)] {
        let start = Instant::now();
        poller.wait(&mut events, Some(timeout)).unwrap();
        assert!(start.elapsed() >= timeout);
        assert_eq!(events, []);
    }
}

#[test]
fn an_endless_timeout_is_no_error() {
    let poller = Poller::new().unwrap();
    poller.waker().wake();
    poller.wait(&mut Vec::new(), Some(Duration::MAX)).unwrap();
}

#[test]
fn wake_ups_before_the_wait_count_as_one() {
    let poller = Poller::new().unwrap();
    let mut events = Vec::new();
    for _ in 0..5 {
        poller.waker().wake();
    }
    poller.wait(&mut events, None).unwrap();
    assert_eq!(events, []);

    // The wait is over only because of its timeout: nothing is left of those wake-ups.
    let timeout = Duration::from_millis(5);
    let start = Instant::now();
    poller.wait(&mut events, Some(timeout)).unwrap();
    assert!(start.elapsed() >= timeout);

    poller.waker().wake();
    poller.wait(&mut events, None).unwrap();
}

#[test]
fn a_wake_up_hides_no_event() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let poller = Poller::new().unwrap();
    poller.add(ours.as_raw_fd(), 1, WRITE).unwrap();
    poller.waker().wake();
    assert_eq!(ready(&poller), [event(1, false, true)]);
}

#[test]
fn a_full_counter_still_wakes() {
    let poller = Poller::new().unwrap();
    let full = (u64::MAX - 1).to_ne_bytes();
    rustix::io::write(poller.waker.eventfd.as_fd(), &full).unwrap();
    poller.wait(&mut Vec::new(), None).unwrap();
    poller.waker().wake();
    poller.wait(&mut Vec::new(), None).unwrap();
}

#[test]
fn a_waker_may_outlive_its_poller() {
    let poller = Poller::new().unwrap();
    let waker = poller.waker();
    let clone = waker.clone();
    drop(poller);
    waker.wake();
    drop(waker);
    clone.wake();
}

#[test]
fn only_the_waker_needs_to_cross_threads() {
    fn crosses<T: Send + Sync + Clone + 'static>() {}
    crosses::<Waker>();
}

#[test]
fn no_wake_up_from_another_thread_is_lost() {
    const THREADS: usize = 4;
    const ROUNDS: usize = if cfg!(miri) { 5 } else { 2000 };
    let poller = Poller::new().unwrap();
    let (inbox, messages) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let (inbox, waker) = (inbox.clone(), poller.waker());
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    inbox.send(round).unwrap();
                    waker.wake();
                }
            });
        }
        let mut received = 0;
        let mut events = Vec::new();
        while received < THREADS * ROUNDS {
            // A lost wake-up would leave us here for ever.
            poller.wait(&mut events, None).unwrap();
            assert_eq!(events, []);
            received += messages.try_iter().count();
        }
    });
}
