//! A dump as a stream of bytes, from a file or over HTTP, unpacked if it is packed.
//!
//! Nothing is stored on the way. Must never take an end for the end: a connection that breaks
//! and a packed file whose check sum is wrong or missing are errors.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use tokio::sync::mpsc;

const BUFFER_BYTES: usize = 256 * 1024;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A dump that was opened.
pub struct Dump {
    /// The moment that it shows, milliseconds since 1970, if it says so.
    pub taken_at_ms: Option<i64>,
    /// Its bytes, as they came.
    pub bytes: Box<dyn Read + Send>,
}

impl Dump {
    /// A file; it shows the moment when it was written.
    pub fn open_file(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let written = file.metadata()?.modified().ok();
        let taken_at_ms = written.and_then(|at| i64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok());
        Ok(Self { taken_at_ms, bytes: Box::new(file) })
    }

    /// Its rows' bytes, unpacked.
    pub(crate) fn unpacked(self) -> io::Result<Box<dyn Read + Send>> {
        let mut bytes = BufReader::with_capacity(BUFFER_BYTES, self.bytes);
        let is_packed = bytes.fill_buf()?.starts_with(&GZIP_MAGIC);
        Ok(if is_packed { Box::new(MultiGzDecoder::new(bytes)) } else { Box::new(bytes) })
    }
}

/// Reads what a download hands over, on a thread where waiting is allowed.
pub(crate) struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Pieces {
    pub(crate) fn new(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { receiver, piece: Bytes::new() }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.piece.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}
