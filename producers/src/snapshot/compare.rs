//! Reads a dump and compares each row with the index, on two threads: one unpacks, one compares.
//!
//! Rows that are new or may differ are handed over in windows of bounded size; nobody taking a
//! window holds everything up, upstream's sending too.

use std::io::Read;
use std::sync::mpsc as blocking;

use ryggrad_detect::quarantine::Reason;
use ryggrad_detect::snapshot::Format;
use ryggrad_detect::snapshot::index::{Index, Place, Sight, Unfit};
use ryggrad_detect::snapshot::judge::Showing;
use ryggrad_detect::snapshot::rows::{Rows, Torn};
use tokio::sync::mpsc;

use super::dump::Dump;

const PIECE_BYTES: usize = 256 * 1024;
const PIECES_WAITING_MAX: usize = 4;
/// Rows that can't be read before the dump counts as one of another format.
const UNREADABLE_MAX: u64 = 1_000;

/// A row that must be looked at.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// Where its text ends in the window; it begins where the one before ends.
    end: usize,
    /// The old state, if the topic has one.
    pub(crate) old: Option<Place>,
}

/// Rows to be looked at, and some that can't be read.
#[derive(Debug, Default)]
pub(crate) struct Window {
    text: String,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) unreadable: Vec<(Vec<u8>, Reason)>,
    unreadable_bytes: usize,
    /// Rows read up to here.
    pub(crate) rows: u64,
}

impl Window {
    /// The text of the nth candidate.
    pub(crate) fn row(&self, nth: usize) -> &str {
        let from = nth.checked_sub(1).and_then(|before| self.candidates.get(before)).map_or(0, |before| before.end);
        self.candidates.get(nth).and_then(|candidate| self.text.get(from..candidate.end)).unwrap_or_default()
    }

    fn size_bytes(&self) -> usize {
        self.text.len() + self.unreadable_bytes
    }

    fn put(&mut self, row: &str, old: Option<Place>) {
        self.text.push_str(row);
        self.candidates.push(Candidate { end: self.text.len(), old });
    }
}

/// Why a dump was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The bytes end or break.
    #[error("the dump breaks off, or its check sum is wrong")]
    Broken(#[source] std::io::Error),
    /// The array is torn.
    #[error("the dump is not whole")]
    Torn(#[source] Torn),
    /// So many rows can't be read that it is no dump of this registry.
    #[error("{unreadable} of the first {rows} rows cannot be read; has upstream changed its format?")]
    Format {
        /// Unreadable rows.
        unreadable: u64,
        /// Rows read.
        rows: u64,
    },
    /// The index can't hold it.
    #[error("the dump does not fit into memory's index")]
    Unfit(#[source] Unfit),
}

/// What came of a comparison.
pub(crate) struct Compared {
    pub(crate) index: Index,
    pub(crate) showing: Showing,
    pub(crate) duplicates: u64,
    /// Why it ended early, if it did.
    pub(crate) error: Option<DumpError>,
}

pub(crate) struct Limits {
    pub(crate) row_bytes_max: usize,
    pub(crate) window_bytes_max: usize,
    /// Whether rows are wanted, or only the marks in the index.
    pub(crate) hand_over_rows: bool,
}

/// Compares; blocks until all is read or the windows' receiver is gone.
pub(crate) fn compare<F: Format>(dump: Dump, format: &F, index: Index, limits: &Limits, windows: mpsc::Sender<Window>) -> Compared {
    let known = index.len() as u64;
    let mut comparing = Comparing {
        format,
        index,
        limits,
        windows,
        window: Window::default(),
        rows: 0,
        unreadable: 0,
        duplicates: 0,
        missing: known,
        unfit: None,
    };
    let error = comparing.read(dump).err();
    comparing.hand_over();
    let Comparing { index, rows, unreadable: keyless, duplicates, missing, .. } = comparing;
    let showing = Showing { whole: error.is_none(), rows, keyless, known, missing };
    Compared { index, showing, duplicates, error }
}

struct Comparing<'a, F> {
    format: &'a F,
    index: Index,
    limits: &'a Limits,
    windows: mpsc::Sender<Window>,
    window: Window,
    rows: u64,
    unreadable: u64,
    duplicates: u64,
    missing: u64,
    unfit: Option<Unfit>,
}

impl<F: Format> Comparing<'_, F> {
    fn read(&mut self, dump: Dump) -> Result<(), DumpError> {
        let bytes = dump.unpacked().map_err(DumpError::Broken)?;
        let (sender, pieces) = blocking::sync_channel(PIECES_WAITING_MAX);
        std::thread::scope(|scope| {
            scope.spawn(move || unpack(bytes, &sender));
            let mut rows = Rows::new(self.limits.row_bytes_max);
            for piece in pieces {
                let piece = piece.map_err(DumpError::Broken)?;
                rows.push(&piece, |row| self.take(row)).map_err(DumpError::Torn)?;
                if let Some(unfit) = self.unfit {
                    return Err(DumpError::Unfit(unfit));
                }
                if self.unreadable > UNREADABLE_MAX {
                    return Err(DumpError::Format { unreadable: self.unreadable, rows: self.rows });
                }
            }
            rows.finish().map(drop).map_err(DumpError::Torn)
        })
    }

    fn take(&mut self, bytes: &[u8]) {
        self.rows += 1;
        let text = std::str::from_utf8(bytes).map_err(|_| NOT_UTF8);
        match text.and_then(|text| Ok((text, self.format.row(text)?))) {
            Ok((text, row)) => match self.index.see(&row.key, row.fingerprint) {
                Ok(Sight::Same) => self.missing -= 1,
                Ok(Sight::Different(place)) => {
                    self.missing -= 1;
                    self.want(text, Some(place));
                }
                Ok(Sight::New) => self.want(text, None),
                Ok(Sight::Twice) => self.duplicates += 1,
                Err(unfit) => self.unfit = Some(unfit),
            },
            Err(reason) => {
                self.unreadable += 1;
                self.window.unreadable_bytes += bytes.len();
                self.window.unreadable.push((bytes.to_vec(), reason));
            }
        }
        if self.window.size_bytes() >= self.limits.window_bytes_max {
            self.hand_over();
        }
    }

    fn want(&mut self, row: &str, old: Option<Place>) {
        if self.limits.hand_over_rows {
            self.window.put(row, old);
        }
    }

    fn hand_over(&mut self) {
        let window = Window { rows: self.rows, ..std::mem::take(&mut self.window) };
        // Nobody takes it when the run was given up; then nothing of this matters.
        let _ = self.windows.blocking_send(window);
    }
}

const NOT_UTF8: Reason = Reason { code: "row-not-utf8", text: "the row of the dump is not UTF-8" };

/// Hands over pieces until the bytes end, break, or nobody takes them.
fn unpack(mut bytes: Box<dyn Read + Send>, pieces: &blocking::SyncSender<std::io::Result<Vec<u8>>>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = (&mut bytes).take(PIECE_BYTES as u64).read_to_end(&mut piece);
        let is_last = !matches!(read, Ok(length) if length > 0);
        let piece = read.map(|_| piece);
        let is_empty = piece.as_ref().is_ok_and(Vec::is_empty);
        if is_empty || pieces.send(piece).is_err() || is_last {
            return;
        }
    }
}
