//! What can be set for a producer, and why one would.
//!
//! Unknown keys refuse to boot. Everything has a default that suits the real upstream.

use std::collections::BTreeMap;

use ryggrad_detect::decide::{Backoff, Start};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::ProducerError;
use crate::credentials::{AuthConfig, is_secure};

/// The most items that Enhetsregisteret puts in one page.
pub(crate) const PAGE_ITEMS_MAX: usize = 10_000;

/// Where to start a feed for which no position is stored: `"snapshot"`, `"beginning"`, `"now"` or
/// an id. `"snapshot"` publishes the registry's dump first and follows from there without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StartText", into = "StartText")]
pub struct StartAt(pub Start);

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum StartText {
    Id(u64),
    // Environment variables are texts, also where they hold a number.
    Word(String),
}

impl TryFrom<StartText> for StartAt {
    type Error = &'static str;

    fn try_from(text: StartText) -> Result<Self, Self::Error> {
        let start = match text {
            StartText::Id(id) => Start::At(id),
            StartText::Word(word) => match word.as_str() {
                "beginning" => Start::Beginning,
                "now" => Start::Now,
                "snapshot" => Start::Snapshot,
                id => Start::At(id.parse().map_err(|_| "start is \"snapshot\", \"beginning\", \"now\" or an id")?),
            },
        };
        Ok(Self(start))
    }
}

impl From<StartAt> for StartText {
    fn from(start: StartAt) -> Self {
        match start.0 {
            Start::Beginning => Self::Word("beginning".to_owned()),
            Start::Now => Self::Word("now".to_owned()),
            Start::Snapshot => Self::Word("snapshot".to_owned()),
            Start::At(id) => Self::Id(id),
        }
    }
}

/// What a producer reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Follow {
    /// The feed, compared with dumps now and then.
    #[default]
    Feed,
    /// Nothing but dumps.
    Snapshots,
}

/// How dumps are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnapshotConfig {
    /// Addresses of dumps by feed, where they are not the registry's own: `https://` or `file://`.
    pub addresses: BTreeMap<String, String>,
    /// From the end of one comparison to the beginning of the next; 0 for none but those asked for.
    pub interval_ms: u64,
    /// How much earlier than a dump's own time the feed is followed from.
    pub margin_ms: u64,
    /// How old a dump may be that does not say how old it is.
    pub age_ms_max: u64,
    /// How long the feed may take to tell what a dump shows, before that counts as never told.
    pub silent_after_ms: u64,
    /// The greatest share of known units that a dump may lack and still be believed.
    pub deletions_share_max: f64,
    /// So many units may always be lacking.
    pub deletions_min: u64,
    /// Ask the registry about each unit that a dump lacks, before it counts as deleted.
    pub confirm_deletions: bool,
    /// Rows held in memory at once.
    pub window_bytes_max: usize,
    /// How long upstream may send nothing.
    pub stall_timeout_ms: u64,
    /// Time for a whole dump, our own pauses included.
    pub dump_timeout_ms: u64,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self {
            addresses: BTreeMap::new(),
            interval_ms: 86_400_000,
            margin_ms: 7_200_000,
            age_ms_max: 172_800_000,
            silent_after_ms: 600_000,
            deletions_share_max: 0.02,
            deletions_min: 5,
            confirm_deletions: true,
            window_bytes_max: 4 * 1024 * 1024,
            stall_timeout_ms: 60_000,
            dump_timeout_ms: 21_600_000,
        }
    }
}

/// Settings of one producer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProducerConfig {
    /// Where the API is; another one for the simulator or a mirror.
    pub base_url: String,
    /// Who this producer is, where the API wants a token with each request.
    pub auth: Option<AuthConfig>,
    /// What is read.
    pub follow: Follow,
    /// Where to start a feed for which no position is stored.
    pub start: StartAt,
    /// How dumps are read.
    pub snapshot: SnapshotConfig,
    /// Read each dump once and end.
    pub once: bool,
    /// How often a mark is written to every partition, so that idle ones are compacted too;
    /// 0 for never.
    pub roll_interval_ms: u64,
    /// Pause between two questions once a feed is read to its end. 60 000 is polite upstream.
    pub poll_interval_ms: u64,
    /// Items asked for in one page.
    pub page_items_max: usize,
    /// Look-ups at the same time, for each feed.
    pub look_ups_in_flight_max: usize,
    /// How often a unit that the feed names is asked for while its look-up can't be used.
    pub look_up_attempts_max: u32,
    /// After how many failures in a row one look-up is set aside, if others succeed meanwhile.
    pub look_up_failures_max: u32,
    /// Most events in one transaction. Fewer keep transactions shorter, more are quicker.
    pub transaction_events_max: usize,
    /// Requests a second, all feeds together.
    pub requests_per_second_max: u32,
    /// Attempts of one request, on 429, 5xx and broken connections, before the feed backs off.
    pub request_attempts_max: u32,
    /// Time for a connection.
    pub connect_timeout_ms: u64,
    /// Time for a whole request.
    pub request_timeout_ms: u64,
    /// The largest page that is read.
    pub response_bytes_max: usize,
    /// The largest document that is read.
    pub document_bytes_max: usize,
    /// Bound of the first delay after a failure; doubled with each.
    pub retry_delay_ms_first: u64,
    /// Bound of all delays after failures.
    pub retry_delay_ms_max: u64,
    /// After how long the broker ends a transaction that was left open.
    pub transaction_timeout_ms: u32,
    /// How long one call may wait for the broker.
    pub operation_timeout_ms: u32,
    /// How long a transaction may take to finish after a stop was asked for.
    pub stop_grace_ms: u64,
    /// How upstream can tell who asks.
    pub user_agent: String,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            base_url: "https://data.brreg.no/enhetsregisteret/api".to_owned(),
            auth: None,
            follow: Follow::default(),
            start: StartAt(Start::Snapshot),
            snapshot: SnapshotConfig::default(),
            once: false,
            roll_interval_ms: 86_400_000,
            poll_interval_ms: 5_000,
            page_items_max: PAGE_ITEMS_MAX,
            look_ups_in_flight_max: 8,
            look_up_attempts_max: 3,
            look_up_failures_max: 10,
            transaction_events_max: 5_000,
            requests_per_second_max: 50,
            request_attempts_max: 3,
            connect_timeout_ms: 10_000,
            request_timeout_ms: 30_000,
            response_bytes_max: 64 * 1024 * 1024,
            document_bytes_max: 4 * 1024 * 1024,
            retry_delay_ms_first: 500,
            retry_delay_ms_max: 60_000,
            transaction_timeout_ms: 10_000,
            operation_timeout_ms: 30_000,
            stop_grace_ms: 10_000,
            user_agent: concat!("ryggrad/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl ProducerConfig {
    /// The base address, if the settings make sense; else every fault at once.
    pub fn check(&self) -> Result<Url, ProducerError> {
        let mut faults = Vec::new();
        let numbers = [
            ("poll_interval_ms", self.poll_interval_ms > 0),
            ("page_items_max", (1..=PAGE_ITEMS_MAX).contains(&self.page_items_max)),
            ("look_ups_in_flight_max", self.look_ups_in_flight_max > 0),
            ("look_up_attempts_max", self.look_up_attempts_max > 0),
            ("look_up_failures_max", self.look_up_failures_max > 0),
            ("transaction_events_max", (1..=10_000).contains(&self.transaction_events_max)),
            ("requests_per_second_max", self.requests_per_second_max > 0),
            ("request_attempts_max", self.request_attempts_max > 0),
            ("connect_timeout_ms", self.connect_timeout_ms > 0),
            ("request_timeout_ms", self.request_timeout_ms > 0),
            ("response_bytes_max", self.response_bytes_max > 0),
            ("document_bytes_max", self.document_bytes_max > 0),
            ("retry_delay_ms_first", self.retry_delay_ms_first > 0),
            ("retry_delay_ms_max", self.retry_delay_ms_max >= self.retry_delay_ms_first),
            ("transaction_timeout_ms", self.transaction_timeout_ms >= 1_000),
            ("snapshot.deletions_share_max", (0.0..=1.0).contains(&self.snapshot.deletions_share_max)),
            ("snapshot.window_bytes_max", self.snapshot.window_bytes_max >= 1024),
            ("snapshot.stall_timeout_ms", self.snapshot.stall_timeout_ms > 0),
            ("snapshot.dump_timeout_ms", self.snapshot.dump_timeout_ms > 0),
            ("operation_timeout_ms", self.operation_timeout_ms >= 1_000),
        ];
        faults.extend(numbers.into_iter().filter(|(_, good)| !good).map(|(name, _)| format!("{name} is out of range")));
        for (feed, address) in &self.snapshot.addresses {
            if !Url::parse(address).is_ok_and(|url| is_web(&url) || url.to_file_path().is_ok()) {
                faults.push(format!("snapshot.addresses.{feed} is no http(s) or file address"));
            }
        }
        faults.extend(self.auth.iter().flat_map(AuthConfig::faults));
        match Url::parse(self.base_url.trim_end_matches('/')) {
            Ok(url) if self.auth.is_some() && is_web(&url) && !is_secure(&url) => {
                faults.push("base_url is an https address where auth is set: tokens are not sent over plain http".to_owned());
            }
            Ok(url) if faults.is_empty() && is_web(&url) => return Ok(url),
            Ok(url) if is_web(&url) => {}
            _ => faults.push("base_url is no http(s) address".to_owned()),
        }
        Err(ProducerError::Config { faults })
    }

    /// Whether feeds are followed, besides dumps.
    pub(crate) fn follows_feeds(&self) -> bool {
        self.follow == Follow::Feed
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff { delay_ms_first: self.retry_delay_ms_first, delay_ms_max: self.retry_delay_ms_max }
    }
}

fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn the_defaults_are_good_and_survive_being_written() {
        let config = ProducerConfig::default();
        assert_eq!(config.check().unwrap().as_str(), "https://data.brreg.no/enhetsregisteret/api");
        let written = serde_json::to_value(&config).unwrap();
        assert_eq!(serde_json::from_value::<ProducerConfig>(written).unwrap(), config);
        assert_eq!(serde_json::from_value::<ProducerConfig>(json!({})).unwrap(), config);
    }

    #[test]
    fn unknown_keys_refuse_to_boot() {
        assert!(serde_json::from_value::<ProducerConfig>(json!({"poll_intervall_ms": 1})).is_err());
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let config = ProducerConfig {
            base_url: "ftp://x/".to_owned(),
            page_items_max: 10_001,
            transaction_events_max: 0,
            ..ProducerConfig::default()
        };
        let Err(ProducerError::Config { faults }) = config.check() else { panic!("accepted") };
        assert_eq!(faults.len(), 3, "{faults:?}");
    }

    #[test]
    fn tokens_are_for_secure_addresses() {
        for (base_url, is_good) in [("https://x.example.org/a", true), ("http://127.0.0.1:1/a", true), ("http://x.example.org/a", false)] {
            let auth = json!({"issuer": "https://sts.example.org", "client_id": "k", "key_file": "k.jwk", "scope": "a"});
            let config: ProducerConfig = serde_json::from_value(json!({"base_url": base_url, "auth": auth})).unwrap();
            assert_eq!(config.check().is_ok(), is_good, "{base_url}");
        }
    }

    #[test]
    fn start_is_a_word_or_an_id() {
        for (text, expected) in [
            (json!("beginning"), Some(Start::Beginning)),
            (json!("now"), Some(Start::Now)),
            (json!(17), Some(Start::At(17))),
            (json!("17"), Some(Start::At(17))),
            (json!("later"), None),
            (json!(-1), None),
        ] {
            assert_eq!(serde_json::from_value::<StartAt>(text.clone()).ok(), expected.map(StartAt), "{text}");
        }
    }
}
