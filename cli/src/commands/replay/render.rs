//! From records to pieces of files: lines of JSON, or blocks of Avro containers. Pure.
//!
//! A piece says up to where it goes in each partition, so that bytes and progress are never told
//! apart. Must never drop a record without counting it.

use ryggrad_log::Lent;
use ryggrad_schemas::avro_container;

use super::checkpoint::Counts;
use super::judge::{Judge, Verdict};
use super::line::{Lines, View};

/// A piece is handed on when it is this large.
pub const PIECE_BYTES: usize = 512 * 1024;

/// As many headers as events have: room for them is made at once.
const HEADERS_USUAL: usize = 16;

/// How a replay writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line, with everything that the record holds.
    #[default]
    Ndjson,
    /// Avro object containers: values only, each file with the schema that wrote them.
    Avro,
}

/// Which file something belongs into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All lines.
    Lines,
    /// Lines of what could not be put into a container.
    Undecodable,
    /// Datums of one schema.
    Schema(u32),
}

/// What several records became.
#[derive(Debug, Default)]
pub struct Piece {
    /// Bytes for each file, and how many records they are.
    pub parts: Vec<(Part, Vec<u8>, u64)>,
    /// The next offset of each partition behind this piece.
    pub next: Vec<(i32, i64)>,
    /// Of these records.
    pub counts: Counts,
}

impl Piece {
    /// Whether it is worth handing on already.
    pub fn is_full(&self) -> bool {
        self.parts.iter().map(|(_, bytes, _)| bytes.len()).sum::<usize>() >= PIECE_BYTES
    }

    /// Whether it tells nothing.
    pub fn is_empty(&self) -> bool {
        self.next.is_empty()
    }

    /// Notes that a partition was read up to here.
    pub fn reach(&mut self, partition: i32, next: i64) {
        match self.next.iter_mut().find(|(known, _)| *known == partition) {
            Some((_, known)) => *known = next,
            None => self.next.push((partition, next)),
        }
    }

    fn part(&mut self, part: Part) -> (&mut Vec<u8>, &mut u64) {
        let index = self.parts.iter().position(|(known, ..)| *known == part).unwrap_or_else(|| {
            self.parts.push((part, Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8), 0));
            self.parts.len() - 1
        });
        let (_, bytes, records) = &mut self.parts[index];
        (bytes, records)
    }
}

/// Judges and renders the records of a topic.
pub struct Renderer<'a> {
    topic: &'a str,
    judge: &'a Judge,
    format: Format,
    lines: Lines,
    scratch: Vec<u8>,
}

impl<'a> Renderer<'a> {
    /// For one topic.
    pub fn new(topic: &'a str, judge: &'a Judge, format: Format) -> Self {
        Self { topic, judge, format, lines: Lines::default(), scratch: Vec::new() }
    }

    /// What becomes of a record; counted in the piece, as read in any case.
    pub fn judge(&self, record: &Lent<'_>, piece: &mut Piece) -> Verdict {
        let verdict = self.judge.judge(record);
        piece.counts.read += 1;
        match verdict {
            Verdict::Take | Verdict::Pass => {}
            Verdict::Withhold => piece.counts.withheld += 1,
            Verdict::ReplayedBefore => piece.counts.replayed_before += 1,
        }
        verdict
    }

    /// Puts a record that was judged to be taken into the piece.
    pub fn render(&mut self, record: &Lent<'_>, piece: &mut Piece) {
        let part = match (self.format, record.value()) {
            (Format::Ndjson, _) => Part::Lines,
            (Format::Avro, None) => {
                piece.counts.tombstones_left_out += 1;
                return;
            }
            (Format::Avro, Some(value)) => match avro_container::datum(value, &mut self.scratch) {
                Ok((schema, datum)) => {
                    let (bytes, records) = piece.part(Part::Schema(schema));
                    bytes.extend_from_slice(datum);
                    *records += 1;
                    piece.counts.written += 1;
                    return;
                }
                Err(_) => Part::Undecodable,
            },
        };
        let mut headers = Vec::with_capacity(HEADERS_USUAL);
        headers.extend(record.headers());
        let view = View {
            topic: self.topic,
            partition: record.partition(),
            offset: record.offset(),
            timestamp_ms: record.timestamp_ms(),
            key: record.key_bytes(),
            value: record.value(),
            headers: &headers,
        };
        let (bytes, records) = piece.part(part);
        let is_decoded = self.lines.write(&view, bytes);
        *records += 1;
        piece.counts.written += 1;
        // A line among the undecodable may be JSON: then it is no Avro, which was asked for.
        piece.counts.undecodable += u64::from(!is_decoded || part == Part::Undecodable);
    }
}
