//! What to do when a source starts and when something fails: decisions without a clock.
//!
//! The shell measures and draws; what follows from it is decided here, where a test can see it.

/// Where to start a feed for which no position is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The first item that upstream has.
    Beginning,
    /// After the newest item.
    Now,
    /// This id and later.
    At(u64),
    /// Where the registry's dump ends, which is published first.
    Snapshot,
}

/// The first thing to do with a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// Go on after this stored position, once upstream's newest id has been compared with it.
    Resume(u64),
    /// Read after this position.
    From(u64),
    /// Ask for the newest id, store it, and read after it.
    FromNewest,
}

/// What to do first: a stored position always wins over the configured start.
pub fn opening(stored: Option<u64>, start: Start) -> Opening {
    match (stored, start) {
        (Some(position), _) => Opening::Resume(position),
        (None, Start::Beginning) => Opening::From(0),
        (None, Start::At(id)) => Opening::From(id.saturating_sub(1)),
        // The position is stored before the dump is published; without one there is none to wait for.
        (None, Start::Now | Start::Snapshot) => Opening::FromNewest,
    }
}

/// Whether upstream is behind us: it was reset, or it is the wrong one. The position stays.
pub fn upstream_is_behind(position: u64, newest: Option<u64>) -> bool {
    newest.unwrap_or(0) < position
}

/// Answers in a row that must call a feed empty before it is believed: a feed that lies once
/// would otherwise be read from its beginning, all of it.
pub const EMPTY_ANSWERS_MIN: u32 = 3;

/// The position "now" of a feed, or `None` while an empty answer is not yet to be believed.
pub fn newest_as_start(newest: Option<u64>, empty_answers: u32) -> Option<u64> {
    newest.or((empty_answers >= EMPTY_ANSWERS_MIN).then_some(0))
}

/// What to do about a look-up that keeps failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookUp {
    /// Wait and ask again; the feed stays before the item.
    Wait,
    /// Upstream answers for others but never for this one: quarantine the item and go on.
    SetAside,
}

/// Decides about a failing look-up. Upstream being down must never look like one bad item.
pub fn failed_look_up(failures_in_a_row: u32, failures_max: u32, others_answered: bool) -> LookUp {
    if failures_in_a_row >= failures_max && others_answered { LookUp::SetAside } else { LookUp::Wait }
}

/// How a publication failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The transaction was aborted: nothing of it is or will be visible.
    Aborted,
    /// Whether it was committed is unknown.
    Unknown,
    /// The broker knows a newer epoch of this producer.
    Fenced,
}

/// What to do after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailure {
    /// Publish the same batch again.
    PublishAgain,
    /// Start a new publisher, read the positions back, and see whether the batch is committed.
    StartAnew,
    /// Watch whether another producer writes before starting a new publisher.
    Watch,
}

/// Decides what follows a failed publication.
pub fn after_failure(failure: Failure) -> AfterFailure {
    match failure {
        Failure::Aborted => AfterFailure::PublishAgain,
        Failure::Unknown => AfterFailure::StartAnew,
        Failure::Fenced => AfterFailure::Watch,
    }
}

/// How far back earlier fences count.
pub const FENCES_WINDOW_MS: u64 = 600_000;

/// So many earlier fences within the window are a fight with another producer, not accidents.
pub const FENCES_EARLIER_MAX: usize = 3;

/// What to do after having been fenced and having watched for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFence {
    /// Nobody else writes: the fence came from our own transaction's timeout (a pause, a slow disk).
    StartAnew,
    /// Another producer took over: stop, so that the two don't fence each other for ever.
    Stop,
}

/// Decides after a fence: `moved` if positions changed while we watched, `earlier` the fences
/// before this one within the window.
pub fn after_fence(moved: bool, earlier: usize) -> AfterFence {
    if moved || earlier >= FENCES_EARLIER_MAX { AfterFence::Stop } else { AfterFence::StartAnew }
}

/// How long to watch after a fence: as long as the other producer may take to write.
pub fn watch_ms(poll_interval_ms: u64) -> u64 {
    poll_interval_ms.saturating_mul(2).saturating_add(5_000)
}

/// Bounds of an exponential backoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Upper bound of the first delay.
    pub delay_ms_first: u64,
    /// Upper bound of every delay.
    pub delay_ms_max: u64,
}

impl Backoff {
    /// The delay after `failures` failures in a row (from 1), with full jitter: `draw` is uniform
    /// in 0..1, so that many clients that failed together don't come back together.
    pub fn delay_ms(&self, failures: u32, draw: f64) -> u64 {
        let doublings = failures.saturating_sub(1).min(32);
        let bound = self.delay_ms_first.saturating_mul(1 << doublings).min(self.delay_ms_max);
        (bound as f64 * draw.clamp(0.0, 1.0)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_position_wins_over_the_configured_start() {
        for (stored, start, expected) in [
            (None, Start::Beginning, Opening::From(0)),
            (None, Start::At(1), Opening::From(0)),
            (None, Start::At(0), Opening::From(0)),
            (None, Start::At(17), Opening::From(16)),
            (None, Start::Now, Opening::FromNewest),
            (Some(5), Start::Beginning, Opening::Resume(5)),
            (Some(5), Start::Now, Opening::Resume(5)),
            (Some(5), Start::At(17), Opening::Resume(5)),
        ] {
            assert_eq!(opening(stored, start), expected, "{stored:?} {start:?}");
        }
    }

    #[test]
    fn upstream_is_behind_only_if_its_newest_id_is_lower() {
        for (position, newest, expected) in
            [(5, Some(4), true), (5, Some(5), false), (5, Some(9), false), (5, None, true), (0, None, false)]
        {
            assert_eq!(upstream_is_behind(position, newest), expected, "{position} {newest:?}");
        }
    }

    #[test]
    fn one_empty_answer_never_makes_now_the_beginning() {
        for (newest, empty_answers, expected) in
            [(Some(7), 0, Some(7)), (Some(7), 9, Some(7)), (None, 1, None), (None, 2, None), (None, 3, Some(0))]
        {
            assert_eq!(newest_as_start(newest, empty_answers), expected);
        }
    }

    #[test]
    fn an_item_is_set_aside_only_while_upstream_answers_for_others() {
        for (failures, others, expected) in [
            (1, true, LookUp::Wait),
            (4, true, LookUp::Wait),
            (5, true, LookUp::SetAside),
            (5, false, LookUp::Wait),
            (500, false, LookUp::Wait),
        ] {
            assert_eq!(failed_look_up(failures, 5, others), expected, "{failures} {others}");
        }
    }

    #[test]
    fn only_an_aborted_batch_is_published_again_without_reading_positions() {
        for (failure, expected) in [
            (Failure::Aborted, AfterFailure::PublishAgain),
            (Failure::Unknown, AfterFailure::StartAnew),
            (Failure::Fenced, AfterFailure::Watch),
        ] {
            assert_eq!(after_failure(failure), expected);
        }
    }

    #[test]
    fn a_fenced_producer_gives_way_to_one_that_writes_and_never_fights() {
        for (moved, earlier, expected) in [
            (false, 0, AfterFence::StartAnew),
            (false, FENCES_EARLIER_MAX - 1, AfterFence::StartAnew),
            (false, FENCES_EARLIER_MAX, AfterFence::Stop),
            (true, 0, AfterFence::Stop),
        ] {
            assert_eq!(after_fence(moved, earlier), expected, "{moved} {earlier}");
        }
        assert!(watch_ms(5_000) > 2 * 5_000 && watch_ms(u64::MAX) == u64::MAX);
    }

    #[test]
    fn delays_double_up_to_their_bound_and_are_drawn_below_it() {
        let backoff = Backoff { delay_ms_first: 100, delay_ms_max: 60_000 };
        for (failures, draw, expected) in [
            (0, 1.0, 100),
            (1, 1.0, 100),
            (2, 1.0, 200),
            (3, 0.5, 200),
            (1, 0.0, 0),
            (40, 1.0, 60_000),
            (u32::MAX, 1.0, 60_000),
            (1, 7.0, 100),
        ] {
            assert_eq!(backoff.delay_ms(failures, draw), expected, "{failures} {draw}");
        }
    }
}
