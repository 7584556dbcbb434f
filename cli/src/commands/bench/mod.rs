//! `ryggrad bench`: how fast a part is, as a share of the raw library in the same run.
//!
//! A figure alone says more about the machine than about Ryggrad; the ratio to a baseline, taken
//! in turns with it, says what Ryggrad itself costs. The baseline is held against a foreign tool,
//! so that a poor one can't flatter us. Must never count what only the sender believes.

mod backlog;
mod bare_client;
mod child_bridge;
mod decided;
mod deliver;
mod detect;
mod dump_source;
mod fanout;
mod filter;
mod ground;
mod hanging;
mod latency;
mod memory_source;
mod numbered;
mod performance_tool;
mod population;
mod publish;
mod receiver;
mod replay;
mod running_bridge;
mod socket_receivers;
mod watchlist;
mod websocket;
mod wrk;

use std::collections::BTreeMap;

use anyhow::Context;
use clap::Subcommand;
use tokio_util::sync::CancellationToken;

use crate::exit::Code;
use crate::output::{Output, note};

/// What a baseline must reach of the foreign tool's rate, or it is no fair measure.
const CHECK_MIN: f64 = 0.8;

/// The benchmarks.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    Publish(publish::PublishArgs),
    Deliver(deliver::DeliverArgs),
    Detect(detect::DetectArgs),
    Fanout(fanout::FanoutArgs),
    Hanging(hanging::HangingArgs),
    Backlog(backlog::BacklogArgs),
    Latency(latency::LatencyArgs),
    Filter(filter::FilterArgs),
    Watchlist(watchlist::WatchlistArgs),
    Replay(replay::ReplayArgs),
    Websocket(websocket::WebsocketArgs),
}

/// Runs one benchmark. What it started ends with it, also when it is told to stop.
pub async fn run(command: BenchCommand, stop: CancellationToken) -> anyhow::Result<Code> {
    let measuring = async {
        match command {
            BenchCommand::Publish(args) => publish::run(args).await,
            BenchCommand::Deliver(args) => deliver::run(args).await,
            BenchCommand::Detect(args) => detect::run(args).await,
            BenchCommand::Fanout(args) => fanout::run(args).await,
            BenchCommand::Hanging(args) => hanging::run(args).await,
            BenchCommand::Backlog(args) => backlog::run(args).await,
            BenchCommand::Latency(args) => latency::run(args).await,
            BenchCommand::Filter(args) => tokio::task::spawn_blocking(move || filter::run(&args)).await?,
            BenchCommand::Watchlist(args) => tokio::task::spawn_blocking(move || watchlist::run(&args)).await?,
            BenchCommand::Replay(args) => replay::run(args).await,
            BenchCommand::Websocket(args) => websocket::run(args).await,
        }
    };
    stop.run_until_cancelled(measuring).await.context("stopped")?.map(|()| Code::Ok)
}

/// Events a second of the contestants, one entry a round.
#[derive(Debug, Default)]
struct Rates {
    ours: Vec<f64>,
    baseline: Vec<f64>,
    /// What is measured beside, by name.
    besides: BTreeMap<&'static str, Vec<f64>>,
    /// The foreign tool.
    check: Vec<f64>,
}

/// What the contestants are called.
struct Names {
    baseline: &'static str,
    check: &'static str,
}

impl Rates {
    fn append(&mut self, mut other: Self) {
        self.ours.append(&mut other.ours);
        self.baseline.append(&mut other.baseline);
        for (name, mut rates) in other.besides {
            self.besides.entry(name).or_default().append(&mut rates);
        }
        self.check.append(&mut other.check);
    }

    /// The latest of each, in one line.
    fn in_short(&self) -> String {
        let contestants = [("Ryggrad", &self.ours), ("baseline", &self.baseline), ("check", &self.check)];
        let latest = contestants.into_iter().chain(self.besides.iter().map(|(name, rates)| (*name, rates)));
        let told: Vec<String> = latest.filter_map(|(who, rates)| Some(format!("{who} {:.0}", rates.last()?))).collect();
        format!("{} a second", told.join(", "))
    }

    /// The figures, and last the ratio that bears the benchmark's name.
    fn print(&self, name: &str, names: &Names) -> anyhow::Result<()> {
        let (ours, baseline) = median(&self.ours).zip(median(&self.baseline)).context("nothing was measured")?;
        let mut stdout = Output::stdout();
        stdout.line(&format!("figure {name}-events {ours:.0} events/s"))?;
        stdout.line(&format!("figure {name}-baseline {baseline:.0} events/s"))?;
        for (beside, rates) in &self.besides {
            if let Some(rate) = median(rates) {
                stdout.line(&format!("figure {name}-{beside} {rate:.0} events/s"))?;
                stdout.line(&format!("ratio {name}-{beside} {:.2}", ours / rate))?;
            }
        }
        if let Some(check) = median(&self.check) {
            let reached = baseline / check;
            if reached < CHECK_MIN {
                let Names { baseline, check, .. } = names;
                note(format!("warning: {baseline} reaches {reached:.2} of {check}, less than {CHECK_MIN}: too slow to be a fair baseline"));
            }
            stdout.line(&format!("figure {name}-check {check:.0} events/s"))?;
            stdout.line(&format!("ratio {name}-baseline-check {reached:.2}"))?;
        }
        stdout.line(&format!("ratio {name} {:.2}", ours / baseline))?;
        Ok(stdout.flush()?)
    }
}

/// Prints a ratio that a target bounds from above, as the last line, and says whether it is met.
fn print_bounded(stdout: &mut Output, name: &str, ratio: f64, at_most: f64) -> anyhow::Result<()> {
    let met = if ratio <= at_most { "met" } else { "missed" };
    stdout.line(&format!("target {name} at most {at_most:.2}: {met}"))?;
    stdout.line(&format!("ratio {name} {ratio:.2}"))?;
    Ok(stdout.flush()?)
}

/// The value that this share of all values does not exceed.
fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.max(1) - 1).copied()
}

fn median(rates: &[f64]) -> Option<f64> {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (upper, lower) = (sorted.get(sorted.len() / 2)?, sorted.get(sorted.len().saturating_sub(1) / 2)?);
    Some((upper + lower) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_smallest_value_that_the_share_does_not_exceed() {
        for (share, expected) in [(0.5, Some(50.0)), (0.99, Some(99.0)), (0.991, Some(100.0)), (0.0, Some(1.0)), (1.0, Some(100.0))] {
            let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
            assert_eq!(quantile(&mut values, share), expected);
        }
        assert_eq!(quantile(&mut [], 0.5), None);
    }

    #[test]
    fn the_median_is_the_middle_one_or_lies_between_the_two_in_the_middle() {
        for (rates, expected) in
            [(vec![], None), (vec![3.0], Some(3.0)), (vec![9.0, 1.0, 2.0], Some(2.0)), (vec![4.0, 1.0, 2.0, 9.0], Some(3.0))]
        {
            assert_eq!(median(&rates), expected);
        }
    }
}
