//! How each feed stands, in words, for `/readyz` and for people.
//!
//! Must never hold anything that upstream sent but numbers.

use std::collections::BTreeMap;
use std::fmt;

use tokio::sync::watch;

/// How a feed stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedState {
    /// Not yet read.
    Starting,
    /// Reading the registry's dump.
    ReadingSnapshot {
        /// Rows read.
        rows: u64,
        /// Events published.
        events: u64,
    },
    /// Reading what lies behind.
    CatchingUp,
    /// Read to its end.
    Following,
    /// Upstream's newest id is lower than our position: it was reset, or is the wrong one.
    UpstreamBehind {
        /// Our position.
        position: u64,
        /// Upstream's newest id.
        newest: Option<u64>,
    },
    /// Upstream can't be followed at the moment; it is tried again.
    UpstreamTrouble(String),
}

impl fmt::Display for FeedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::ReadingSnapshot { rows, events } => write!(f, "reading-snapshot: {rows} rows read, {events} events published"),
            Self::CatchingUp => f.write_str("catching-up"),
            Self::Following => f.write_str("following"),
            Self::UpstreamBehind { position, newest } => {
                write!(f, "upstream-behind: the stored position is {position}, upstream's newest id {}", newest.unwrap_or(0))
            }
            Self::UpstreamTrouble(reason) => write!(f, "upstream-trouble: {reason}"),
        }
    }
}

/// How everything stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// By `<source>/<feed>`.
    pub feeds: BTreeMap<String, FeedState>,
    /// Why the log can't be written, by source; absent where it can.
    pub log_trouble: BTreeMap<String, String>,
}

impl Health {
    /// Whether every feed is followed and its events can be published.
    pub fn is_ready(&self) -> bool {
        let moves = |state: &FeedState| matches!(state, FeedState::ReadingSnapshot { .. } | FeedState::CatchingUp | FeedState::Following);
        !self.feeds.is_empty() && self.feeds.values().all(moves) && self.log_trouble.is_empty()
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (feed, state) in &self.feeds {
            writeln!(f, "{feed}: {state}")?;
        }
        for (source, reason) in &self.log_trouble {
            writeln!(f, "{source}: waiting-for-log: {reason}")?;
        }
        Ok(())
    }
}

/// The current health, to be shared and watched. Clones are one and the same.
#[derive(Debug, Clone, Default)]
pub struct Status {
    health: watch::Sender<Health>,
}

impl Status {
    /// The health now.
    pub fn current(&self) -> Health {
        self.health.borrow().clone()
    }

    /// Tells of changes.
    pub fn subscribe(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    pub(crate) fn feed(&self, source: &str, feed: &str, state: FeedState) {
        let name = format!("{source}/{feed}");
        self.health.send_if_modified(|health| health.feeds.insert(name, state.clone()).as_ref() != Some(&state));
    }

    pub(crate) fn log_trouble(&self, source: &str, reason: Option<String>) {
        self.health.send_if_modified(|health| match reason {
            Some(reason) => health.log_trouble.insert(source.to_owned(), reason.clone()).as_ref() != Some(&reason),
            None => health.log_trouble.remove(source).is_some(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_that_every_feed_moves_and_the_log_can_be_written() {
        let status = Status::default();
        assert!(!status.current().is_ready());
        status.feed("s", "a", FeedState::Following);
        status.feed("s", "b", FeedState::Starting);
        assert!(!status.current().is_ready());
        status.feed("s", "b", FeedState::CatchingUp);
        assert!(status.current().is_ready());
        status.log_trouble("s", Some("no broker".to_owned()));
        assert!(!status.current().is_ready());
        assert!(status.current().to_string().contains("s/a: following\ns/b: catching-up\ns: waiting-for-log: no broker"));
        status.log_trouble("s", None);
        assert!(status.current().is_ready());
        status.feed("s", "a", FeedState::UpstreamBehind { position: 9, newest: Some(7) });
        assert!(!status.current().is_ready());
    }
}
