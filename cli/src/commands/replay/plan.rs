//! What a replay would do: its stretches, and a count of what is selected in each.
//!
//! Must never change anything: this is what runs before `--execute`.

use std::ops::ControlFlow;

use ryggrad_log::{Seen, Stretch, read_stretches};

use super::judge::Verdict;
use super::pipeline::{Job, reader_limits};
use super::progress::Progress;
use crate::output::{self, Output};

/// What was counted in a stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Where.
    pub stretch: Stretch,
    /// Records that are there.
    pub records: u64,
    /// Records that would be written.
    pub selected: u64,
    /// Left out because their key was removed.
    pub withheld: u64,
    /// Left out because a replay has written them.
    pub replayed_before: u64,
}

/// Reads all stretches and counts. Blocks.
pub fn count(job: &Job, stretches: &[Stretch]) -> anyhow::Result<Vec<Counted>> {
    let mut progress = Progress::start(stretches);
    let zero = |stretch: &Stretch| Counted { stretch: *stretch, records: 0, selected: 0, withheld: 0, replayed_before: 0 };
    let mut counted: Vec<Counted> = stretches.iter().map(zero).collect();
    read_stretches(&job.connection, &job.topic, stretches, &reader_limits(), |seen| -> anyhow::Result<ControlFlow<()>> {
        if let Seen::Record(record) = seen {
            progress.reach(record.partition(), record.offset() + 1);
            if let Some(counted) = counted.iter_mut().find(|counted| counted.stretch.partition == record.partition()) {
                counted.records += 1;
                match job.judge.judge(record) {
                    Verdict::Take => counted.selected += 1,
                    Verdict::Pass => {}
                    Verdict::Withhold => counted.withheld += 1,
                    Verdict::ReplayedBefore => counted.replayed_before += 1,
                }
            }
        }
        anyhow::ensure!(!job.stop.is_cancelled(), "interrupted before everything was counted");
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(counted)
}

/// Shows what was counted, with a line for all.
pub fn print(counted: &[Counted], limit: Option<u64>, output: &mut Output) -> Result<(), output::Error> {
    let row = |partition: String, from: String, to: String, sums: [u64; 4]| {
        [partition, from, to].into_iter().chain(sums.map(|sum| sum.to_string())).collect::<Vec<_>>()
    };
    let sums = |counted: &Counted| [counted.records, counted.selected, counted.withheld, counted.replayed_before];
    let mut rows: Vec<_> = counted
        .iter()
        .map(|one| row(one.stretch.partition.to_string(), one.stretch.from.to_string(), one.stretch.to.to_string(), sums(one)))
        .collect();
    let mut all = counted.iter().map(sums).fold([0; 4], |mut all, sums| {
        all.iter_mut().zip(sums).for_each(|(all, sum)| *all += sum);
        all
    });
    all[1] = all[1].min(limit.unwrap_or(u64::MAX));
    rows.push(row("all".to_owned(), String::new(), String::new(), all));
    output.table(&["PARTITION", "FROM", "TO", "RECORDS", "SELECTED", "WITHHELD", "REPLAYED BEFORE"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::Page;

    #[test]
    fn a_plan_has_a_row_for_each_partition_and_a_sum() {
        let one = |partition: i32, selected: u64| Counted {
            stretch: Stretch { partition, from: 5, to: 105 },
            records: 90,
            selected,
            withheld: 1,
            replayed_before: 0,
        };
        let page = Page::default();
        print(&[one(0, 10), one(1, 20)], Some(25), &mut Output::to(page.clone())).unwrap();
        let expected = "\
PARTITION  FROM  TO   RECORDS  SELECTED  WITHHELD  REPLAYED BEFORE
0          5     105  90       10        1         0
1          5     105  90       20        1         0
all                   180      25        2         0
";
        assert_eq!(page.text(), expected);
    }
}
