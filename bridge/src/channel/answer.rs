//! The head of an HTTP/1.1 answer: what it says, and where its body ends.
//!
//! Pure. An answer is one of many strangers': whatever is ambiguous about its end makes the
//! connection unfit for another request, never the next answer a part of this one.

use httparse::{EMPTY_HEADER, Status};

/// Longest head that is read, in bytes.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers of an answer.
const HEADERS_MAX: usize = 64;

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// With the connection.
    Close,
}

/// What a head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its bytes.
    pub length: usize,
    /// Status code.
    pub code: u16,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the connection may carry another request after this.
    pub keeps: bool,
    /// `Retry-After`.
    pub retry_after: Option<String>,
    /// `WebHook-Allowed-Origin`.
    pub allowed_origin: Option<String>,
    /// `WebHook-Allowed-Rate`.
    pub allowed_rate: Option<String>,
}

/// Not HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoHttp;

/// Reads a head; `None` if it has not come whole.
pub fn read_head(bytes: &[u8]) -> Result<Option<Head>, NoHttp> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let Status::Complete(length) = response.parse(bytes).map_err(|_| NoHttp)? else { return Ok(None) };
    // Three digits, of which the first says the class: there is none below 100.
    let code = response.code.filter(|code| *code >= 100).ok_or(NoHttp)?;
    let mut head = Head {
        length,
        code,
        framing: Framing::Close,
        keeps: response.version == Some(1),
        retry_after: None,
        allowed_origin: None,
        allowed_rate: None,
    };
    let (mut declared, mut coded, mut chunked) = (None, false, false);
    for header in response.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        let text = || std::str::from_utf8(header.value).ok().map(|text| text.trim().to_owned());
        match header.name.len() {
            14 if is("content-length") => match (digits(header.value), declared) {
                (Some(length), None) => declared = Some(length),
                (Some(length), Some(before)) if length == before => {}
                _ => return Err(NoHttp),
            },
            17 if is("transfer-encoding") => {
                (coded, chunked) = (true, !coded && header.value.trim_ascii().eq_ignore_ascii_case(b"chunked"));
            }
            10 if is("connection") => {
                head.keeps &= !header.value.split(|byte| *byte == b',').any(|word| {
                    let word = word.trim_ascii();
                    word.eq_ignore_ascii_case(b"close") || word.eq_ignore_ascii_case(b"upgrade")
                })
            }
            11 if is("retry-after") => head.retry_after = head.retry_after.take().or_else(text),
            22 if is("webhook-allowed-origin") => head.allowed_origin = head.allowed_origin.take().or_else(text),
            20 if is("webhook-allowed-rate") => head.allowed_rate = head.allowed_rate.take().or_else(text),
            _ => {}
        }
    }
    head.framing = match (coded, chunked, declared) {
        _ if code < 200 || matches!(code, 204 | 304) => Framing::Empty,
        (true, true, None) => Framing::Chunked,
        // Two opinions about the end, or a coding that nobody asked for.
        (true, ..) => Framing::Close,
        (false, _, Some(length)) => Framing::Length(length),
        (false, _, None) => Framing::Close,
    };
    head.keeps &= head.framing != Framing::Close && code != 101;
    // A body where there can be none would be taken for the next answer.
    head.keeps &= head.framing != Framing::Empty || (!coded && declared.unwrap_or(0) == 0);
    Ok(Some(head))
}

fn digits(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value.trim_ascii()).ok()?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_where_the_answer_ends_and_whether_another_may_follow() {
        for (rest, code, framing, keeps) in [
            ("204 No Content\r\n", 204, Framing::Empty, true),
            ("204 No Content\r\ncontent-length: 0\r\n", 204, Framing::Empty, true),
            ("204 No Content\r\ncontent-length: 5\r\n", 204, Framing::Empty, false),
            ("304 x\r\ntransfer-encoding: chunked\r\n", 304, Framing::Empty, false),
            ("200 OK\r\nContent-Length: 12\r\n", 200, Framing::Length(12), true),
            ("200 OK\r\nContent-Length: 12\r\nContent-Length: 12\r\n", 200, Framing::Length(12), true),
            ("200 OK\r\nTransfer-Encoding: Chunked\r\n", 200, Framing::Chunked, true),
            ("200 OK\r\ntransfer-encoding: gzip, chunked\r\n", 200, Framing::Close, false),
            ("200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", 200, Framing::Close, false),
            ("200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n", 200, Framing::Close, false),
            ("200\r\n", 200, Framing::Close, false),
            ("200 OK\r\ncontent-length: 1\r\nconnection: keep-alive, Close\r\n", 200, Framing::Length(1), false),
            ("200 OK\r\ncontent-length: 1\r\nconnection: keep-alive\r\n", 200, Framing::Length(1), true),
            ("101 Switching\r\nconnection: upgrade\r\n", 101, Framing::Empty, false),
            ("100 Continue\r\n", 100, Framing::Empty, true),
        ] {
            let text = format!("HTTP/1.1 {rest}\r\nbody");
            let head = read_head(text.as_bytes()).unwrap().unwrap();
            assert_eq!((head.code, head.framing, head.keeps, head.length), (code, framing, keeps, text.len() - 4), "{rest:?}");
            for cut in 0..head.length {
                assert_eq!(read_head(&text.as_bytes()[..cut]), Ok(None), "{rest:?} cut at {cut}");
            }
        }
        let old = read_head(b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n").unwrap().unwrap();
        assert!(!old.keeps);
        for text in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 004 No Content\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
        ] {
            assert_eq!(read_head(text.as_bytes()), Err(NoHttp), "{text:?}");
        }
    }

    #[test]
    fn what_the_bridge_listens_to_is_kept() {
        let text =
            b"HTTP/1.1 429 x\r\nretry-after:  7 \r\nRetry-After: 9\r\nWebHook-Allowed-Origin: *\r\nWEBHOOK-ALLOWED-RATE: 120\r\n\r\n";
        let head = read_head(text).unwrap().unwrap();
        assert_eq!(
            (head.retry_after.as_deref(), head.allowed_origin.as_deref(), head.allowed_rate.as_deref()),
            (Some("7"), Some("*"), Some("120"))
        );
    }
}
