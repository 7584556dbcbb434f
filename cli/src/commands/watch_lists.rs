//! `ryggrad watch-lists`: the keys that an organisation wants to hear of, through the bridge's API.
//!
//! Keys come from files and stdin. Must never take one as an argument, where other users of the
//! machine and the shell's history would see it, nor print one.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};

use crate::client::{Bridge, BridgeOptions};
use crate::commands::frame::Frame;
use crate::commands::input;
use crate::exit::Code;
use crate::output::{Format, Output, cell, note};

/// What to type for what.
pub const EXAMPLES: &str = "\
EXAMPLES
  A list of organisations, and a subscription that hears of them alone:
    ryggrad watch-lists create --description 'our suppliers'
    ryggrad watch-lists replace ID suppliers.txt
    ryggrad subscriptions create --sink https://mottaker.example.no/hendelser --watch-list ID

  Some more, and some less; they count for what happens from then on:
    ryggrad watch-lists add ID new.txt
    cut -d, -f1 gone.csv | ryggrad watch-lists remove ID

  How many keys it has; the keys themselves are never shown:
    ryggrad watch-lists show ID

A file has a key on each line.

EXIT CODES
  0 done   2 wrong command line   3 not found or refused   4 bridge not reached";

/// Keys of one call: its body stays below the bridge's limit for a request.
const KEYS_AT_A_TIME: usize = 4_000;

/// Its command line.
pub type Args = Frame<Command, BridgeOptions>;

/// What can be done with watch lists.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Creates a list without keys.
    Create {
        /// What its keys are.
        #[arg(long, value_name = "DOMAIN", default_value = "organisasjonsnummer")]
        domain: String,
        /// What it is for, in words that colleagues understand.
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Lists the organisation's watch lists.
    List,
    /// Shows one of them, without its keys.
    Show {
        /// The list's id, as `list` shows it.
        id: String,
    },
    /// Adds keys.
    Add(Keys),
    /// Takes keys out.
    Remove(Keys),
    /// Replaces all keys in one step.
    Replace(Keys),
    /// Deletes a list that no subscription uses.
    Delete {
        /// The list's id, as `list` shows it.
        id: String,
    },
}

/// A list, and where keys are.
#[derive(Debug, ClapArgs)]
pub struct Keys {
    /// The list's id, as `list` shows it.
    id: String,
    /// A file with a key on each line; - for stdin.
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
}

impl Keys {
    fn read(&self) -> anyhow::Result<String> {
        input::read(&self.file, "a text file with a key on each line")
    }
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Code> {
    let bridge = args.options.connect()?;
    let mut output = Output::stdout();
    let format = args.format.format;
    match args.command {
        Command::Create { domain, description } => {
            let mut body = json!({ "domain": domain });
            if let Some(description) = description {
                body["description"] = json!(description);
            }
            print_one(&mut output, format, &bridge.make(&["v1", "watch-lists"], &body).await?)?;
        }
        Command::List => list(&bridge, &mut output, format).await?,
        Command::Show { id } => print_one(&mut output, format, &bridge.get(&["v1", "watch-lists", &id]).await?)?,
        Command::Add(keys) => print_one(&mut output, format, &change(&bridge, &keys, "add").await?)?,
        Command::Remove(keys) => print_one(&mut output, format, &change(&bridge, &keys, "remove").await?)?,
        Command::Replace(keys) => {
            let replaced = bridge.put_lines(&["v1", "watch-lists", &keys.id, "keys"], keys.read()?).await?;
            print_one(&mut output, format, &replaced)?;
        }
        Command::Delete { id } => {
            bridge.delete(&["v1", "watch-lists", &id]).await?;
            note(format!("The watch list {id} is deleted."));
        }
    }
    output.flush()?;
    Ok(Code::Ok)
}

/// Adds or removes in as many calls as it takes. Each can be done again without harm.
async fn change(bridge: &Bridge, keys: &Keys, what: &str) -> anyhow::Result<Value> {
    let text = keys.read()?;
    let all: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut changed = bridge.get(&["v1", "watch-lists", &keys.id]).await?;
    for (index, some) in all.chunks(KEYS_AT_A_TIME).enumerate() {
        let answer = bridge.post(&["v1", "watch-lists", &keys.id, "keys"], Some(&json!({ what: some }))).await;
        if answer.is_err() && index > 0 {
            note(format!("The first {} keys are done; it can all be done again without harm.", index * KEYS_AT_A_TIME));
        }
        changed = answer?;
    }
    Ok(changed)
}

async fn list(bridge: &Bridge, output: &mut Output, format: Format) -> anyhow::Result<()> {
    let lists = bridge.list(&["v1", "watch-lists"], "watch_lists").await?;
    if format == Format::Ndjson {
        return Ok(lists.iter().try_for_each(|list| output.object(list))?);
    }
    if lists.is_empty() {
        note("There is no watch list. Make one with ryggrad watch-lists create.");
        return Ok(());
    }
    let row = |list: &Value| MEMBERS.iter().map(|member| cell(list, member)).collect();
    Ok(output.table(&["ID", "DOMAIN", "KEYS", "GENERATION", "UPDATED", "DESCRIPTION"], lists.iter().map(row))?)
}

const MEMBERS: [&str; 6] = ["id", "domain", "keys_count", "generation", "updated_at", "description"];

fn print_one(output: &mut Output, format: Format, list: &Value) -> anyhow::Result<()> {
    match format {
        Format::Ndjson => output.object(list)?,
        Format::Table => {
            let pairs = MEMBERS.map(|member| (member.to_owned(), cell(list, member)));
            output.pairs(pairs.into_iter().filter(|(_, value)| !value.is_empty()))?;
        }
    }
    Ok(())
}
