//! What has to be read until a reader has caught up: where each partition ended when it began.
//!
//! Under constant load a partition's end is never met, since it moves on; what stood there at the beginning
//! is. Must never count a partition as read before everything that stood in it then was shown.

use std::collections::BTreeMap;

/// The ends that are still ahead.
#[derive(Debug)]
pub struct Ends(BTreeMap<i32, i64>);

impl Ends {
    /// For a reader that begins at `next` of each partition, which ends at `end`: (partition, next, end).
    pub fn new(partitions: impl IntoIterator<Item = (i32, i64, i64)>) -> Self {
        let ahead = partitions.into_iter().filter(|(_, next, end)| next < end);
        Self(ahead.map(|(partition, _, end)| (partition, end)).collect())
    }

    /// A partition was read up to here.
    pub fn reach(&mut self, partition: i32, next: i64) {
        if self.0.get(&partition).is_some_and(|end| next >= *end) {
            self.0.remove(&partition);
        }
    }

    /// A partition was read to its present end. What lies between the last record and the end
    /// are markers of transactions and gaps of compaction, which no reader is shown.
    pub fn reach_end(&mut self, partition: i32) {
        self.0.remove(&partition);
    }

    /// Whether every partition was read so far.
    pub fn are_reached(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_stood_there_has_to_be_read_and_nothing_that_came_since() {
        let mut ends = Ends::new([(0, 10, 20), (1, 19, 20), (2, 20, 20), (3, 5, 5)]);
        for (partition, next, reached) in [(2, 30, false), (1, 19, false), (0, 20, false), (0, 19, false), (1, 21, true)] {
            ends.reach(partition, next);
            assert_eq!(ends.are_reached(), reached, "{partition} up to {next}");
        }
        let mut ends = Ends::new([(0, 10, 20)]);
        ends.reach(0, 19);
        ends.reach_end(0);
        assert!(ends.are_reached(), "what lies before the end is shown to nobody");
        assert!(Ends::new([(0, 7, 7)]).are_reached(), "nothing stands there");
    }
}
