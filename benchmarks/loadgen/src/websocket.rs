//! As much of the `WebSocket` protocol as the benchmarks need: an upgrade whose key is always the same, and
//! binary messages of one frame.

/// What the client sends to begin with.
pub const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// What the server answers to that.
pub const ACCEPTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// The answer to the key, by which a server shows that it has understood.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const FINAL_BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0x3a, 0xc5, 0x5c, 0xa3];

/// Whether the head of a response agrees to the upgrade.
pub fn is_accepted(head: &[u8]) -> bool {
    head.starts_with(b"HTTP/1.1 101 ")
        && String::from_utf8_lossy(head)
            .lines()
            .filter_map(|line| line.split_once(':'))
            .any(|(name, value)| {
                name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == ACCEPT
            })
}

/// A message as the server sends it.
pub fn server_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = header(payload.len(), 0);
    frame.extend_from_slice(payload);
    frame
}

/// A message as the client sends it: masked.
pub fn client_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = header(payload.len(), MASKED);
    frame.extend_from_slice(&MASK);
    frame.extend(masked(payload, MASK));
    frame
}

/// The payload of the client's frame at the start of `bytes` and the frame's length, or `None` if
/// more of it must come.
pub fn parse_client_frame(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (length, start) = match bytes.get(1)? & !MASKED {
        126 => (
            usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
            4,
        ),
        127 => (
            usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?,
            10,
        ),
        short => (usize::from(short), 2),
    };
    let mask: [u8; 4] = bytes.get(start..start + 4)?.try_into().ok()?;
    let end = (start + 4).checked_add(length)?;
    let payload = masked(bytes.get(start + 4..end)?, mask).collect();
    Some((payload, end))
}

fn masked(bytes: &[u8], mask: [u8; 4]) -> impl Iterator<Item = u8> {
    bytes
        .iter()
        .zip(mask.into_iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
}

fn header(length: usize, masked: u8) -> Vec<u8> {
    let mut header = vec![FINAL_BINARY];
    if let Ok(length) = u8::try_from(length)
        && length < 126
    {
        header.push(masked | length);
    } else if let Ok(length) = u16::try_from(length) {
        header.push(masked | 0x7e);
        header.extend_from_slice(&length.to_be_bytes());
    } else {
        header.push(masked | 0x7f);
        header.extend_from_slice(&(length as u64).to_be_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_upgrade_is_accepted() {
        assert!(is_accepted(ACCEPTED));
        assert!(!is_accepted(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"));
        assert!(!is_accepted(
            b"HTTP/1.1 400 Bad Request\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        ));
    }

    #[test]
    fn frames_of_every_length_are_understood() {
        for length in [0, 1, 125, 126, 1024, 65_535, 65_536] {
            let payload: Vec<u8> = (0..=255).cycle().take(length).collect();
            let frame = client_frame(&payload);
            assert_eq!(parse_client_frame(&frame[..frame.len() - 1]), None);
            assert_eq!(parse_client_frame(&frame), Some((payload, frame.len())));
        }
    }

    #[test]
    fn what_a_server_sends_is_not_masked() {
        assert_eq!(server_frame(b"ab"), [0x82, 2, b'a', b'b']);
        assert_eq!(server_frame(&[0; 126])[..4], [0x82, 126, 0, 126]);
        assert_eq!(
            server_frame(&vec![0; 65_536])[..10],
            [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]
        );
    }
}
