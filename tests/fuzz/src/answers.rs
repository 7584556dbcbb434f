//! Answers of endpoints: heads, bodies of every framing, in pieces of any size, and `Retry-After`.
//!
//! Laws: in pieces or whole, an answer says the same; a head is whole only with its last byte; a body is never longer than
//! its limit; a chunked body is what a plain second reader makes of it; a connection is used again only if every byte was.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ryggrad_bridge::channel::answer::{Framing, Head, read_head};
use ryggrad_bridge::channel::connection::Connection;
use ryggrad_bridge_core::outcome::{Answer, Outcome, outcome, retry_after_ms};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::parts::{choose, seed};

const NOW_MS: i64 = 1_700_000_000_000;
const BODY_BYTES_MAX: usize = 4_096;

/// A stream that takes everything, and answers in pieces of one size.
struct Script<'a> {
    left: &'a [u8],
    piece_bytes: usize,
}

impl AsyncRead for Script<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = self.piece_bytes.min(self.left.len()).min(buffer.remaining());
        let (piece, left) = self.left.split_at(count);
        buffer.put_slice(piece);
        self.left = left;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, part: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(part.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The head, whether the body came to its end, and the body.
type Heard = Option<(Head, bool, Vec<u8>)>;

fn hear(answer: &[u8], piece_bytes: usize) -> Heard {
    let mut connection = Connection::new(Script { left: answer, piece_bytes });
    let mut heard = Box::pin(async {
        let head = connection.exchange(b"POST / HTTP/1.1\r\n\r\n", b"{}").await.ok()?;
        let mut body = Vec::new();
        let ended = connection.read_body(head.framing, BODY_BYTES_MAX, Some(&mut body)).await;
        Some((head, ended, body))
    });
    // Everything is there, so that nothing is ever waited for.
    let Poll::Ready(heard) = heard.as_mut().poll(&mut Context::from_waker(Waker::noop())) else { panic!("it waits for nobody") };
    heard
}

pub(crate) fn run(input: &[u8]) -> bool {
    match choose(input, 3) {
        Some((0, answer)) => {
            let Ok(Some(head)) = read_head(answer) else { return false };
            holds(&head, answer);
            true
        }
        Some((1, answer)) => {
            let Some((size, answer)) = answer.split_first() else { return false };
            let (whole, pieces) = (hear(answer, usize::MAX), hear(answer, usize::from(*size).max(1)));
            assert_eq!(whole, pieces, "in pieces of {size} bytes it says something else");
            let Some((head, ended, body)) = whole else { return false };
            assert!(body.len() <= BODY_BYTES_MAX);
            match head.framing {
                Framing::Empty => assert!(ended && body.is_empty()),
                Framing::Length(length) => assert!(!ended || body.len() as u64 == length),
                Framing::Close => assert!(!ended, "nobody knows whether that was the end"),
                Framing::Chunked if ended => {
                    let begins_at = answer.len() - after_interim(answer).len() + head.length;
                    assert_eq!(Some(body), chunked(&answer[begins_at..]), "another reader finds another body");
                }
                Framing::Chunked => {}
            }
            ended
        }
        Some((_, value)) => {
            let value = String::from_utf8_lossy(value);
            let Some(wait_ms) = retry_after_ms(&value, NOW_MS) else { return false };
            if let Ok(seconds) = value.trim().parse::<u32>() {
                assert_eq!(wait_ms, u64::from(seconds) * 1_000);
            }
            for code in [200, 410, 413, 429, 500, 503] {
                let meant = outcome(Answer::Status { code, retry_after_ms: Some(wait_ms) });
                assert_eq!(matches!(meant, Outcome::Throttled { .. }), matches!(code, 429 | 503));
            }
            true
        }
        None => false,
    }
}

fn holds(head: &Head, answer: &[u8]) {
    assert!(head.length <= answer.len() && (100..1_000).contains(&head.code));
    assert_eq!(read_head(&answer[..head.length]).as_ref(), Ok(&Some(head.clone())), "what follows changes what it says");
    for cut in [head.length - 1, head.length / 2, head.length / 3] {
        assert_eq!(read_head(&answer[..cut]), Ok(None), "a head of {} is whole at {cut}", head.length);
    }
    assert!(!head.keeps || head.framing != Framing::Close, "a connection is kept whose end is not known");
}

/// An answer without the interim ones before it.
fn after_interim(mut answer: &[u8]) -> &[u8] {
    while let Ok(Some(head)) = read_head(answer)
        && (100..200).contains(&head.code)
        && head.code != 101
    {
        answer = &answer[head.length..];
    }
    answer
}

/// A chunked body, read as plainly as can be: nothing if it is none.
fn chunked(mut left: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = left.windows(2).position(|two| two == b"\r\n")?;
        let digits = left.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        // Extensions and white space say nothing.
        let size = usize::from_str_radix(std::str::from_utf8(&left[..digits]).ok()?, 16).ok()?;
        left = &left[line_end + 2..];
        if size == 0 {
            return Some(body);
        }
        let (chunk, rest) = left.split_at_checked(size)?;
        body.extend_from_slice(chunk);
        left = rest.strip_prefix(b"\r\n")?;
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let kept =
        "HTTP/1.1 429 x\r\nretry-after:  7 \r\nWebHook-Allowed-Origin: *\r\nWEBHOOK-ALLOWED-RATE: 120\r\ncontent-length: 2\r\n\r\nab";
    let chunks = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\nx: y\r\n\r\n";
    vec![
        seed(0, kept),
        seed(0, "HTTP/1.0 204 No Content\r\nconnection: close\r\n\r\n"),
        seed(1, format!("\u{3}{kept}")),
        seed(1, format!("\u{1}{chunks}")),
        seed(1, format!("\u{7f}{chunks}")),
        seed(2, "120"),
        seed(2, "Fri, 31 Dec 2027 23:59:59 GMT"),
    ]
}
