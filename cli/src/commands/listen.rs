//! `ryggrad listen`: a webhook receiver that verifies, prints and, if asked to, misbehaves.
//!
//! Without flags it subscribes through the bridge's API, prints what comes, and deletes its
//! subscription when it ends. Must never print an event whose signature is not good.

use std::time::Duration;

use anyhow::Context as _;
use axum::http::StatusCode;
use clap::Args as ClapArgs;
use ryggrad_bridge_core::signature::Secret;
use serde_json::json;

use crate::client::arrivals::{Arrival, Arrivals};
use crate::client::receipts::{Counts, Delivery, Ledger, Verdict};
use crate::client::{Bridge, BridgeOptions, Interrupts, Token, is_not_found, now_ms, rfc3339, subscription_start};
use crate::exit::{Code, Stop};
use crate::output::{self, Format, FormatOption, Output, note, printable};

const UNSUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(5);
const NAVN_CHARS_MAX: usize = 36;

const EXAMPLES: &str = "\
EXAMPLES
  See events arrive, verified, within a second (after ./ryggrad up --demo):
    ryggrad listen

  Everything from the beginning, as JSON:
    ryggrad listen --start beginning -o ndjson

  Be a bad receiver, and see how the bridge copes:
    ryggrad listen --fail-share 0.3 --fail-status 503 --delay-ms 200

  Receive for a subscription that exists already:
    ryggrad listen --port 9000 --no-subscribe --secret whsec_…

  In a test: ten events, or fail if one is wrongly signed:
    ryggrad listen --exit-after 10

EXIT CODES
  0 done   1 failed   2 wrong command line   3 refused by the bridge   4 bridge not reached
  5 with --exit-after: a signature was bad";

/// Receives webhooks, verifies their signatures and prints them.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The port on this machine; 0 picks a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The endpoint's URL as the bridge sees it [default: this port on 127.0.0.1].
    #[arg(long, value_name = "URL", conflicts_with = "no_subscribe")]
    sink: Option<String>,
    /// Event types to subscribe to, exact or a prefix ending in `.*`; may be repeated.
    #[arg(long, value_name = "TYPE", value_delimiter = ',', default_value = "no.ryggrad.*")]
    types: Vec<String>,
    /// Where to start: now, beginning, a time (RFC 3339), or how long ago (15m, 2h, 1d).
    #[arg(long, value_name = "WHEN", default_value = "now", value_parser = subscription_start)]
    start: String,
    /// The signing secret (whsec_…) [default: a fresh one].
    #[arg(long, value_name = "SECRET", env = "RYGGRAD_WEBHOOK_SECRET", hide_env_values = true)]
    secret: Option<Token>,
    /// Make no subscription: one exists already, and --secret is its secret.
    #[arg(long, requires = "secret")]
    no_subscribe: bool,
    /// Leave the subscription in place at the end.
    #[arg(long, conflicts_with = "no_subscribe")]
    keep: bool,
    /// End after this many events; wrongly signed requests count too.
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u64).range(1..))]
    exit_after: Option<u64>,
    /// Answer this share of requests with --fail-status, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, help_heading = "Bad behaviour")]
    fail_share: f64,
    /// What a failing answer is.
    #[arg(long, value_name = "STATUS", default_value_t = 500, value_parser = clap::value_parser!(u16).range(300..=599), help_heading = "Bad behaviour")]
    fail_status: u16,
    /// Wait this long before each answer, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0, help_heading = "Bad behaviour")]
    delay_ms: u64,
    #[command(flatten)]
    format: FormatOption,
    #[command(flatten)]
    bridge: BridgeOptions,
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "use a number from 0 to 1, e.g. 0.3".to_owned())
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Code> {
    let secret = secret(args.secret.as_ref())?;
    // Before anything is made that would have to be cleaned up.
    let mut interrupts = Interrupts::take()?;
    let mut arrivals = Arrivals::open(args.port, args.delay_ms).await?;
    let address = format!("http://{}/", arrivals.address());
    let subscription = if args.no_subscribe { None } else { Some(Subscription::create(&args, &secret, &address).await?) };
    note(greeting(&address, subscription.as_ref(), args.keep));
    let mut listener = Listener { ledger: Ledger::new(secret), output: Output::stdout(), failed_on_purpose: 0, args };
    let outcome = listener.listen(&mut arrivals, &mut interrupts).await;
    let door = arrivals.refuse_more();
    if let Some(subscription) = subscription.filter(|_| !listener.args.keep) {
        subscription.delete(&mut interrupts).await;
    }
    door.close().await;
    note(summary(&listener.ledger.counts, listener.failed_on_purpose));
    outcome?;
    Ok(code(&listener.ledger.counts, listener.args.exit_after))
}

fn secret(given: Option<&Token>) -> anyhow::Result<Secret> {
    match given.filter(|given| !given.is_empty()) {
        Some(given) => given
            .reveal()
            .parse()
            .map_err(|error| Stop::usage(format!("the secret is no good: {error}"), "use the one that subscriptions create showed").into()),
        None => Secret::from_bytes(rand::random::<[u8; 32]>().to_vec()).context("cannot draw a secret"),
    }
}

fn greeting(address: &str, subscription: Option<&Subscription>, keep: bool) -> String {
    match subscription {
        Some(Subscription { id, .. }) if keep => {
            format!("Listening on {address} for the subscription {id}. Ctrl-C ends; the subscription stays.")
        }
        Some(Subscription { id, .. }) => format!("Listening on {address} for the subscription {id}. Ctrl-C ends and deletes it."),
        None => format!("Listening on {address}. Ctrl-C ends."),
    }
}

fn summary(counts: &Counts, failed_on_purpose: u64) -> String {
    let Counts { received, duplicates, setbacks, bad_signatures, bad_requests } = counts;
    let mut text = format!("received {received}, duplicates {duplicates}, out of order {setbacks}, bad signatures {bad_signatures}");
    for (what, count) in [("bad requests", *bad_requests), ("failed on purpose", failed_on_purpose)] {
        if count > 0 {
            text += &format!(", {what} {count}");
        }
    }
    text
}

fn code(counts: &Counts, exit_after: Option<u64>) -> Code {
    if exit_after.is_some() && counts.bad_signatures > 0 { Code::Differs } else { Code::Ok }
}

/// The subscription that this command made for itself.
struct Subscription {
    bridge: Bridge,
    id: String,
}

impl Subscription {
    async fn create(args: &Args, secret: &Secret, address: &str) -> anyhow::Result<Self> {
        let bridge = args.bridge.connect()?;
        let body = json!({
            "types": args.types, "sink": args.sink.as_deref().unwrap_or(address), "start": args.start,
            "description": "ryggrad listen", "secret": secret.reveal(),
        });
        let created = bridge.make(&["v1", "subscriptions"], &body).await.context("cannot subscribe")?;
        let id = created["id"].as_str().context("the bridge's answer has no id")?.to_owned();
        Ok(Self { bridge, id })
    }

    /// Deletes it, unless that takes too long or someone is impatient.
    async fn delete(self, interrupts: &mut Interrupts) {
        let path = ["v1", "subscriptions", &self.id];
        let deletion = tokio::time::timeout(UNSUBSCRIBE_TIMEOUT, self.bridge.delete(&path));
        let why = tokio::select! {
            outcome = deletion => match outcome {
                Ok(Ok(_)) => return,
                Ok(Err(error)) if is_not_found(&error) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            },
            () = interrupts.next() => "interrupted".to_owned(),
        };
        note(format!("The subscription {id} is still there ({why}); delete it with ryggrad subscriptions delete {id}", id = self.id));
    }
}

struct Listener {
    ledger: Ledger,
    output: Output,
    failed_on_purpose: u64,
    args: Args,
}

impl Listener {
    async fn listen(&mut self, arrivals: &mut Arrivals, interrupts: &mut Interrupts) -> Result<(), output::Error> {
        if self.args.format.format == Format::Table {
            self.output.line(&columns("RECEIVED", "ENDRINGSTYPE", "KEY", "NAVN", "WEBHOOK-ID"))?;
            self.output.flush()?;
        }
        while !self.has_enough() {
            tokio::select! {
                arrival = arrivals.next() => match arrival {
                    Some(arrival) => self.take(arrival, rand::random())?,
                    None => break,
                },
                () = interrupts.next() => break,
            }
        }
        Ok(())
    }

    fn has_enough(&self) -> bool {
        let Counts { received, bad_signatures, .. } = self.ledger.counts;
        self.args.exit_after.is_some_and(|events| received.saturating_add(bad_signatures) >= events)
    }

    /// `draw` decides, between 0 and 1, whether this request fails on purpose.
    fn take(&mut self, arrival: Arrival, draw: f64) -> Result<(), output::Error> {
        let status = if draw < self.args.fail_share { self.fail() } else { self.judge(&arrival, now_ms())? };
        // The bridge may have given up meanwhile; it will come again.
        let _ = arrival.answer.send(status);
        Ok(())
    }

    fn fail(&mut self) -> StatusCode {
        self.failed_on_purpose += 1;
        note(format!("answered {} on purpose", self.args.fail_status));
        StatusCode::from_u16(self.args.fail_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Prints before it answers: what was answered 204 has been seen.
    fn judge(&mut self, arrival: &Arrival, now_ms: i64) -> Result<StatusCode, output::Error> {
        match self.ledger.judge(arrival.request.clone(), now_ms.div_euclid(1_000)) {
            Verdict::Good(delivery) => {
                let received_at = rfc3339(now_ms);
                match self.args.format.format {
                    Format::Table => self.output.line(&line(&delivery, &received_at))?,
                    Format::Ndjson => self.output.object(&delivery.to_json(&received_at))?,
                }
                self.output.flush()?;
                Ok(StatusCode::NO_CONTENT)
            }
            Verdict::Unsigned(why) => {
                note(format!("answered 401, bad signature: {why}"));
                Ok(StatusCode::UNAUTHORIZED)
            }
            Verdict::Bad(why) => {
                note(format!("answered 400: {}", printable(&why)));
                Ok(StatusCode::BAD_REQUEST)
            }
        }
    }
}

fn columns(received: &str, endringstype: &str, key: &str, navn: &str, id: &str) -> String {
    format!("{received:<24}  {endringstype:<12}  {key:<11}  {navn:<NAVN_CHARS_MAX$}  {id}")
}

fn line(delivery: &Delivery, received_at: &str) -> String {
    let mut navn: String = delivery.navn().chars().take(NAVN_CHARS_MAX).collect();
    if delivery.navn().chars().count() > NAVN_CHARS_MAX {
        navn.pop();
        navn.push('…');
    }
    let mut line = columns(received_at, delivery.attribute("endringstype"), delivery.attribute("subject"), &navn, &delivery.id);
    if delivery.is_duplicate {
        line += "  (duplicate)";
    }
    if let Some(setback) = &delivery.setback {
        line += &format!("  (out of order: {} after {})", setback.now, setback.before);
    }
    printable(&line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::receipts::Request;
    use crate::output::tests::Page;
    use clap::Parser;
    use ryggrad_bridge_core::signature;
    use tokio::sync::oneshot;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn key() -> Secret {
        Secret::from_bytes(vec![7; 32]).unwrap()
    }

    fn listener(line: &str) -> (Listener, Page) {
        let page = Page::default();
        let args = Cli::try_parse_from(line.split(' ')).unwrap().args;
        (Listener { ledger: Ledger::new(key()), output: Output::to(page.clone()), failed_on_purpose: 0, args }, page)
    }

    fn arrival(id: &str, position: u32, secret: &Secret) -> (Arrival, oneshot::Receiver<StatusCode>) {
        let event = json!({
            "specversion": "1.0", "id": "e", "source": "s", "type": "t", "subject": "312345676", "endringstype": "NY",
            "data": {"posisjon": position.to_string(), "virksomhet": {"navn": "Et navn som er så langt at det ikke får plass"}}
        });
        let (body, now_s) = (event.to_string().into_bytes(), now_ms() / 1_000);
        let headers = [
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", now_s.to_string()),
            ("webhook-signature", signature::sign(secret, id, now_s, &body)),
        ];
        let request = Request { headers: headers.map(|(name, value)| (name.to_owned(), value)).to_vec(), body };
        let (answer, answered) = oneshot::channel();
        (Arrival { request, answer }, answered)
    }

    fn answer(listener: &mut Listener, id: &str, position: u32, secret: &Secret, draw: f64) -> u16 {
        let (arrival, mut answered) = arrival(id, position, secret);
        listener.take(arrival, draw).unwrap();
        answered.try_recv().unwrap().as_u16()
    }

    #[test]
    fn what_is_signed_is_printed_and_what_is_not_is_refused() {
        let (mut listener, page) = listener("x --exit-after 4");
        let other = Secret::from_bytes(vec![8; 32]).unwrap();
        let answers = [("a", 2, &key()), ("a", 2, &key()), ("b", 1, &key()), ("c", 3, &other)]
            .map(|(id, position, secret)| answer(&mut listener, id, position, secret, 0.0));
        assert_eq!(answers, [204, 204, 204, 401]);
        let text = page.text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("NY            312345676    Et navn som er så langt at det ikke…  a"), "{text}");
        assert!(lines[1].ends_with("a  (duplicate)") && lines[2].ends_with("b  (out of order: 1 after 2)") && lines.len() == 3, "{text}");
        assert_eq!(summary(&listener.ledger.counts, 0), "received 2, duplicates 1, out of order 1, bad signatures 1");
        assert!(!listener.has_enough());
        answer(&mut listener, "d", 4, &key(), 0.0);
        assert!(listener.has_enough());
        assert_eq!((code(&listener.ledger.counts, Some(4)), code(&listener.ledger.counts, None)), (Code::Differs, Code::Ok));
    }

    #[test]
    fn a_share_fails_on_purpose_and_is_no_duplicate_afterwards() {
        let (mut listener, page) = listener("x --fail-share 0.3 --fail-status 503 -o ndjson");
        assert_eq!([0.29, 0.3, 0.9].map(|draw| answer(&mut listener, "a", 1, &key(), draw)), [503, 204, 204]);
        assert_eq!(page.text().lines().count(), 2);
        assert_eq!(
            summary(&listener.ledger.counts, listener.failed_on_purpose),
            "received 1, duplicates 1, out of order 0, bad signatures 0, failed on purpose 1"
        );
        assert_eq!(code(&Counts::default(), Some(1)), Code::Ok);
    }

    #[test]
    fn wrong_options_are_usage_errors() {
        for line in [
            "x --fail-share 1.1",
            "x --fail-status 200",
            "x --no-subscribe",
            "x --exit-after 0",
            "x --no-subscribe --secret s --keep",
            "x --start 17",
        ] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
        }
        let bad = secret("whsec_tooshort".parse::<Token>().ok().as_ref()).unwrap_err();
        assert!(!bad.to_string().contains("tooshort"));
        assert!(secret(None).unwrap().reveal().starts_with("whsec_"));
    }
}
