//! `ryggrad tokens`: locally issued access tokens, for the operator.
//!
//! A token is printed once, by `issue`; the bridge keeps only its hash.

use clap::{Args as ClapArgs, Subcommand};
use ryggrad_consumers::duration_ms;
use serde_json::{Value, json};

use crate::client::{Bridge, OperatorOptions};
use crate::commands::frame::Frame;
use crate::exit::Code;
use crate::output::{Format, Output, cell, note};

/// What to type for what.
pub const EXAMPLES: &str = "\
EXAMPLES
  A token for an organisation, valid for a month:
    ryggrad tokens issue --organisation 312345676 --expires-in 30d

  Put it into a variable:
    RYGGRAD_TOKEN=$(ryggrad tokens issue --organisation 312345676 -o ndjson | jq -r .token)

  A token for a supplier that acts for it, once the organisation has delegated (ryggrad delegations):
    ryggrad tokens issue --organisation 312345676 --supplier 923609016

  A token that sees everyone's subscriptions and issues tokens:
    ryggrad tokens issue --organisation 312345676 --role operate

  Take one back at once:
    ryggrad tokens revoke ID

EXIT CODES
  0 done   2 wrong command line   3 not found or refused   4 bridge not reached";

/// Its command line.
pub type Args = Frame<Command, OperatorOptions>;

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Issues a token and shows it, once.
    #[command(visible_alias = "create")]
    Issue(IssueArgs),
    /// Lists tokens, never the tokens themselves.
    List,
    /// Revokes a token; its next call is refused.
    Revoke {
        /// The token's id, as `list` shows it.
        id: String,
    },
}

/// What `issue` is given.
#[derive(Debug, ClapArgs)]
pub struct IssueArgs {
    /// The organisation that will act with it, or that is acted for.
    #[arg(long, value_name = "ORGANISATION")]
    organisation: String,
    /// The supplier that will act with it for that organisation.
    #[arg(long, value_name = "ORGANISATION")]
    supplier: Option<String>,
    /// What it may do; may be repeated [default: subscribe].
    #[arg(long = "role", value_name = "ROLE", value_parser = ["subscribe", "publish", "operate", "audit"])]
    roles: Vec<String>,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// How long it is valid, e.g. 12h or 30d; the bridge decides otherwise.
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    expires_in: Option<i64>,
}

fn seconds(text: &str) -> Result<i64, String> {
    match duration_ms(text) {
        Ok(ms) if ms >= 1_000 => Ok(ms / 1_000),
        Ok(_) => Err("a token is valid for a second at least".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Code> {
    let bridge = args.options.connect()?;
    let mut output = Output::stdout();
    match args.command {
        Command::Issue(issue) => {
            let issued = bridge.make(&["v1", "tokens"], &body(&issue)).await?;
            match args.format.format {
                Format::Ndjson => output.object(&issued)?,
                Format::Table => {
                    let pairs = ["id", "organisation", "supplier", "roles", "expires_at", "token"]
                        .map(|name| (name.to_owned(), cell(&issued, name)));
                    output.pairs(pairs.into_iter().filter(|(_, value)| !value.is_empty()))?;
                }
            }
            note("Keep the token: it is shown this once.");
        }
        Command::List => list(&bridge, &mut output, args.format.format).await?,
        Command::Revoke { id } => {
            bridge.delete(&["v1", "tokens", &id]).await?;
            note(format!("The token {id} is revoked."));
        }
    }
    output.flush()?;
    Ok(Code::Ok)
}

fn body(issue: &IssueArgs) -> Value {
    let mut body = json!({ "organisation": issue.organisation });
    if let Some(supplier) = &issue.supplier {
        body["supplier"] = json!(supplier);
    }
    if !issue.roles.is_empty() {
        body["roles"] = json!(issue.roles);
    }
    if let Some(description) = &issue.description {
        body["description"] = json!(description);
    }
    if let Some(expires_in_s) = issue.expires_in {
        body["expires_in_s"] = json!(expires_in_s);
    }
    body
}

async fn list(bridge: &Bridge, output: &mut Output, format: Format) -> anyhow::Result<()> {
    let tokens = bridge.list(&["v1", "tokens"], "tokens").await?;
    if format == Format::Ndjson {
        return Ok(tokens.iter().try_for_each(|token| output.object(token))?);
    }
    let members = ["id", "organisation", "supplier", "roles", "created_at", "expires_at", "revoked", "description"];
    let row = |token: &Value| members.iter().map(|member| cell(token, member)).collect();
    Ok(output
        .table(&["ID", "ORGANISATION", "SUPPLIER", "ROLES", "CREATED", "EXPIRES", "REVOKED", "DESCRIPTION"], tokens.iter().map(row))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_asked_for_in_seconds() {
        let issue = IssueArgs {
            organisation: "312345676".to_owned(),
            supplier: Some("923609016".to_owned()),
            roles: vec!["operate".to_owned()],
            description: Some("d".to_owned()),
            expires_in: Some(3_600),
        };
        let asked = json!({
            "organisation": "312345676", "supplier": "923609016", "roles": ["operate"], "description": "d", "expires_in_s": 3_600,
        });
        assert_eq!(body(&issue), asked);
        let bare = IssueArgs { supplier: None, roles: Vec::new(), description: None, expires_in: None, ..issue };
        assert_eq!(body(&bare), json!({"organisation": "312345676"}));
        for (text, expected) in [("1h", Some(3_600)), ("30d", Some(2_592_000)), ("250ms", None), ("1mo", None), ("7", None)] {
            assert_eq!(seconds(text).ok(), expected, "{text}");
        }
    }
}
