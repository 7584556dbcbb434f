//! The catalogue: every event type, topic and source, read from `catalogue.toml` and validated.
//!
//! A new event type is one `.avsc`, one entry here and one mapping function. Nothing else may
//! hold a topic name or an event type as a literal that it could have asked the catalogue for.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::identifiers::KeyDomain;
use crate::manifest;

/// Topics that Ryggrad itself keeps its facts in.
pub mod topics {
    /// Who changed what of members, delegations, grants, relations and blocks.
    pub const ACCESS_HISTORY: &str = "ryggrad.access-history";
    /// Whose events stay; sealed.
    pub const BLOCKS: &str = "ryggrad.blocks";
    /// Who acts for whom.
    pub const DELEGATIONS: &str = "ryggrad.delegations";
    /// What is opened to whom.
    pub const GRANTS: &str = "ryggrad.grants";
    /// Organisations that take part.
    pub const MEMBERS: &str = "ryggrad.members";
    /// Who follows which patient; sealed.
    pub const RELATIONS: &str = "ryggrad.relations";
    /// How far each source has been read.
    pub const SOURCE_POSITIONS: &str = "ryggrad.source-positions";
    /// What operators tell sources to do.
    pub const SOURCE_COMMANDS: &str = "ryggrad.source-commands";
    /// Copies of the bridge's cursors.
    pub const CURSORS: &str = "ryggrad.cursors";
    /// How far the bridge has read what it follows.
    pub const FOLLOWED: &str = "ryggrad.followed";
    /// What could not be parsed, sealed.
    pub const QUARANTINE: &str = "ryggrad.quarantine";
    /// Keys removed for legal reasons.
    pub const REMOVED: &str = "ryggrad.removed";
    /// What is delivered once more, beside what is live.
    pub const REPLAYS: &str = "ryggrad.replays";
    /// Who gets what where.
    pub const SUBSCRIPTIONS: &str = "ryggrad.subscriptions";
    /// Locally issued access tokens.
    pub const TOKENS: &str = "ryggrad.tokens";
    /// Watch lists; their keys are sealed.
    pub const WATCH_LISTS: &str = "ryggrad.watch-lists";
}

/// How protected an event type is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataClass {
    /// Anyone may have it.
    Open,
    /// Personal data: needs a grant.
    Personal,
    /// Health data: needs a grant and a relation.
    Health,
}

impl DataClass {
    /// Its name, as the catalogue has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Personal => "personal",
            Self::Health => "health",
        }
    }
}

/// What types of this front carry is synthetic, and for trials alone.
const TRIAL: &str = "no.ryggrad.proeve.";

/// What opens protected types in an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Latch {
    /// Nothing does: open types alone.
    Shut,
    /// An issuer of tokens is trusted: all but what is for trials.
    Trusting,
    /// It is a trial: everything.
    Trial,
}

impl Latch {
    const ALL: [Self; 3] = [Self::Shut, Self::Trusting, Self::Trial];

    /// Whether it lets a type be.
    pub fn opens(self, event: &EventType) -> bool {
        self >= event.needs()
    }

    /// What is missing, and who can open it; nothing is missing where a type is always there.
    const fn in_plain_words(self) -> &'static str {
        match self {
            Self::Shut => "",
            Self::Trusting => {
                "carries protected data and is shut here: it needs an issuer of tokens, which whoever runs this bridge configures (trust)"
            }
            Self::Trial => "is for trials, and this bridge is none: whoever runs it can make it one (trial = true)",
        }
    }
}

/// One event type.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventType {
    /// CloudEvents `type`.
    #[serde(rename = "type")]
    pub ce_type: String,
    /// The topic that carries it.
    pub topic: String,
    /// Folder under `schemas/avro`.
    pub schema: String,
    /// Which field is the record key.
    pub key: String,
    /// Who owns the data.
    pub owner: String,
    /// How protected it is.
    pub class: DataClass,
    /// Named projections that a grant can open.
    pub views: Vec<String>,
    /// CloudEvents extension attributes that filters may use.
    pub attributes: Vec<String>,
}

impl EventType {
    /// Schema registry subject, by the topic name strategy that stock clients expect.
    pub fn subject(&self) -> String {
        format!("{}-value", self.topic)
    }

    /// Whether it takes more than a subscription to get it.
    pub fn is_protected(&self) -> bool {
        self.class != DataClass::Open
    }

    /// Whether it is for trials alone.
    pub fn is_for_trials(&self) -> bool {
        self.ce_type.starts_with(TRIAL)
    }

    /// What has to open it.
    fn needs(&self) -> Latch {
        match (self.is_for_trials(), self.is_protected()) {
            (true, _) => Latch::Trial,
            (false, true) => Latch::Trusting,
            (false, false) => Latch::Shut,
        }
    }

    /// What kind of identifier its keys are; `None` where watch lists know no such kind.
    pub fn key_domain(&self) -> Option<KeyDomain> {
        KeyDomain::named(&self.key)
    }
}

/// One source: a registry that is followed by one process and one transactional id.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Name, also the transactional id.
    pub name: String,
    /// The CloudEvents type that it publishes.
    pub event: String,
    /// Its feeds, each with a position of its own.
    pub feeds: Vec<String>,
    /// Its partition of `ryggrad.source-positions`.
    pub positions_partition: i32,
}

impl Source {
    /// CloudEvents `source` of one of its feeds.
    pub fn ce_source(&self, feed: &str) -> String {
        format!("urn:ryggrad:{}:{feed}", self.name)
    }
}

/// What Kafka does with old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cleanup {
    /// Keep the latest record of each key.
    Compact,
    /// Drop records older than the retention.
    Delete,
}

/// Whose clock a record's timestamp shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Timestamp {
    /// The broker's, at append.
    LogAppend,
}

/// One topic with its settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// Small number that stands for the topic in stored keys. Never reused.
    pub id: u16,
    /// Topic name.
    pub name: String,
    /// What it holds.
    pub purpose: String,
    /// Partition count; never changes once created.
    pub partitions: i32,
    /// Cleanup policy.
    pub cleanup: Cleanup,
    /// Timestamp type.
    pub timestamp: Timestamp,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag_ms: Option<u64>,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag_ms: Option<u64>,
    /// `delete.retention.ms`.
    pub delete_retention_ms: Option<u64>,
    /// `segment.ms`.
    pub segment_ms: Option<u64>,
    /// `retention.ms`.
    pub retention_ms: Option<u64>,
}

impl Topic {
    /// The topic's settings in Kafka's own names.
    pub fn kafka_config(&self) -> Vec<(&'static str, String)> {
        let mut config = vec![
            (
                "cleanup.policy",
                match self.cleanup {
                    Cleanup::Compact => "compact",
                    Cleanup::Delete => "delete",
                }
                .to_owned(),
            ),
            (
                "message.timestamp.type",
                match self.timestamp {
                    Timestamp::LogAppend => "LogAppendTime",
                }
                .to_owned(),
            ),
        ];
        let durations = [
            ("min.compaction.lag.ms", self.min_compaction_lag_ms),
            ("max.compaction.lag.ms", self.max_compaction_lag_ms),
            ("delete.retention.ms", self.delete_retention_ms),
            ("segment.ms", self.segment_ms),
            ("retention.ms", self.retention_ms),
        ];
        config.extend(durations.into_iter().filter_map(|(name, value)| Some((name, value?.to_string()))));
        config
    }
}

/// The whole catalogue.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// Event types.
    #[serde(rename = "event")]
    pub events: Vec<EventType>,
    /// Sources.
    #[serde(rename = "source")]
    pub sources: Vec<Source>,
    /// Topics.
    #[serde(rename = "topic")]
    pub topics: Vec<Topic>,
}

/// Why a catalogue is refused.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// Not the shape of a catalogue.
    #[error("the catalogue cannot be read")]
    Shape(#[source] toml::de::Error),
    /// Entries that contradict each other or the schemas; every one of them.
    #[error("the catalogue is inconsistent: {}", .0.join("; "))]
    Inconsistent(Vec<String>),
}

static BUILT_IN: LazyLock<Catalogue> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "compiled in; a test loads it")]
    Catalogue::parse(include_str!("../catalogue.toml")).expect("catalogue.toml is valid")
});

static OPENED: LazyLock<[Catalogue; 3]> = LazyLock::new(|| Latch::ALL.map(|latch| BUILT_IN.opened_by(latch)));

impl Catalogue {
    /// The catalogue that this binary was built with.
    pub fn built_in() -> &'static Self {
        &BUILT_IN
    }

    /// Of that, what there is in an installation: nobody creates, reads, subscribes to or shows anything else.
    pub fn opened(latch: Latch) -> &'static Self {
        &OPENED[latch as usize]
    }

    fn opened_by(&self, latch: Latch) -> Self {
        let (events, shut): (Vec<_>, Vec<_>) = self.events.iter().cloned().partition(|event| latch.opens(event));
        let topics = self.topics.iter().filter(|topic| shut.iter().all(|event| event.topic != topic.name)).cloned().collect();
        let sources = self.sources.iter().filter(|source| shut.iter().all(|event| event.ce_type != source.event)).cloned().collect();
        Self { events, sources, topics }
    }

    /// For whoever names what is not in this catalogue, but would be in another installation: what that needs, and who
    /// can open it. As a sentence without its subject.
    pub fn why_shut(&self, pattern: &str) -> Option<&'static str> {
        let shut = BUILT_IN.matching(pattern).find(|event| self.event(&event.ce_type).is_none())?;
        Some(shut.needs().in_plain_words())
    }

    /// Reads and validates a catalogue.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let catalogue: Self = toml::from_str(text).map_err(Invalid::Shape)?;
        let faults = catalogue.faults();
        if faults.is_empty() { Ok(catalogue) } else { Err(Invalid::Inconsistent(faults)) }
    }

    /// The event type of that CloudEvents `type`.
    pub fn event(&self, ce_type: &str) -> Option<&EventType> {
        self.events.iter().find(|event| event.ce_type == ce_type)
    }

    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.iter().find(|topic| topic.name == name)
    }

    /// The source of that name.
    pub fn source(&self, name: &str) -> Option<&Source> {
        self.sources.iter().find(|source| source.name == name)
    }

    /// Event types that a pattern means: an exact type, or a prefix ending in `.*`.
    pub fn matching<'a>(&'a self, pattern: &'a str) -> impl Iterator<Item = &'a EventType> {
        self.events.iter().filter(move |event| type_matches(pattern, &event.ce_type))
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        duplicates("event type", self.events.iter().map(|event| event.ce_type.clone()), &mut faults);
        // A topic's class is that of its one type.
        duplicates("event's topic", self.events.iter().map(|event| event.topic.clone()), &mut faults);
        duplicates("topic", self.topics.iter().map(|topic| topic.name.clone()), &mut faults);
        duplicates("topic id", self.topics.iter().map(|topic| topic.id.to_string()), &mut faults);
        duplicates("source", self.sources.iter().map(|source| source.name.clone()), &mut faults);
        duplicates("positions partition", self.sources.iter().map(|source| source.positions_partition.to_string()), &mut faults);
        for event in &self.events {
            if self.topic(&event.topic).is_none() {
                faults.push(format!("event {} names the unknown topic {}", event.ce_type, event.topic));
            }
            if manifest::latest(&event.schema).is_none() {
                faults.push(format!("event {} names the unknown schema {}", event.ce_type, event.schema));
            }
            if event.views.is_empty() {
                faults.push(format!("event {} has no view", event.ce_type));
            }
            for attribute in &event.attributes {
                if !is_attribute_name(attribute) {
                    faults.push(format!("event {}: {attribute} is no CloudEvents attribute name", event.ce_type));
                }
            }
        }
        for source in &self.sources {
            if self.event(&source.event).is_none() {
                faults.push(format!("source {} names the unknown event type {}", source.name, source.event));
            }
            let partitions = self.topic(topics::SOURCE_POSITIONS).map_or(0, |topic| topic.partitions);
            if !(0..partitions).contains(&source.positions_partition) {
                faults.push(format!("source {} has no partition of {}", source.name, topics::SOURCE_POSITIONS));
            }
        }
        for topic in &self.topics {
            if topic.partitions < 1 {
                faults.push(format!("topic {} has no partition", topic.name));
            }
            let compaction = [topic.min_compaction_lag_ms, topic.max_compaction_lag_ms, topic.delete_retention_ms];
            if topic.cleanup == Cleanup::Delete && compaction.iter().any(Option::is_some) {
                faults.push(format!("topic {} is not compacted but has compaction settings", topic.name));
            }
            if topic.cleanup == Cleanup::Compact && topic.retention_ms.is_some() {
                faults.push(format!("topic {} is compacted but has a retention", topic.name));
            }
        }
        faults
    }
}

/// Whether a `types` pattern means an event type: the same text, or a prefix ending in `.*`.
pub fn type_matches(pattern: &str, ce_type: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) if prefix.is_empty() || prefix.ends_with('.') => ce_type.starts_with(prefix),
        Some(_) => false,
        None => pattern == ce_type,
    }
}

/// CloudEvents 1.0: lower-case letters and digits, at most 20 of them, not `data`.
fn is_attribute_name(name: &str) -> bool {
    (1..=20).contains(&name.len()) && name != "data" && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn duplicates(what: &str, names: impl Iterator<Item = String>, faults: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name.clone()) {
            faults.push(format!("{what} {name} stands there twice"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalogue_is_valid_and_complete() {
        let catalogue = Catalogue::parse(include_str!("../catalogue.toml")).unwrap();
        let access = [topics::MEMBERS, topics::DELEGATIONS, topics::GRANTS, topics::RELATIONS, topics::BLOCKS, topics::ACCESS_HISTORY];
        let others = [
            topics::SOURCE_POSITIONS,
            topics::QUARANTINE,
            topics::REMOVED,
            topics::SUBSCRIPTIONS,
            topics::TOKENS,
            topics::WATCH_LISTS,
            topics::FOLLOWED,
        ];
        for name in access.into_iter().chain(others) {
            assert!(catalogue.topic(name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_latch_shows_what_it_opens_and_nothing_of_the_rest() {
        // One more than there is: protected, and not for trials.
        let text = include_str!("../catalogue.toml");
        let more = "[[event]]\ntype = \"no.ryggrad.test.v1\"\ntopic = \"test.v1\"\nschema = \"proevemaaling\"\nkey = \"k\"\nowner = \"o\"\n\
            class = \"personal\"\nviews = [\"full\"]\nattributes = []\n[[topic]]\nid = 9999\nname = \"test.v1\"\npurpose = \"p\"\npartitions = 1\n\
            cleanup = \"compact\"\ntimestamp = \"log-append\"\n";
        let catalogue = Catalogue::parse(&format!("{text}{more}")).unwrap();
        let open = |event: &EventType| event.class == DataClass::Open;
        for (latch, opens) in [
            (Latch::Shut, &open as &dyn Fn(&EventType) -> bool),
            (Latch::Trusting, &|event| !event.ce_type.starts_with("no.ryggrad.proeve.")),
            (Latch::Trial, &|_| true),
        ] {
            let opened = catalogue.opened_by(latch);
            for event in &catalogue.events {
                let there = (opened.event(&event.ce_type).is_some(), opened.topic(&event.topic).is_some());
                assert_eq!(there, (opens(event), opens(event)), "{latch:?} {}", event.ce_type);
            }
            assert!(opened.faults().is_empty() && opened.topic(topics::MEMBERS).is_some(), "{latch:?}");
        }
        assert!(Catalogue::opened(Latch::Shut).why_shut("no.ryggrad.proeve.maaling.v1").is_some_and(|why| why.contains("trial = true")));
        assert!(Catalogue::opened(Latch::Trusting).why_shut("no.ryggrad.proeve.*").is_some_and(|why| why.contains("trial = true")));
        assert_eq!(Catalogue::opened(Latch::Trial).why_shut("no.ryggrad.proeve.maaling.v1"), None);
        assert_eq!(Catalogue::opened(Latch::Shut).why_shut("no.ryggrad.unknown.v1"), None);
    }

    #[test]
    fn a_broken_catalogue_names_every_fault_at_once() {
        let text = include_str!("../catalogue.toml")
            .replace("topic = \"grunndata.virksomhet.v1\"", "topic = \"grunndata.ukjent.v1\"")
            .replace("id = 3", "id = 2")
            .replace("\"funnet\"]", "\"Funnet!\"]")
            .replace("positions_partition = 0", "positions_partition = 16");
        let Err(Invalid::Inconsistent(faults)) = Catalogue::parse(&text) else { panic!("accepted") };
        for expected in ["unknown topic grunndata.ukjent.v1", "topic id 2 stands there twice", "Funnet!", "no partition of"] {
            assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected}: {faults:?}");
        }
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert!(matches!(Catalogue::parse("[[event]]\nunknown = 1"), Err(Invalid::Shape(_))));
    }

    #[test]
    fn a_type_pattern_ends_in_a_whole_segment_wildcard_or_is_exact() {
        for (pattern, ce_type, expected) in [
            ("no.a.b.v1", "no.a.b.v1", true),
            ("no.a.b.v1", "no.a.b.v10", false),
            ("no.a.*", "no.a.b.v1", true),
            ("no.a*", "no.ab.v1", false),
            ("*", "no.a.b.v1", true),
            ("no.a.b.*.v1", "no.a.b.c.v1", false),
        ] {
            assert_eq!(type_matches(pattern, ce_type), expected, "{pattern} {ce_type}");
        }
    }
}
