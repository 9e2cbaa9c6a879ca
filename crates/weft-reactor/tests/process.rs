//! What concerns the whole process, signals and fork: each test runs in a process of its own.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use weft_reactor::{Interest, Poller, socket};

const READ: Interest = Interest {
    readable: true,
    writable: false,
};

/// Runs `body` in a fresh process, which is this test binary asked for this one test.
fn in_own_process(test: &str, body: fn()) {
    const MARK: &str = "WEFT_REACTOR_TEST";
    if std::env::var_os(MARK).is_some_and(|name| name == test) {
        body();
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(MARK, test)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_signal_ends_the_wait_without_events() {
    extern "C" fn handle(_signal: libc::c_int) {}

    in_own_process("a_signal_ends_the_wait_without_events", || {
        // SAFETY: the handler does nothing, and so is async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as extern "C" fn(libc::c_int) as usize;
            assert_eq!(
                libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()),
                0
            );
        }
        // SAFETY: has no preconditions.
        let waiter = unsafe { libc::pthread_self() };
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                // A signal that comes before the wait is lost: go on until one has ended it.
                while !ended.load(Ordering::Acquire) {
                    // SAFETY: the scope keeps the waiting thread alive until this one has ended.
                    unsafe { libc::pthread_kill(waiter, libc::SIGUSR1) };
                    thread::sleep(Duration::from_millis(1));
                }
            });
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let poller = Poller::new().unwrap();
            poller.add(ours.as_raw_fd(), 1, READ).unwrap();
            let mut events = Vec::new();
            let result = poller.wait(&mut events, None);
            ended.store(true, Ordering::Release);
            result.unwrap();
            assert!(events.is_empty());
        });
    });
}

#[test]
fn a_broken_pipe_raises_no_signal() {
    in_own_process("a_broken_pipe_raises_no_signal", || {
        // SAFETY: restores the default action, which Rust's runtime has set to "ignore".
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let fd = ours.as_raw_fd();
        let slices = [std::io::IoSlice::new(b"x")];
        for result in [socket::send(fd, b"x"), socket::send_vectored(fd, &slices)] {
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EPIPE));
        }
    });
}

#[test]
fn a_child_drops_its_parents_poller_and_makes_its_own() {
    fn child(inherited: Poller, pair: &(UnixStream, UnixStream)) -> bool {
        drop(inherited);
        let poller = Poller::new().unwrap();
        poller.waker().wake();
        poller.wait(&mut Vec::new(), None).unwrap();
        poller.add(pair.1.as_raw_fd(), 9, READ).unwrap();
        (&pair.0).write_all(b"from the child").unwrap();
        let mut events = Vec::new();
        poller.wait(&mut events, None).unwrap();
        events.len() == 1 && events[0].token == 9
    }

    in_own_process("a_child_drops_its_parents_poller_and_makes_its_own", || {
        let pair = UnixStream::pair().unwrap();
        let poller = Poller::new().unwrap();
        poller.add(pair.1.as_raw_fd(), 5, READ).unwrap();

        // SAFETY: the child runs on plain memory and descriptors, and leaves by `_exit`. The other
        // thread of this process, the harness's, only waits for this one.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            let good = std::panic::catch_unwind(|| child(poller, &pair)).unwrap_or(false);
            // SAFETY: ends this process without the parent's exit handlers.
            unsafe { libc::_exit(i32::from(!good)) }
        }
        let mut status = 0;
        // SAFETY: `status` is ours to write to, and `pid` our child.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0);

        let mut events = Vec::new();
        poller.wait(&mut events, None).unwrap();
        assert_eq!(events.len(), 1, "the registration has survived the child");
        assert_eq!(events[0].token, 5);
        poller.remove(pair.1.as_raw_fd()).unwrap();
        poller.waker().wake();
        poller.wait(&mut events, None).unwrap();
        assert!(events.is_empty());
    });
}
