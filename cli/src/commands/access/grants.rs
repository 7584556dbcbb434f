//! `ryggrad grants`: what is opened to whom.

use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;

use super::{Kind, Period, put};
use crate::client::BridgeOptions;
use crate::commands::frame::Frame;
use crate::exit::Code;
use crate::output::Output;

/// What to type for what.
pub const EXAMPLES: &str = "\
EXAMPLES
  Open what registries publish to an organisation, as an operator:
    ryggrad grants create --receiver 312345676 --type 'no.ryggrad.grunndata.*' --view full

  Open one's own data, as the controller:
    ryggrad grants create --receiver 312345676 --type 'no.ryggrad.*' --view slim --until 2027-01-01T00:00:00Z

  Take it back at once:
    ryggrad grants remove ID

EXIT CODES
  0 done   2 wrong command line   3 not found or refused   4 bridge not reached";

/// Its command line.
pub type Args = Frame<Command, BridgeOptions>;

const KIND: Kind =
    Kind { plural: "grants", noun: "grant", members: &["id", "controller", "receiver", "types", "view", "from", "until", "changed_at"] };

/// What can be done with grants.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Opens types to a receiver.
    Create(CreateArgs),
    /// Lists grants by and to the organisation.
    List,
    /// Shows one.
    Show {
        /// Its id, as `list` shows it.
        id: String,
    },
    /// Takes one back.
    Remove {
        /// Its id, as `list` shows it.
        id: String,
    },
}

/// What `create` is given.
#[derive(Debug, ClapArgs)]
pub struct CreateArgs {
    /// Whose data [default: the token's organisation; registries' for operators].
    #[arg(long, value_name = "ORGANISATION")]
    controller: Option<String>,
    /// Who gets it.
    #[arg(long, value_name = "ORGANISATION")]
    receiver: String,
    /// Which event type, exact or ending in .*; may be repeated.
    #[arg(long = "type", value_name = "TYPE", required = true)]
    types: Vec<String>,
    /// In which view.
    #[arg(long, value_name = "VIEW")]
    view: String,
    #[command(flatten)]
    period: Period,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Code> {
    let (bridge, mut output, format) = (args.options.connect()?, Output::stdout(), args.format.format);
    match args.command {
        Command::Create(create) => {
            let mut body = json!({"receiver": create.receiver, "types": create.types, "view": create.view});
            put(&mut body, "controller", create.controller.as_ref());
            create.period.put_into(&mut body);
            KIND.create(&bridge, &mut output, format, &body).await?;
        }
        Command::List => KIND.list(&bridge, &mut output, format).await?,
        Command::Show { id } => KIND.show(&bridge, &mut output, format, &id).await?,
        Command::Remove { id } => KIND.remove(&bridge, &id).await?,
    }
    output.flush()?;
    Ok(Code::Ok)
}
