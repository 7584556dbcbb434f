//! `ryggrad subscriptions`: who gets what where, through the bridge's API.
//!
//! The signing secret is printed once, by `create`, since the bridge never tells it again.

mod request;
mod rewind;

use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use ryggrad_bridge_core::letter_name::LetterName;
use ryggrad_consumers::duration_ms;
use serde_json::{Map, Value, json};

use crate::client::{Bridge, BridgeOptions, Token};
use crate::commands::frame::Frame;
use crate::exit::{Code, Stop};
use crate::output::{Format, Output, cell, note};
use request::{CreateArgs, UpdateArgs, body, patch};
use rewind::RewindArgs;
pub use rewind::show_stretches;

/// What to type for what.
pub const EXAMPLES: &str = "\
EXAMPLES
  Send every change from now on to an endpoint of yours:
    ryggrad subscriptions create --sink https://mottaker.example.no/hendelser

  The same, with everything from the beginning, and keep the secret:
    ryggrad subscriptions create --sink https://mottaker.example.no/hendelser \\
        --start beginning -o ndjson | jq -r .secret

  In batches, at most 60 calls a minute, with a key that your gateway asks for; an event that
  your endpoint refuses is set aside with its key:
    ryggrad subscriptions create --sink https://mottaker.example.no/hendelser --format batch \\
        --attempts-per-minute-max 60 --header 'X-Api-Key: …' --on-exhausted park

  Only what happens to the organisations of a watch list:
    ryggrad subscriptions create --sink https://mottaker.example.no/hendelser --watch-list ID

  Fetch instead of being called:
    ryggrad subscriptions create --channel pull
    ryggrad subscriptions pull ID --follow

  Does the endpoint work? How did the latest deliveries go? Who is behind, and why?
    ryggrad subscriptions test ID
    ryggrad subscriptions attempts ID
    ryggrad subscriptions list
    ryggrad subscriptions show ID

  What has a supplier made for the organisation?
    ryggrad subscriptions list --supplier 923609016

  The endpoint has moved; what is being retried goes there too:
    ryggrad subscriptions update ID --sink https://ny.example.no/hendelser

  Another signing secret; for a day both sign:
    ryggrad subscriptions rotate-secret ID --overlap 1d

  Everything since yesterday once more, under new webhook-ids: first what that means, then for real:
    ryggrad subscriptions rewind ID --to 1d
    ryggrad subscriptions rewind ID --to 1d --execute

  What was set aside, and once the cause is mended:
    ryggrad subscriptions dead-letters ID
    ryggrad subscriptions redrive ID

EXIT CODES
  0 done   2 wrong command line   3 not found or refused   4 bridge not reached";

/// How long the bridge is asked to wait for events.
const WAIT_S: &str = "20";
/// How long to wait before a call is made again that the bridge could not answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Its command line.
pub type Args = Frame<Command, BridgeOptions>;

/// What can be done with subscriptions.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Creates a subscription and shows its signing secret, once.
    Create(CreateArgs),
    /// Lists the organisation's subscriptions, and those that suppliers have made for it.
    List {
        /// Those of this supplier alone.
        #[arg(long, value_name = "ORGANISATION")]
        supplier: Option<String>,
    },
    /// Shows one subscription: its progress, and what it waits for.
    Show(Id),
    /// Changes a subscription; what is not given stays as it is.
    Update(UpdateArgs),
    /// Stops deliveries; nothing is lost, the cursor stands.
    Pause(Id),
    /// Goes on where a pause, or the bridge, stopped.
    Resume(Id),
    /// Deletes a subscription and its cursor, for good.
    Delete(Id),
    /// Makes another signing secret and shows it, once; both sign for a while.
    RotateSecret(RotateArgs),
    /// Asks the endpoint again whether it agrees to be called.
    Verify(Id),
    /// Sends one signed test event now and shows how that went.
    Test(Id),
    /// Lists the latest attempts, newest first.
    Attempts {
        /// The subscription's id, as `list` shows it.
        id: String,
        /// How many.
        #[arg(long, value_name = "COUNT", default_value_t = 50)]
        limit: u32,
    },
    /// Takes a subscription back in the log. A dry run unless --execute is given.
    Rewind(RewindArgs),
    /// Lists replays (ryggrad replay … --to subscription:ID), the newest first.
    Replays(Id),
    /// Ends a replay for good.
    CancelReplay {
        /// The subscription's id, as `list` shows it.
        id: String,
        /// The replay's id.
        replay: String,
    },
    /// Lists events that were set aside.
    DeadLetters {
        /// The subscription's id, as `list` shows it.
        id: String,
        /// Goes on after this one.
        #[arg(long, value_name = "DEAD LETTER")]
        after: Option<String>,
        /// How many.
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        limit: u32,
    },
    /// Takes up again what was set aside: all of it, or one with what waits behind it.
    Redrive {
        /// The subscription's id, as `list` shows it.
        id: String,
        /// The one, as `dead-letters` shows it.
        #[arg(value_name = "DEAD LETTER", value_parser = letter)]
        letter: Option<Value>,
    },
    /// Forgets what was set aside and no key waits behind, for good: one, or all.
    Discard {
        /// The subscription's id, as `list` shows it.
        id: String,
        /// The one, as `dead-letters` shows it.
        #[arg(value_name = "DEAD LETTER", value_parser = letter, required_unless_present = "all")]
        letter: Option<Value>,
        /// All of them.
        #[arg(long, conflicts_with = "letter")]
        all: bool,
    },
    /// Fetches events of a subscription with channel pull, one JSON object a line.
    Pull(PullArgs),
}

/// One subscription.
#[derive(Debug, ClapArgs)]
pub struct Id {
    /// The subscription's id, as `list` shows it.
    id: String,
}

/// What `rotate-secret` is given.
#[derive(Debug, ClapArgs)]
pub struct RotateArgs {
    /// The subscription's id, as `list` shows it.
    id: String,
    /// How long the present secret goes on to sign, at most 7d.
    #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = seconds)]
    overlap: i64,
    /// A signing secret of your own (whsec_…); the bridge draws one otherwise.
    #[arg(long, value_name = "SECRET")]
    secret: Option<Token>,
}

/// What `pull` is given.
#[derive(Debug, ClapArgs)]
pub struct PullArgs {
    /// The subscription's id, as `list` shows it.
    id: String,
    /// Acknowledges everything up to this cursor, and goes on after it.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Events at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: u32,
    /// Goes on until it is interrupted, and acknowledges what it has printed.
    #[arg(long)]
    follow: bool,
}

fn seconds(text: &str) -> Result<i64, String> {
    duration_ms(text).map(|ms| ms / 1_000).map_err(|error| error.to_string())
}

fn letter(text: &str) -> Result<Value, String> {
    let named = text.parse::<LetterName>().map(|name| json!({"id": name}));
    named.map_err(|_| "use an id, as dead-letters shows it".to_owned())
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Code> {
    let bridge = args.options.connect()?;
    let mut output = Output::stdout();
    let format = args.format.format;
    let act = async |id: &str, action: &str, body: Option<&Value>| {
        let path: Vec<&str> = ["v1", "subscriptions", id].into_iter().chain(action.split('/')).collect();
        bridge.post(&path, body).await
    };
    match args.command {
        Command::Create(create) => {
            let created = bridge.make(&["v1", "subscriptions"], &body(create)).await?;
            print_one(&mut output, format, &created)?;
            if created.get("secret").is_some() {
                note("Keep the secret: it is shown this once. The endpoint verifies webhook-signature with it.");
            }
        }
        Command::List { supplier } => list(&bridge, &mut output, format, supplier.as_deref()).await?,
        Command::Show(Id { id }) => show(&mut output, format, &bridge.get(&["v1", "subscriptions", &id]).await?)?,
        Command::Update(update) => {
            let id = update.id.clone();
            print_one(&mut output, format, &bridge.patch(&["v1", "subscriptions", &id], &patch(update)).await?)?;
        }
        Command::Pause(Id { id }) => print_one(&mut output, format, &act(&id, "pause", None).await?)?,
        Command::Resume(Id { id }) => print_one(&mut output, format, &act(&id, "resume", None).await?)?,
        Command::Delete(Id { id }) => {
            bridge.delete(&["v1", "subscriptions", &id]).await?;
            note(format!("The subscription {id} is deleted."));
        }
        Command::RotateSecret(RotateArgs { id, overlap, secret }) => {
            let mut body = json!({ "overlap_s": overlap });
            if let Some(secret) = secret {
                body["secret"] = json!(secret.reveal());
            }
            print_one(&mut output, format, &act(&id, "rotate-secret", Some(&body)).await?)?;
            note("Keep the secret: it is shown this once.");
        }
        Command::Verify(Id { id }) => print_one(&mut output, format, &act(&id, "verify", None).await?)?,
        Command::Test(Id { id }) => print_one(&mut output, format, &act(&id, "test", None).await?)?,
        Command::Attempts { id, limit } => {
            let answer = bridge.get_with(&["v1", "subscriptions", &id, "attempts"], &[("limit", &limit.to_string())]).await?.body;
            let members = ["at", "outcome", "http_status", "latency_ms", "error", "attempt", "webhook_id"];
            rows(&mut output, format, &answer["attempts"], &members, "No attempt has been made yet.")?;
        }
        Command::DeadLetters { id, after, limit } => {
            let limit = limit.to_string();
            let query: Vec<(&str, &str)> = after.iter().map(|after| ("after", after.as_str())).chain([("limit", limit.as_str())]).collect();
            let answer = bridge.get_with(&["v1", "subscriptions", &id, "dead-letters"], &query).await?.body;
            let members = ["id", "number", "reason", "parked", "at"];
            rows(&mut output, format, &answer["dead_letters"], &members, "Nothing was set aside.")?;
            if let Some(next) = answer["next"].as_str() {
                note(format!("There are more: --after {next}"));
            }
        }
        Command::Redrive { id, letter } => {
            let answer = act(&id, "dead-letters/redrive", Some(&letter.unwrap_or_else(|| json!({})))).await?;
            print_one(&mut output, format, &answer)?;
        }
        Command::Replays(Id { id }) => {
            let replays = bridge.list(&["v1", "subscriptions", &id, "replays"], "replays").await?;
            let members = ["id", "state", "share_done", "matched", "delivered", "set_aside", "started_at", "ended_at"];
            rows(&mut output, format, &Value::Array(replays), &members, "There has been no replay.")?;
        }
        Command::CancelReplay { id, replay } => {
            print_one(&mut output, format, &act(&id, &format!("replays/{replay}/cancel"), None).await?)?
        }
        Command::Discard { id, letter, .. } => {
            let answer = act(&id, "dead-letters/discard", Some(&letter.unwrap_or_else(|| json!({})))).await?;
            print_one(&mut output, format, &answer)?;
        }
        Command::Rewind(args) => rewind::run(&bridge, &mut output, format, args).await?,
        Command::Pull(pull) => pull_events(&bridge, &mut output, pull).await?,
    }
    output.flush()?;
    Ok(Code::Ok)
}

/// Prints events as they come. What was printed is acknowledged by the next call, so that an
/// interruption repeats and never skips.
async fn pull_events(bridge: &Bridge, output: &mut Output, pull: PullArgs) -> anyhow::Result<()> {
    let (limit, mut after) = (pull.limit.to_string(), pull.after);
    loop {
        let mut query = vec![("limit", limit.as_str()), ("wait_s", if pull.follow { WAIT_S } else { "0" })];
        query.extend(after.iter().map(|after| ("after", after.as_str())));
        let page = match bridge.get_with(&["v1", "subscriptions", &pull.id, "events"], &query).await {
            Err(error) if pull.follow && !matches!(error.code(), Code::Refused) => {
                note(format!("{error}; trying again"));
                tokio::time::sleep(PATIENCE).await;
                continue;
            }
            page => page?,
        };
        page.body.as_array().into_iter().flatten().try_for_each(|event| output.object(event))?;
        output.flush()?;
        let cursor = page.cursor.ok_or_else(|| Stop::usage("the answer has no cursor", "is the address the bridge's?"))?;
        if !pull.follow {
            note(format!("To acknowledge these and go on: --after {cursor}"));
            return Ok(());
        }
        after = Some(cursor);
    }
}

async fn list(bridge: &Bridge, output: &mut Output, format: Format, supplier: Option<&str>) -> anyhow::Result<()> {
    let narrowing: Vec<(&str, &str)> = supplier.map(|supplier| ("supplier", supplier)).into_iter().collect();
    let subscriptions = bridge.list_with(&["v1", "subscriptions"], "subscriptions", &narrowing).await?;
    if format == Format::Ndjson {
        return Ok(subscriptions.iter().try_for_each(|subscription| output.object(subscription))?);
    }
    if subscriptions.is_empty() {
        note("There is no subscription. Make one with ryggrad subscriptions create, or try ryggrad listen.");
        return Ok(());
    }
    let members = ["id", "supplier", "state", "withheld_by", "channel", "verification", "types", "sink", "created_at", "description"];
    let shown = |subscription: &Value, member: &str| match member {
        "verification" => cell(&subscription[member], "state"),
        "withheld_by" => cell(&subscription[member], "reason"),
        _ => cell(subscription, member),
    };
    let row = |subscription: &Value| members.iter().map(|member| shown(subscription, member)).collect();
    let header = ["ID", "SUPPLIER", "STATE", "WITHHELD BY", "CHANNEL", "VERIFICATION", "TYPES", "SINK", "CREATED", "DESCRIPTION"];
    Ok(output.table(&header, subscriptions.iter().map(row))?)
}

/// A list as a table, or one object a line.
fn rows(output: &mut Output, format: Format, list: &Value, members: &[&str], none: &str) -> anyhow::Result<()> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    if format == Format::Ndjson {
        return Ok(items.iter().try_for_each(|item| output.object(item))?);
    }
    if items.is_empty() {
        note(none);
        return Ok(());
    }
    table(output, items, members)
}

fn print_one(output: &mut Output, format: Format, subscription: &Value) -> anyhow::Result<()> {
    match format {
        Format::Ndjson => output.object(subscription)?,
        Format::Table => output.pairs(pairs(subscription, &[]))?,
    }
    Ok(())
}

fn show(output: &mut Output, format: Format, subscription: &Value) -> anyhow::Result<()> {
    if format == Format::Ndjson {
        return Ok(output.object(subscription)?);
    }
    let status = &subscription["status"];
    let last = pairs(&status["last_attempt"], &[]).into_iter().map(|(name, value)| (format!("last_attempt.{name}"), value));
    let withheld = pairs(&status["withheld_by"], &[]).into_iter().map(|(name, value)| (format!("withheld_by.{name}"), value));
    let progress = pairs(status, &["partitions", "waiting", "last_attempt", "withheld_by"]);
    let agreed = pairs(&subscription["verification"], &[]).into_iter().map(|(name, value)| (format!("verification.{name}"), value));
    let own = pairs(subscription, &["status", "verification"]);
    output.pairs(own.into_iter().chain(withheld).chain(agreed).chain(progress).chain(last))?;
    section(output, &status["partitions"], &["topic", "partition", "scanned_to", "pending"])?;
    section(output, &status["waiting"], &["key", "since", "attempts", "next_attempt_at", "last_error"])
}

fn section(output: &mut Output, rows: &Value, members: &[&str]) -> anyhow::Result<()> {
    let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
    if rows.is_empty() {
        return Ok(());
    }
    output.line("")?;
    table(output, rows, members)
}

fn table(output: &mut Output, rows: &[Value], members: &[&str]) -> anyhow::Result<()> {
    let header: Vec<String> = members.iter().map(|member| member.to_uppercase().replace('_', " ")).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    Ok(output.table(&header, rows.iter().map(|row| members.iter().map(|member| cell(row, member)).collect()))?)
}

/// The known members first, in their order; then whatever else a newer bridge tells.
fn pairs(object: &Value, without: &[&str]) -> Vec<(String, String)> {
    const FIRST: [&str; 9] = ["id", "organisation", "supplier", "state", "reason", "types", "sink", "start", "description"];
    let empty = Map::new();
    let members = object.as_object().unwrap_or(&empty);
    let known = FIRST.into_iter().filter(|name| members.contains_key(*name));
    let others = members.keys().map(String::as_str).filter(|name| !FIRST.contains(name));
    known
        .chain(others)
        .filter(|name| !without.contains(name))
        .map(|name| (name.to_owned(), cell(object, name)))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::Page;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_dead_letter_is_named_as_it_is_shown() {
        for (line, expected) in [
            ("x redrive s1", Ok(None)),
            ("x redrive s1 grunndata.virksomhet.v1:3:17", Ok(Some(json!({"id": "grunndata.virksomhet.v1:3:17"})))),
            ("x redrive s1 17", Err(2)),
            ("x rotate-secret s1 --overlap never", Err(2)),
        ] {
            let found = Cli::try_parse_from(line.split(' ')).map_err(|error| error.exit_code()).map(|cli| match cli.args.command {
                Command::Redrive { letter, .. } => letter,
                other => panic!("{other:?}"),
            });
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn a_status_shows_progress_and_what_it_waits_for() {
        let subscription = json!({
            "sink": "https://h/", "state": "active", "id": "s1", "reason": null,
            "status": {
                "pending": 2, "delivered": 7, "last_attempt": {"outcome": "failed", "http_status": 500},
                "withheld_by": {"reason": "suspended", "detail": "the membership is suspended"},
                "partitions": [{"topic": "t", "partition": 0, "scanned_to": 9, "pending": 2}],
                "waiting": [{"key": "312345676", "attempts": 3, "last_error": "500"}],
            }
        });
        let page = Page::default();
        show(&mut Output::to(page.clone()), Format::Table, &subscription).unwrap();
        let text = page.text();
        assert!(text.starts_with("id                        s1\nstate                     active\nsink "), "{text}");
        for expected in [
            "withheld_by.reason        suspended",
            "pending                   2",
            "last_attempt.http_status  500",
            "TOPIC  PARTITION  SCANNED TO  PENDING",
            "312345676         3",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }
}
