//! As much of HTTP/1.1 as the benchmarks need: GET requests, and answers of a known length.

/// What the client sends.
pub const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n";

/// What the server answers.
pub const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n\
Content-Length: 13\r\n\r\nHello, World!";

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// How long the head at the start of `bytes` is, its empty line included, or `None` if more of it
/// must come.
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    let end = bytes
        .windows(END_OF_HEAD.len())
        .position(|window| window == END_OF_HEAD)?;
    Some(end + END_OF_HEAD.len())
}

/// How long the whole response at the start of `bytes` is, or `None` if its head is not complete.
///
/// A response that is no success, or that does not tell its length, is an error.
pub fn response_length(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    let Some(head) = head_length(bytes) else {
        return Ok(None);
    };
    if !bytes.starts_with(b"HTTP/1.1 200 ") {
        return Err("the response is not HTTP/1.1 200");
    }
    for line in bytes[..head].split(|&byte| byte == b'\n') {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        if line[..colon].eq_ignore_ascii_case(b"content-length") {
            let text = str::from_utf8(&line[colon + 1..]).map_err(|_| "bad Content-Length")?;
            let body: usize = text.trim().parse().map_err(|_| "bad Content-Length")?;
            return Ok(Some(head + body));
        }
    }
    Err("the response has no Content-Length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_messages_are_understood() {
        assert_eq!(head_length(REQUEST), Some(REQUEST.len()));
        assert_eq!(response_length(RESPONSE), Ok(Some(RESPONSE.len())));
        for cut in 0..RESPONSE.len() - 13 {
            assert_eq!(response_length(&RESPONSE[..cut]), Ok(None));
        }
    }

    #[test]
    fn header_names_have_no_case() {
        let response = b"HTTP/1.1 200 OK\r\nA: b\r\ncontent-LENGTH:2\r\n\r\nok";
        assert_eq!(response_length(response), Ok(Some(response.len())));
    }

    #[test]
    fn failures_are_not_counted_as_answers() {
        assert!(response_length(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n").is_err());
        assert!(response_length(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(response_length(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n").is_err());
    }
}
