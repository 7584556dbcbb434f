//! The list of updates of one kind: what is in it, and which part of it a question asks for.
//!
//! Ids only grow. Finding a place in the list is a binary search; only a question for certain
//! units walks it. It must never let memory grow without end: see the two limits.

use std::collections::{HashSet, VecDeque};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    change::FieldChange,
    number::{Kind, Organisasjonsnummer},
};

/// Items kept for each list; the oldest leave first.
const ITEMS_AT_MOST: usize = 2_000_000;
/// Items kept with their `endringer`; older ones answer without, as older real ones do.
const ENDRINGER_AT_MOST: usize = 50_000;

/// What happened to a unit. `Recorded` stands for whatever word a recorded item carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endringstype {
    Ny,
    Endring,
    Sletting,
    Fjernet,
    Recorded,
}

impl Endringstype {
    fn word(self) -> &'static str {
        match self {
            Endringstype::Ny => "Ny",
            Endringstype::Endring => "Endring",
            Endringstype::Sletting => "Sletting",
            Endringstype::Fjernet => "Fjernet",
            Endringstype::Recorded => "Ukjent",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FeedItem {
    pub(super) id: u64,
    pub(super) dato_ms: i64,
    /// `None` only where a recorded item names no valid number.
    pub(super) number: Option<Organisasjonsnummer>,
    pub(super) endringstype: Endringstype,
}

/// A question to the feed, already checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FeedQuery {
    pub(super) first_id: Option<u64>,
    /// Where a feed that lags ends for now; no part of what a client may ask.
    pub(super) last_id: Option<u64>,
    pub(super) from_ms: Option<i64>,
    pub(super) before_ms: Option<i64>,
    pub(super) numbers: Option<HashSet<Organisasjonsnummer>>,
    pub(super) include_changes: bool,
    pub(super) page: usize,
    pub(super) size: usize,
    pub(super) newest_first: bool,
}

impl FeedQuery {
    /// Whether the item is one asked for, its id apart.
    fn matches(&self, item: &FeedItem) -> bool {
        self.from_ms.is_none_or(|from| item.dato_ms >= from)
            && self.before_ms.is_none_or(|before| item.dato_ms < before)
            && self.numbers.as_ref().is_none_or(|numbers| item.number.is_some_and(|number| numbers.contains(&number)))
    }
}

/// Where the asked page lies: positions in the feed, in the order to answer in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) positions: Vec<usize>,
    pub(super) total: usize,
    /// Position of the first item that satisfies the question's start.
    pub(super) start: usize,
}

#[derive(Debug)]
pub(super) struct Feed {
    kind: Kind,
    items: VecDeque<FeedItem>,
    endringer: VecDeque<(u64, Box<[FieldChange]>)>,
    /// Recorded items, served word for word.
    recorded: VecDeque<(u64, Value)>,
    dates_ascend: bool,
}

impl Feed {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, items: VecDeque::new(), endringer: VecDeque::new(), recorded: VecDeque::new(), dates_ascend: true }
    }

    /// Appends an item; its id must be above all before it.
    pub(super) fn push(&mut self, item: FeedItem, endringer: Vec<FieldChange>) {
        if let Some(last) = self.items.back() {
            self.dates_ascend &= last.dato_ms <= item.dato_ms;
        }
        if self.items.len() == ITEMS_AT_MOST {
            self.items.pop_front();
        }
        if !endringer.is_empty() {
            if self.endringer.len() == ENDRINGER_AT_MOST {
                self.endringer.pop_front();
            }
            self.endringer.push_back((item.id, endringer.into_boxed_slice()));
        }
        self.items.push_back(item);
    }

    pub(super) fn push_recorded(&mut self, item: FeedItem, document: Value) {
        self.recorded.push_back((item.id, document));
        self.push(item, Vec::new());
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn first_id(&self) -> Option<u64> {
        self.items.front().map(|item| item.id)
    }

    pub(super) fn latest_id(&self) -> Option<u64> {
        self.items.back().map(|item| item.id)
    }

    pub(super) fn item(&self, position: usize) -> Option<&FeedItem> {
        self.items.get(position)
    }

    pub(super) fn window(&self, query: &FeedQuery) -> Window {
        let id = query.first_id.unwrap_or(0);
        let mut start = self.items.partition_point(|item| item.id < id);
        let mut end = match query.last_id {
            Some(last) => self.items.partition_point(|item| item.id <= last),
            None => self.items.len(),
        };
        start = start.min(end);
        let dates_asked = query.from_ms.is_some() || query.before_ms.is_some();
        if self.dates_ascend {
            let from = query.from_ms.unwrap_or(i64::MIN);
            start = start.max(self.items.partition_point(|item| item.dato_ms < from));
            if let Some(before) = query.before_ms {
                end = end.min(self.items.partition_point(|item| item.dato_ms < before));
            }
            end = end.max(start);
        }
        let walks = query.numbers.is_some() || (dates_asked && !self.dates_ascend);

        let skip = query.page.saturating_mul(query.size);
        if !walks {
            let total = end - start;
            let count = query.size.min(total.saturating_sub(skip));
            let positions = if query.newest_first {
                (0..count).map(|place| end - 1 - skip - place).collect()
            } else {
                (0..count).map(|place| start + skip + place).collect()
            };
            return Window { positions, total, start };
        }
        let mut found: Vec<usize> =
            self.items.range(start..end).enumerate().filter(|(_, item)| query.matches(item)).map(|(place, _)| start + place).collect();
        if query.newest_first {
            found.reverse();
        }
        let total = found.len();
        let positions = found.into_iter().skip(skip).take(query.size).collect();
        Window { positions, total, start }
    }

    /// The item as the API shows it.
    pub(super) fn render(&self, position: usize, include_changes: bool, base: &str) -> Value {
        let Some(item) = self.items.get(position) else {
            return Value::Null;
        };
        if let Some(document) = found(&self.recorded, item.id) {
            let mut document = document.clone();
            if !include_changes && let Some(fields) = document.as_object_mut() {
                fields.remove("endringer");
            }
            return document;
        }
        let number = item.number.map(|number| number.to_string());
        let number = number.unwrap_or_default();
        let kind = self.kind;
        let mut shown = Map::new();
        shown.insert("oppdateringsid".into(), item.id.into());
        shown.insert("dato".into(), stamp(item.dato_ms).into());
        let href = format!("{base}/{}/{number}", kind.path());
        shown.insert("organisasjonsnummer".into(), number.into());
        shown.insert("endringstype".into(), item.endringstype.word().into());
        shown.insert("_links".into(), json!({kind.word(): {"href": href}}));
        if include_changes && let Some(endringer) = found(&self.endringer, item.id) {
            shown.insert("endringer".into(), json!(endringer));
        }
        Value::Object(shown)
    }
}

fn found<T>(list: &VecDeque<(u64, T)>, id: u64) -> Option<&T> {
    let position = list.binary_search_by_key(&id, |(id, _)| *id).ok()?;
    list.get(position).map(|(_, value)| value)
}

/// Milliseconds since 1970 as the registry writes a moment: `2025-01-31T12:00:00.000Z`.
pub(super) fn stamp(milliseconds: i64) -> String {
    let moment = Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::MAX);
    format!("{moment:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(ids: &[u64]) -> Feed {
        let mut feed = Feed::new(Kind::Enhet);
        for id in ids {
            let item = FeedItem {
                id: *id,
                dato_ms: *id as i64 * 1000,
                number: Organisasjonsnummer::parse(&format!("31234567{}", id % 2)),
                endringstype: Endringstype::Ny,
            };
            feed.push(item, Vec::new());
        }
        feed
    }

    fn query() -> FeedQuery {
        FeedQuery {
            first_id: None,
            last_id: None,
            from_ms: None,
            before_ms: None,
            numbers: None,
            include_changes: false,
            page: 0,
            size: 2,
            newest_first: false,
        }
    }

    #[test]
    fn the_asked_id_is_inclusive_and_pages_follow_on() {
        let feed = feed(&[3, 5, 9, 10, 17]);
        let mut asked = FeedQuery { first_id: Some(5), ..query() };
        assert_eq!(feed.window(&asked).positions, [1, 2]);
        assert_eq!(feed.window(&asked).total, 4);
        asked.page = 1;
        assert_eq!(feed.window(&asked).positions, [3, 4]);
        asked.page = 2;
        assert!(feed.window(&asked).positions.is_empty());
        asked.first_id = Some(18);
        assert_eq!(feed.window(&asked).total, 0);
    }

    #[test]
    fn a_feed_that_lags_ends_early_whatever_is_asked() {
        let feed = feed(&[3, 5, 9, 10, 17]);
        let mut asked = FeedQuery { last_id: Some(9), size: 10, ..query() };
        assert_eq!(feed.window(&asked).positions, [0, 1, 2]);
        asked.newest_first = true;
        assert_eq!(feed.window(&asked).positions, [2, 1, 0]);
        asked.first_id = Some(10);
        assert_eq!(feed.window(&asked), Window { positions: Vec::new(), total: 0, start: 3 });
        asked.from_ms = Some(17_000);
        assert_eq!(feed.window(&asked).total, 0);
    }

    #[test]
    fn newest_first_reverses_the_whole_list() {
        let feed = feed(&[3, 5, 9]);
        let mut asked = FeedQuery { newest_first: true, ..query() };
        assert_eq!(feed.window(&asked).positions, [2, 1]);
        asked.page = 1;
        assert_eq!(feed.window(&asked).positions, [0]);
    }

    #[test]
    fn dates_and_numbers_narrow_the_list_together() {
        let mut feed = feed(&[2, 3, 4, 5, 6, 7]);
        let mut asked = FeedQuery { from_ms: Some(3000), before_ms: Some(7000), size: 10, ..query() };
        assert_eq!(feed.window(&asked).positions, [1, 2, 3, 4]);
        asked.numbers = Some(Organisasjonsnummer::parse("312345671").into_iter().collect());
        assert_eq!(feed.window(&asked).positions, [1, 3]);
        // Without ascending dates the same answer is found by walking.
        feed.dates_ascend = false;
        assert_eq!(feed.window(&asked).positions, [1, 3]);
        asked.numbers = None;
        assert_eq!(feed.window(&asked).positions, [1, 2, 3, 4]);
    }

    #[test]
    fn moments_have_milliseconds() {
        assert_eq!(stamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(stamp(1_735_689_600_120), "2025-01-01T00:00:00.120Z");
    }
}
