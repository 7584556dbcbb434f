//! `ryggrad delegations`: suppliers that act for organisations.

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
  Let a supplier act for one's organisation until the contract ends:
    ryggrad delegations create --supplier 923609016 --type 'no.ryggrad.*' --until 2027-01-01T00:00:00Z

  The same as an operator, for an organisation:
    ryggrad delegations create --organisation 312345676 --supplier 923609016 --type 'no.ryggrad.*'

  End it at once:
    ryggrad delegations remove ID

EXIT CODES
  0 done   2 wrong command line   3 not found or refused   4 bridge not reached";

/// Its command line.
pub type Args = Frame<Command, BridgeOptions>;

const KIND: Kind = Kind {
    plural: "delegations",
    noun: "delegation",
    members: &["id", "organisation", "supplier", "types", "from", "until", "changed_at"],
};

/// What can be done with delegations.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lets a supplier act.
    Create(CreateArgs),
    /// Lists delegations by and to the organisation.
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

/// What `create` is given.
#[derive(Debug, ClapArgs)]
pub struct CreateArgs {
    /// For whom [default: the token's organisation].
    #[arg(long, value_name = "ORGANISATION")]
    organisation: Option<String>,
    /// Who acts.
    #[arg(long, value_name = "ORGANISATION")]
    supplier: String,
    /// For which event type, exact or ending in .*; may be repeated.
    #[arg(long = "type", value_name = "TYPE", required = true)]
    types: Vec<String>,
    #[command(flatten)]
    period: Period,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Code> {
    let (bridge, mut output, format) = (args.options.connect()?, Output::stdout(), args.format.format);
    match args.command {
        Command::Create(create) => {
            let mut body = json!({"supplier": create.supplier, "types": create.types});
            put(&mut body, "organisation", create.organisation.as_ref());
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
