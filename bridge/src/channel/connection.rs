//! One connection to an endpoint: writes a request, reads the answer.
//!
//! It runs in the task of whoever asks, with a buffer of its own that is used again: an exchange
//! costs two calls of the kernel and hardly an allocation. Must never read more of an answer than
//! its limits say, and never be used again after anything about the answer's end was unclear.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::answer::{Framing, HEAD_BYTES_MAX, Head, read_head};

/// Room for most answers.
const READ_BYTES_USUAL: usize = 2 * 1024;
/// Most trailers after a chunked body.
const TRAILERS_MAX: usize = 16;
/// Most interim answers (1xx) before the real one.
const INTERIM_MAX: usize = 8;

/// With or without TLS.
pub enum Stream {
    /// Development only.
    Plain(TcpStream),
    /// All others.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, part: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(part)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// Whether anything of an answer had come.
    pub answered: bool,
}

/// A connection with its buffers.
pub struct Connection<S = Stream> {
    stream: S,
    /// What was read and not used: from `start` to `end`.
    read: Vec<u8>,
    start: usize,
    end: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Around a stream that nothing has been written to.
    pub fn new(stream: S) -> Self {
        Self { stream, read: vec![0; READ_BYTES_USUAL], start: 0, end: 0 }
    }

    /// Whether the other side has neither closed it nor said anything unasked.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut context = Context::from_waker(std::task::Waker::noop());
        self.start == self.end && Pin::new(&mut self.stream).poll_read(&mut context, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// Gives back what an unusual answer has taken. For a connection that is used up.
    pub fn shrink(&mut self) {
        (self.start, self.end) = (0, 0);
        if self.read.len() > READ_BYTES_USUAL {
            self.read = vec![0; READ_BYTES_USUAL];
        }
    }

    /// Writes a request and reads the head of the answer.
    pub async fn exchange(&mut self, head: &[u8], body: &[u8]) -> Result<Head, Broken> {
        let written = self.send(head, body).await;
        for _ in 0..INTERIM_MAX {
            let mut head = self.read_answer_head().await?;
            self.start += head.length;
            if (100..200).contains(&head.code) && head.code != 101 {
                continue;
            }
            head.keeps &= written;
            return Ok(head);
        }
        Err(Broken { answered: true })
    }

    /// Writes all of a request, unless the other side answers or closes before. An endpoint that
    /// refuses a request by its head need not read its body.
    async fn send(&mut self, head: &[u8], body: &[u8]) -> bool {
        let Self { stream, read, end, .. } = self;
        let mut parts = [IoSlice::new(head), IoSlice::new(body)];
        let mut left = &mut parts[..];
        IoSlice::advance_slices(&mut left, 0);
        poll_fn(|context| {
            loop {
                let polled = if left.is_empty() {
                    match Pin::new(&mut *stream).poll_flush(context) {
                        Poll::Ready(flushed) => return Poll::Ready(flushed.is_ok()),
                        Poll::Pending => Poll::Pending,
                    }
                } else {
                    Pin::new(&mut *stream).poll_write_vectored(context, left).map_ok(|count| {
                        IoSlice::advance_slices(&mut left, count);
                        count
                    })
                };
                match polled {
                    Poll::Ready(Ok(1..)) => {}
                    // It may have answered before it closed.
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending => {
                        let mut buffer = ReadBuf::new(&mut read[*end..]);
                        let Poll::Ready(answer) = Pin::new(&mut *stream).poll_read(context, &mut buffer) else { return Poll::Pending };
                        *end += buffer.filled().len();
                        drop(answer);
                        return Poll::Ready(false);
                    }
                }
            }
        })
        .await
    }

    async fn read_answer_head(&mut self) -> Result<Head, Broken> {
        loop {
            let answered = self.end > self.start;
            if answered && let Some(head) = read_head(&self.read[self.start..self.end]).map_err(|_| Broken { answered })? {
                return Ok(head);
            }
            if !self.read_more(HEAD_BYTES_MAX).await {
                return Err(Broken { answered });
            }
        }
    }

    /// Reads a body of at most so many bytes to its end, and keeps it if somebody wants it. Says
    /// whether it came to the end.
    pub async fn read_body(&mut self, framing: Framing, bytes_max: usize, mut kept: Option<&mut Vec<u8>>) -> bool {
        match framing {
            Framing::Empty => true,
            Framing::Length(length) => match usize::try_from(length) {
                Ok(length) if length <= bytes_max => self.take(length, &mut kept).await,
                _ => false,
            },
            Framing::Close => {
                let mut left = bytes_max;
                loop {
                    let here = (self.end - self.start).min(left);
                    if here > 0 {
                        self.take(here, &mut kept).await;
                        left -= here;
                    }
                    if left == 0 || !self.read_more(READ_BYTES_USUAL).await {
                        return false;
                    }
                }
            }
            Framing::Chunked => self.read_chunks(bytes_max, &mut kept).await.is_some(),
        }
    }

    async fn read_chunks(&mut self, bytes_max: usize, kept: &mut Option<&mut Vec<u8>>) -> Option<()> {
        let mut left = bytes_max;
        loop {
            let size = loop {
                match httparse::parse_chunk_size(&self.read[self.start..self.end]).ok()? {
                    // A line without a digit would pass for the end.
                    httparse::Status::Complete(_) if !self.read[self.start].is_ascii_hexdigit() => return None,
                    httparse::Status::Complete((used, size)) => {
                        self.start += used;
                        break size;
                    }
                    httparse::Status::Partial => self.read_more(READ_BYTES_USUAL).await.then_some(())?,
                }
            };
            if size == 0 {
                return self.read_trailers().await;
            }
            left = left.checked_sub(usize::try_from(size).ok()?)?;
            let mut line_end = Vec::with_capacity(2);
            let whole = self.take(usize::try_from(size).ok()?, kept).await && self.take(2, &mut Some(&mut line_end)).await;
            (whole && line_end == b"\r\n").then_some(())?;
        }
    }

    async fn read_trailers(&mut self) -> Option<()> {
        loop {
            let mut trailers = [httparse::EMPTY_HEADER; TRAILERS_MAX];
            let parsed = httparse::parse_headers(&self.read[self.start..self.end], &mut trailers).ok()?;
            if let httparse::Status::Complete((used, _)) = parsed {
                self.start += used;
                return Some(());
            }
            self.read_more(READ_BYTES_USUAL).await.then_some(())?;
        }
    }

    /// Uses so many bytes, which are read if they are not there.
    async fn take(&mut self, mut count: usize, kept: &mut Option<&mut Vec<u8>>) -> bool {
        loop {
            let here = count.min(self.end - self.start);
            if let Some(kept) = kept {
                kept.extend_from_slice(&self.read[self.start..self.start + here]);
            }
            self.start += here;
            count -= here;
            if count == 0 {
                return true;
            }
            if !self.read_more(READ_BYTES_USUAL).await {
                return false;
            }
        }
    }

    /// Whether everything that came has been used.
    pub fn is_used_up(&self) -> bool {
        self.start == self.end
    }

    /// Reads what comes next. No if the connection ended, or the buffer is full at so many bytes.
    async fn read_more(&mut self, bytes_max: usize) -> bool {
        if self.start > 0 {
            self.read.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.read.len() {
            if self.end >= bytes_max {
                return false;
            }
            self.read.resize((self.end * 2).min(bytes_max), 0);
        }
        let mut buffer = ReadBuf::new(&mut self.read[self.end..]);
        let stream = &mut self.stream;
        let read = poll_fn(|context| Pin::new(&mut *stream).poll_read(context, &mut buffer)).await;
        let count = buffer.filled().len();
        self.end += count;
        read.is_ok() && count > 0
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_chunked_body_is_read_to_its_end_or_not_at_all() {
        for (body, expected) in [
            ("5;a=b\r\nhello\r\n0\r\n\r\n", Some("hello")),
            ("1 \r\na\r\nA\r\n0123456789\r\n00\r\nx: y\r\n\r\n", Some("a0123456789")),
            ("0\r\n\r\n", Some("")),
            ("\r\n\r\n", None),
            (";a=b\r\n\r\n", None),
            (" \r\n\r\n", None),
            ("1\r\na\r\n;\r\n\r\n", None),
            ("1\r\nab\r\n0\r\n\r\n", None),
            ("0\r\n", None),
            ("-1\r\n\r\n", None),
        ] {
            let (mut endpoint, stream) = duplex(1_024);
            endpoint.write_all(body.as_bytes()).await.unwrap();
            drop(endpoint);
            let (mut connection, mut kept) = (Connection::new(stream), Vec::new());
            let ended = connection.read_body(Framing::Chunked, 100, Some(&mut kept)).await;
            assert_eq!(ended.then(|| String::from_utf8(kept).unwrap()).as_deref(), expected, "{body:?}");
        }
    }
}
