//! Answers that are written while they are sent: a writer on a thread of its own, and the body
//! that its bytes arrive in.
//!
//! At most a few chunks are under way, whatever the length of the answer.

use std::io::{self, Write};

use axum::body::{Body, Bytes};
use futures_util::stream;
use tokio::sync::mpsc::{self, Sender};

const CHUNK_BYTES: usize = 64 * 1024;
const CHUNKS_AT_MOST: usize = 4;

/// How the body ends before its time, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Bytes that are sent.
    pub(super) after_bytes: u64,
    /// Whether the connection then breaks; else the body ends as if it were whole.
    pub(super) breaks: bool,
}

/// The body that `write` writes. A write error in it means that nobody reads any more.
pub(super) fn body(cut: Option<Cut>, write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) -> Body {
    let (sender, mut receiver) = mpsc::channel(CHUNKS_AT_MOST);
    tokio::task::spawn_blocking(move || {
        let mut chunks = Chunks { sender, buffer: Vec::new(), left: cut.map_or(u64::MAX, |cut| cut.after_bytes) };
        let written = write(&mut chunks).and_then(|()| chunks.send());
        let is_cut = cut.is_some() && chunks.left == 0;
        if cut.is_some_and(|cut| cut.breaks) || (written.is_err() && !is_cut) {
            // Nobody listens, if this can't be sent.
            let _ = chunks.sender.blocking_send(Err(io::ErrorKind::ConnectionAborted.into()));
        }
    });
    Body::from_stream(stream::poll_fn(move |context| receiver.poll_recv(context)))
}

struct Chunks {
    sender: Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
    /// Bytes that may still be sent.
    left: u64,
}

impl Chunks {
    fn send(&mut self) -> io::Result<()> {
        let mut chunk = std::mem::take(&mut self.buffer);
        chunk.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= chunk.len() as u64;
        if !chunk.is_empty() {
            self.sender.blocking_send(Ok(chunk.into())).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        if self.left == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    /// Small pieces wait for company.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
