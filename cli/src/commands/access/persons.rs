//! `ryggrad relations` and `ryggrad blocks`: who follows a controller's patients, and whose events stay.
//!
//! Pseudonyms come from files and stdin. Must never take one as an argument, nor print one in a note.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};

use super::{Kind, Period, put};
use crate::client::{Bridge, BridgeOptions};
use crate::commands::frame::Frame;
use crate::commands::input;
use crate::exit::Code;
use crate::output::{Format, Output};

/// What to type for what.
pub const RELATION_EXAMPLES: &str = "\
EXAMPLES
  A receiver follows these patients from now on:
    ryggrad relations create --receiver 923609016 pseudonyms.txt

  It does not any more:
    ryggrad relations remove ID

A file has a pseudonym on each line, as the keys of the controller's records have it. For controllers.

EXIT CODES
  0 done   2 wrong command line   3 not found or refused   4 bridge not reached";

/// What to type for what.
pub const BLOCK_EXAMPLES: &str = "\
EXAMPLES
  A patient does not want one receiver to hear of it:
    ryggrad blocks create --receiver 923609016 < pseudonym.txt

  Nor anybody:
    ryggrad blocks create < pseudonym.txt

  It has changed its mind:
    ryggrad blocks remove ID

A file has a pseudonym on each line, as the keys of the controller's records have it. For controllers.

EXIT CODES
  0 done   2 wrong command line   3 not found or refused   4 bridge not reached";

/// The command line of `relations`.
pub type RelationArgs = Frame<Command<RelationCreateArgs>, BridgeOptions>;
/// The command line of `blocks`.
pub type BlockArgs = Frame<Command<BlockCreateArgs>, BridgeOptions>;

const RELATIONS: Kind =
    Kind { plural: "relations", noun: "relation", members: &["id", "subject", "receiver", "from", "until", "changed_at"] };
const BLOCKS: Kind =
    Kind { plural: "blocks", noun: "block", members: &["id", "subject", "receiver", "types", "from", "until", "changed_at"] };

/// What can be done with them.
#[derive(Debug, Subcommand)]
pub enum Command<C: ClapArgs> {
    /// Makes one for each pseudonym.
    Create(C),
    /// Lists the controller's own.
    List,
    /// Shows one.
    Show {
        /// Its id, as `list` shows it.
        id: String,
    },
    /// Ends one.
    Remove {
        /// Its id, as `list` shows it.
        id: String,
    },
}

/// What `relations create` is given.
#[derive(Debug, ClapArgs)]
pub struct RelationCreateArgs {
    /// Who follows.
    #[arg(long, value_name = "ORGANISATION")]
    receiver: String,
    /// A file with a pseudonym on each line; - for stdin.
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    period: Period,
}

/// What `blocks create` is given.
#[derive(Debug, ClapArgs)]
pub struct BlockCreateArgs {
    /// Who gets nothing [default: nobody gets anything].
    #[arg(long, value_name = "ORGANISATION")]
    receiver: Option<String>,
    /// Of which event type, exact or ending in .*; may be repeated [default: of all].
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// A file with a pseudonym on each line; - for stdin.
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    period: Period,
}

/// What each fact says, and whom they are about.
trait Wish {
    fn body(&self) -> Value;
    fn file(&self) -> &Path;
}

impl Wish for RelationCreateArgs {
    fn body(&self) -> Value {
        let mut body = json!({"receiver": self.receiver});
        self.period.put_into(&mut body);
        body
    }

    fn file(&self) -> &Path {
        &self.file
    }
}

impl Wish for BlockCreateArgs {
    fn body(&self) -> Value {
        let mut body = json!({});
        put(&mut body, "receiver", self.receiver.as_ref());
        if !self.types.is_empty() {
            body["types"] = json!(self.types);
        }
        self.period.put_into(&mut body);
        body
    }

    fn file(&self) -> &Path {
        &self.file
    }
}

/// Runs `relations`.
pub async fn run_relations(args: RelationArgs) -> anyhow::Result<Code> {
    carry_out(&RELATIONS, args.options.connect()?, args.format.format, args.command).await
}

/// Runs `blocks`.
pub async fn run_blocks(args: BlockArgs) -> anyhow::Result<Code> {
    carry_out(&BLOCKS, args.options.connect()?, args.format.format, args.command).await
}

async fn carry_out<C: ClapArgs + Wish>(kind: &Kind, bridge: Bridge, format: Format, command: Command<C>) -> anyhow::Result<Code> {
    let mut output = Output::stdout();
    match command {
        Command::Create(create) => {
            for subject in input::read(create.file(), "a text file with a pseudonym on each line")?
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
            {
                let mut body = create.body();
                body["subject"] = json!(subject);
                kind.create(&bridge, &mut output, format, &body).await?;
            }
        }
        Command::List => kind.list(&bridge, &mut output, format).await?,
        Command::Show { id } => kind.show(&bridge, &mut output, format, &id).await?,
        Command::Remove { id } => kind.remove(&bridge, &id).await?,
    }
    output.flush()?;
    Ok(Code::Ok)
}
