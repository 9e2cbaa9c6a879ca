use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{Errno, FdFlags, fcntl_getfd};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{AddressFamily, SocketType};

use super::*;
use crate::testing::tcp_pair;
use crate::{Interest, Poller};

fn errno<T>(result: io::Result<T>) -> Option<Errno> {
    let code = result.err()?.raw_os_error();
    Some(Errno::from_raw_os_error(code.expect("an errno")))
}

fn wait_until_ready(fd: RawFd, readable: bool) {
    let poller = Poller::new().unwrap();
    let interest = Interest {
        readable,
        writable: !readable,
    };
    poller.add(fd, 0, interest).unwrap();
    let mut events = Vec::new();
    while events.is_empty() {
        poller.wait(&mut events, None).unwrap();
    }
}

#[test]
fn what_is_sent_is_received() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    assert_eq!(send(ours.as_raw_fd(), b"hello").unwrap(), 5);
    let mut buf = [0; 16];
    assert_eq!(recv(theirs.as_raw_fd(), &mut buf[..2]).unwrap(), 2);
    assert_eq!(recv(theirs.as_raw_fd(), &mut buf[2..]).unwrap(), 3);
    assert_eq!(&buf[..5], b"hello");
}

#[test]
fn looking_takes_nothing() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let fd = ours.as_raw_fd();
    assert!(!is_readable(fd).unwrap());
    send(theirs.as_raw_fd(), b"hello").unwrap();
    assert!(is_readable(fd).unwrap());
    let mut buf = [0; 16];
    assert_eq!(recv(fd, &mut buf).unwrap(), 5);
    assert!(!is_readable(fd).unwrap());
    drop(theirs);
    assert!(is_readable(fd).unwrap());
    assert_eq!(errno(is_readable(-1)), Some(Errno::BADF));
}

#[test]
fn the_uninitialised_rest_is_not_handed_out() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    send(ours.as_raw_fd(), b"hello").unwrap();
    let mut buf = [const { MaybeUninit::uninit() }; 16];
    let received = recv_uninit(theirs.as_raw_fd(), &mut buf).unwrap();
    assert_eq!(received, b"hello");
    received[0] = b'j';
    drop(ours);
    assert_eq!(recv_uninit(theirs.as_raw_fd(), &mut buf).unwrap(), b"");
}

#[test]
fn what_is_appended_follows_what_was_there() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    send(ours.as_raw_fd(), b"hello").unwrap();
    let mut buf = b"oh, ".to_vec();
    assert_eq!(recv_append(theirs.as_raw_fd(), &mut buf, 2).unwrap(), 2);
    assert_eq!(recv_append(theirs.as_raw_fd(), &mut buf, 64).unwrap(), 3);
    assert_eq!(buf, b"oh, hello");
    theirs.set_nonblocking(true).unwrap();
    let error = recv_append(theirs.as_raw_fd(), &mut buf, 64).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    drop(ours);
    assert_eq!(recv_append(theirs.as_raw_fd(), &mut buf, 64).unwrap(), 0);
    assert_eq!(buf, b"oh, hello");
}

#[test]
fn the_end_of_the_stream_is_no_bytes() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    assert_eq!(recv(ours.as_raw_fd(), &mut [0; 4]).unwrap(), 0);
}

#[test]
fn empty_buffers_are_no_errors() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    assert_eq!(send(ours.as_raw_fd(), b"").unwrap(), 0);
    assert_eq!(send_vectored(ours.as_raw_fd(), &[]).unwrap(), 0);
    send(ours.as_raw_fd(), b"x").unwrap();
    assert_eq!(recv(theirs.as_raw_fd(), &mut []).unwrap(), 0);
    assert_eq!(recv_uninit(theirs.as_raw_fd(), &mut []).unwrap(), b"");
}

/// These sockets are blocking ones: the calls do not rely on the descriptor's flag.
#[test]
fn nothing_to_receive_would_block() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let fd = ours.as_raw_fd();
    assert_eq!(errno(recv(fd, &mut [0; 4])), Some(Errno::AGAIN));
    let mut buf = [MaybeUninit::uninit(); 4];
    let error = recv_uninit(fd, &mut buf).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_full_socket_takes_a_part_and_then_would_block() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let fd = ours.as_raw_fd();
    let data = vec![b'x'; 1 << 20];
    let mut sent = send(fd, &data).unwrap();
    assert!(0 < sent && sent < data.len());
    let error = loop {
        match send(fd, &data) {
            Ok(more) => sent += more,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let slices = [IoSlice::new(&data)];
    assert_eq!(errno(send_vectored(fd, &slices)), Some(Errno::AGAIN));

    drop(ours);
    let mut received = Vec::new();
    (&theirs).read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), sent);
}

#[test]
fn a_broken_pipe_is_an_error() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let fd = ours.as_raw_fd();
    assert_eq!(errno(send(fd, b"x")), Some(Errno::PIPE));
    let slices = [IoSlice::new(b"x")];
    assert_eq!(errno(send_vectored(fd, &slices)), Some(Errno::PIPE));
}

#[test]
fn slices_go_out_in_order() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let slices = [b"one, ".as_slice(), b"", b"two, ", b"three"].map(IoSlice::new);
    assert_eq!(send_vectored(ours.as_raw_fd(), &slices).unwrap(), 15);
    drop(ours);
    let mut received = String::new();
    theirs.read_to_string(&mut received).unwrap();
    assert_eq!(received, "one, two, three");
}

#[test]
fn more_slices_than_the_kernel_takes_are_left_over() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let slices = vec![IoSlice::new(b"x"); MOST_SLICES + 10];
    let sent = send_vectored(ours.as_raw_fd(), &slices).unwrap();
    assert_eq!(sent, MOST_SLICES);
}

#[test]
fn datagrams_stay_whole() {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let slices = [IoSlice::new(b"one"), IoSlice::new(b"two")];
    assert_eq!(send_vectored(ours.as_raw_fd(), &slices).unwrap(), 6);
    send(ours.as_raw_fd(), b"three").unwrap();
    let mut buf = [0; 16];
    assert_eq!(recv(theirs.as_raw_fd(), &mut buf).unwrap(), 6);
    assert_eq!(recv(theirs.as_raw_fd(), &mut buf[..2]).unwrap(), 2);
}

#[test]
fn accepts_with_the_right_flags() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(errno(accept(listener.as_raw_fd())), Some(Errno::AGAIN));

    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    wait_until_ready(listener.as_raw_fd(), true);
    let (server, peer) = accept(listener.as_raw_fd()).unwrap();
    assert_eq!(peer, Sender::Inet(client.local_addr().unwrap()));
    assert_eq!(peer_name(server.as_raw_fd()).unwrap(), peer);
    let here = Sender::Inet(listener.local_addr().unwrap());
    assert_eq!(local_name(server.as_raw_fd()).unwrap(), here);
    set_nodelay(server.as_raw_fd()).unwrap();
    assert!(fcntl_getfd(&server).unwrap().contains(FdFlags::CLOEXEC));
    assert!(fcntl_getfl(&server).unwrap().contains(OFlags::NONBLOCK));

    client.write_all(b"hi").unwrap();
    wait_until_ready(server.as_raw_fd(), true);
    let mut buf = [0; 4];
    assert_eq!(recv(server.as_raw_fd(), &mut buf).unwrap(), 2);
}

#[test]
fn shutting_down_writing_ends_the_stream_one_way() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    shutdown_write(ours.as_raw_fd()).unwrap();
    assert_eq!(recv(theirs.as_raw_fd(), &mut [0; 4]).unwrap(), 0);
    assert_eq!(errno(send(ours.as_raw_fd(), b"x")), Some(Errno::PIPE));
    assert_eq!(send(theirs.as_raw_fd(), b"x").unwrap(), 1);
    assert_eq!(recv(ours.as_raw_fd(), &mut [0; 4]).unwrap(), 1);
}

fn tcp_socket(flags: SocketFlags) -> OwnedFd {
    let flags = flags | SocketFlags::CLOEXEC;
    net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap()
}

#[test]
fn shutting_down_an_unconnected_socket_is_an_error() {
    let fd = tcp_socket(SocketFlags::empty());
    assert_eq!(errno(shutdown_write(fd.as_raw_fd())), Some(Errno::NOTCONN));
}

/// A connection attempt, under way.
fn start_to_connect(address: &impl SocketAddrArg) -> OwnedFd {
    let fd = tcp_socket(SocketFlags::NONBLOCK);
    assert!(matches!(
        net::connect(&fd, address),
        Ok(()) | Err(Errno::INPROGRESS)
    ));
    fd
}

#[test]
fn a_refused_connection_leaves_its_error_once() {
    // Bound, so that nobody else gets the port, but not listening.
    let deaf = tcp_socket(SocketFlags::empty());
    net::bind(&deaf, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let fd = start_to_connect(&net::getsockname(&deaf).unwrap());
    wait_until_ready(fd.as_raw_fd(), false);
    let error = take_error(fd.as_raw_fd()).unwrap().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(error.raw_os_error().is_some());
    assert!(take_error(fd.as_raw_fd()).unwrap().is_none());
}

#[test]
fn a_made_connection_leaves_no_error() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let fd = start_to_connect(&listener.local_addr().unwrap());
    wait_until_ready(fd.as_raw_fd(), false);
    assert!(take_error(fd.as_raw_fd()).unwrap().is_none());
}

#[test]
fn a_reset_is_an_error_of_the_next_call() {
    let (ours, theirs) = tcp_pair();
    // Closing with unread data resets the connection.
    (&ours).write_all(b"unread").unwrap();
    theirs
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    theirs.peek(&mut [0; 6]).unwrap();
    drop(theirs);
    wait_until_ready(ours.as_raw_fd(), true);
    let result = recv(ours.as_raw_fd(), &mut [0; 4]);
    assert_eq!(errno(result), Some(Errno::CONNRESET));
}

#[test]
fn wrong_descriptors_are_errors() {
    let poller = Poller::new().unwrap();
    let no_socket = poller.as_raw_fd();
    for (fd, expected) in [(-1, Errno::BADF), (no_socket, Errno::NOTSOCK)] {
        assert_eq!(errno(recv(fd, &mut [0])), Some(expected));
        assert_eq!(
            errno(recv_uninit(fd, &mut [MaybeUninit::uninit()])),
            Some(expected)
        );
        assert_eq!(errno(send(fd, b"x")), Some(expected));
        let slices = [IoSlice::new(b"x")];
        assert_eq!(errno(send_vectored(fd, &slices)), Some(expected));
        assert_eq!(errno(accept(fd)), Some(expected));
        assert_eq!(errno(set_nodelay(fd)), Some(expected));
        assert_eq!(errno(local_name(fd)), Some(expected));
        assert_eq!(errno(peer_name(fd)), Some(expected));
        assert_eq!(errno(shutdown_write(fd)), Some(expected));
        assert_eq!(errno(take_error(fd)), Some(expected));
    }
}

#[test]
fn datagrams_say_who_sent_them() {
    for host in ["127.0.0.1", "::1"] {
        let Ok(ours) = UdpSocket::bind((host, 0)) else {
            continue;
        };
        let theirs = UdpSocket::bind((host, 0)).unwrap();
        let mut buf = [0; 16];
        assert_eq!(
            recv_from(theirs.as_raw_fd(), &mut buf).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        let there = theirs.local_addr().unwrap();
        assert_eq!(send_to(ours.as_raw_fd(), b"hello", &there).unwrap(), 5);
        assert_eq!(send_to(ours.as_raw_fd(), b"", &there).unwrap(), 0);
        wait_until_ready(theirs.as_raw_fd(), true);
        let here = Sender::Inet(ours.local_addr().unwrap());
        assert_eq!(
            recv_from(theirs.as_raw_fd(), &mut buf[..2]).unwrap(),
            (2, here.clone())
        );
        assert_eq!(&buf[..2], b"he");
        assert_eq!(recv_from(theirs.as_raw_fd(), &mut buf).unwrap(), (0, here));
    }
    assert_eq!(errno(recv_from(-1, &mut [0; 4])), Some(Errno::BADF));
}

#[test]
fn unix_datagrams_say_who_sent_them() {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    send(ours.as_raw_fd(), b"hello").unwrap();
    let mut buf = [0; 16];
    assert_eq!(
        recv_from(theirs.as_raw_fd(), &mut buf).unwrap(),
        (5, Sender::Unnamed)
    );
    let name = b"\0weft-reactor-test-of-datagrams";
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name[1..]).unwrap();
    let named = UnixDatagram::bind_addr(&address).unwrap();
    let path = std::env::temp_dir().join(format!("weft-{}", std::process::id()));
    let bound = UnixDatagram::bind(&path).unwrap();
    named.send_to(b"x", &path).unwrap();
    let (_, sender) = recv_from(bound.as_raw_fd(), &mut buf).unwrap();
    assert_eq!(sender, Sender::Unix(name.to_vec()));
    bound.send_to_addr(b"x", &address).unwrap();
    let (_, sender) = recv_from(named.as_raw_fd(), &mut buf).unwrap();
    let mut expected = path.as_os_str().as_encoded_bytes().to_vec();
    expected.push(0);
    assert_eq!(sender, Sender::Unix(expected));
    std::fs::remove_file(path).unwrap();
}
