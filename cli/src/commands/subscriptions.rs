//! `ryggrad subscriptions`: who gets what where, through the bridge's API.
//!
//! The signing secret is printed once, by `create`, since the bridge never tells it again.

use clap::{ArgGroup, Args as ClapArgs, Subcommand};
use serde_json::{Map, Value, json};

use crate::client::{Bridge, BridgeOptions, Token, subscription_start};
use crate::exit::Code;
use crate::output::{Format, FormatOption, Output, cell, note};

const EXAMPLES: &str = "\
EXAMPLES
  Send every change from now on to an endpoint of yours:
    ryggrad subscriptions create --sink https://mottaker.example.no/hendelser

  The same, with everything from the beginning, and keep the secret:
    ryggrad subscriptions create --sink https://mottaker.example.no/hendelser \\
        --start beginning -o ndjson | jq -r .secret

  Who is behind, and why?
    ryggrad subscriptions list
    ryggrad subscriptions show ID

  The endpoint has moved; what is being retried goes there too:
    ryggrad subscriptions update ID --sink https://ny.example.no/hendelser

EXIT CODES
  0 done   2 wrong command line   3 not found or refused   4 bridge not reached";

/// Creates, shows and controls subscriptions.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    format: FormatOption,
    #[command(flatten)]
    bridge: BridgeOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Creates a subscription and shows its signing secret, once.
    Create(CreateArgs),
    /// Lists the organisation's subscriptions.
    List,
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
}

#[derive(Debug, ClapArgs)]
struct Id {
    /// The subscription's id, as `list` shows it.
    id: String,
}

#[derive(Debug, ClapArgs)]
struct CreateArgs {
    /// Where to send events: the endpoint's URL.
    #[arg(long, value_name = "URL")]
    sink: String,
    /// Event types, exact or a prefix ending in `.*`; several with commas, or repeated.
    #[arg(long, value_name = "TYPE", value_delimiter = ',', default_value = "no.ryggrad.*")]
    types: Vec<String>,
    /// Where to start: now, beginning, a time (RFC 3339), or how long ago (15m, 2h, 1d).
    #[arg(long, value_name = "WHEN", default_value = "now", value_parser = subscription_start)]
    start: String,
    /// What it is for, in words that colleagues understand.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// A signing secret of your own (whsec_…); the bridge draws one otherwise.
    #[arg(long, value_name = "SECRET", env = "RYGGRAD_WEBHOOK_SECRET", hide_env_values = true)]
    secret: Option<Token>,
}

#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
struct UpdateArgs {
    /// The subscription's id, as `list` shows it.
    id: String,
    /// Where to send events from now on, also those that are being retried.
    #[arg(long, visible_alias = "url", value_name = "URL", group = "change")]
    sink: Option<String>,
    /// Event types from now on; several with commas, or repeated.
    #[arg(long, value_name = "TYPE", value_delimiter = ',', group = "change")]
    types: Option<Vec<String>>,
    /// What it is for; an empty text takes the description away.
    #[arg(long, value_name = "TEXT", group = "change")]
    description: Option<String>,
    /// Another signing secret (whsec_…), which signs from now on.
    #[arg(long, value_name = "SECRET", group = "change")]
    secret: Option<Token>,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Code> {
    let bridge = args.bridge.connect()?;
    let mut output = Output::stdout();
    let format = args.format.format;
    match args.command {
        Command::Create(create) => {
            let created = bridge.post(&["v1", "subscriptions"], Some(&body(&create))).await?;
            print_one(&mut output, format, &created)?;
            note("Keep the secret: it is shown this once. The endpoint verifies webhook-signature with it.");
        }
        Command::List => list(&bridge, &mut output, format).await?,
        Command::Show(Id { id }) => show(&mut output, format, &bridge.get(&["v1", "subscriptions", &id]).await?)?,
        Command::Update(update) => {
            let changed = bridge.patch(&["v1", "subscriptions", &update.id], &patch(&update)).await?;
            print_one(&mut output, format, &changed)?;
        }
        Command::Pause(Id { id }) => print_one(&mut output, format, &bridge.post(&["v1", "subscriptions", &id, "pause"], None).await?)?,
        Command::Resume(Id { id }) => print_one(&mut output, format, &bridge.post(&["v1", "subscriptions", &id, "resume"], None).await?)?,
        Command::Delete(Id { id }) => {
            bridge.delete(&["v1", "subscriptions", &id]).await?;
            note(format!("The subscription {id} is deleted."));
        }
    }
    output.flush()?;
    Ok(Code::Ok)
}

fn body(create: &CreateArgs) -> Value {
    let mut body = json!({ "types": create.types, "sink": create.sink, "start": create.start });
    if let Some(description) = &create.description {
        body["description"] = json!(description);
    }
    if let Some(secret) = create.secret.as_ref().filter(|secret| !secret.is_empty()) {
        body["secret"] = json!(secret.reveal());
    }
    body
}

fn patch(update: &UpdateArgs) -> Value {
    let mut patch = json!({});
    if let Some(sink) = &update.sink {
        patch["sink"] = json!(sink);
    }
    if let Some(types) = &update.types {
        patch["types"] = json!(types);
    }
    if let Some(description) = &update.description {
        patch["description"] = if description.is_empty() { Value::Null } else { json!(description) };
    }
    if let Some(secret) = &update.secret {
        patch["secret"] = json!(secret.reveal());
    }
    patch
}

async fn list(bridge: &Bridge, output: &mut Output, format: Format) -> anyhow::Result<()> {
    let answer = bridge.get(&["v1", "subscriptions"]).await?;
    let subscriptions = answer["subscriptions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if format == Format::Ndjson {
        return Ok(subscriptions.iter().try_for_each(|subscription| output.object(subscription))?);
    }
    if subscriptions.is_empty() {
        note("There is no subscription. Make one with ryggrad subscriptions create, or try ryggrad listen.");
        return Ok(());
    }
    let members = ["id", "state", "types", "sink", "created_at", "description"];
    let row = |subscription: &Value| members.iter().map(|member| cell(subscription, member)).collect();
    Ok(output.table(&["ID", "STATE", "TYPES", "SINK", "CREATED", "DESCRIPTION"], subscriptions.iter().map(row))?)
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
    let progress = pairs(status, &["partitions", "waiting", "last_attempt"]);
    output.pairs(pairs(subscription, &["status"]).into_iter().chain(progress).chain(last))?;
    section(output, &status["partitions"], &["topic", "partition", "scanned_to", "pending"])?;
    section(output, &status["waiting"], &["key", "since", "attempts", "next_attempt_at", "last_error"])
}

fn section(output: &mut Output, rows: &Value, members: &[&str]) -> anyhow::Result<()> {
    let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
    if rows.is_empty() {
        return Ok(());
    }
    let header: Vec<String> = members.iter().map(|member| member.to_uppercase().replace('_', " ")).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    output.line("")?;
    Ok(output.table(&header, rows.iter().map(|row| members.iter().map(|member| cell(row, member)).collect()))?)
}

/// The known members first, in their order; then whatever else a newer bridge tells.
fn pairs(object: &Value, without: &[&str]) -> Vec<(String, String)> {
    const FIRST: [&str; 8] = ["id", "organisation", "state", "reason", "types", "sink", "start", "description"];
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

    fn create(line: &str) -> CreateArgs {
        match Cli::try_parse_from(line.split(' ')).unwrap().args.command {
            Command::Create(create) => create,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_body_holds_what_was_given_and_defaults_to_everything_from_now_on() {
        assert_eq!(body(&create("x create --sink https://h/")), json!({"types": ["no.ryggrad.*"], "sink": "https://h/", "start": "now"}));
        assert_eq!(
            body(&create("x create --sink https://h/ --types a,b.* --types c --start beginning --description d --secret whsec_s")),
            json!({"types": ["a", "b.*", "c"], "sink": "https://h/", "start": "beginning", "description": "d", "secret": "whsec_s"})
        );
    }

    #[test]
    fn a_patch_holds_what_was_given_and_nothing_is_a_usage_error() {
        let update = |line: &str| match Cli::try_parse_from(line.split(' ')).unwrap().args.command {
            Command::Update(update) => patch(&update),
            other => panic!("{other:?}"),
        };
        assert_eq!(update("x update s1 --url https://h/"), json!({"sink": "https://h/"}));
        assert_eq!(
            update("x update s1 --types a,b.* --description= --secret whsec_s"),
            json!({"types": ["a", "b.*"], "description": null, "secret": "whsec_s"})
        );
        assert_eq!(Cli::try_parse_from(["x", "update", "s1"]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_bad_start_is_a_usage_error() {
        assert_eq!(Cli::try_parse_from(["x", "create", "--sink", "s", "--start", "17"]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_status_shows_progress_and_what_it_waits_for() {
        let subscription = json!({
            "sink": "https://h/", "state": "active", "id": "s1", "reason": null,
            "status": {
                "pending": 2, "delivered": 7, "last_attempt": {"outcome": "failed", "http_status": 500},
                "partitions": [{"topic": "t", "partition": 0, "scanned_to": 9, "pending": 2}],
                "waiting": [{"key": "312345676", "attempts": 3, "last_error": "500"}],
            }
        });
        let page = Page::default();
        show(&mut Output::to(page.clone()), Format::Table, &subscription).unwrap();
        let text = page.text();
        assert!(text.starts_with("id                        s1\nstate                     active\nsink "), "{text}");
        for expected in
            ["pending                   2", "last_attempt.http_status  500", "TOPIC  PARTITION  SCANNED TO  PENDING", "312345676         3"]
        {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }
}
