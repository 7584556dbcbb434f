//! `ryggrad members`: organisations that take part, and what they lack.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};

use super::{print_all, print_one};
use crate::client::{Bridge, OperatorOptions, is_not_found};
use crate::commands::frame::Frame;
use crate::commands::input;
use crate::exit::{Code, Stop};
use crate::output::{Format, Output, note};

/// What to type for what.
pub const EXAMPLES: &str = "\
EXAMPLES
  Enter an organisation, with its agreement, its grounds and its declaration on Normen in a file:
    ryggrad members set 312345676 member.json --standing active

  Stop one, and let it go on where it was:
    ryggrad members set 312345676 --standing suspended
    ryggrad members set 312345676 --standing active

  What stands between an organisation (or a supplier that acts for it) and a type:
    ryggrad members lacks 312345676 --type no.ryggrad.grunndata.virksomhet.endret.v1
    ryggrad members lacks 312345676 --type no.ryggrad.grunndata.virksomhet.endret.v1 --supplier 923609016

Operators change members; an organisation's own token shows what concerns it.

EXIT CODES
  0 done   2 wrong command line   3 not found or refused   4 bridge not reached";

/// Its command line.
pub type Args = Frame<Command, OperatorOptions>;

const MEMBERS: [&str; 8] = ["organisation", "standing", "is_controller", "agreement", "bases", "normen", "contact_points", "changed_at"];

/// What can be done with members.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists members.
    List,
    /// Shows one.
    Show {
        /// The organisation.
        organisation: String,
    },
    /// Enters an organisation, or changes what is known of it.
    Set(SetArgs),
    /// Takes an organisation out; it still gets what is open.
    Remove {
        /// The organisation.
        organisation: String,
    },
    /// Tells what stands between an organisation and a type.
    Lacks {
        /// The organisation.
        organisation: String,
        /// The event type.
        #[arg(long = "type", value_name = "TYPE")]
        ce_type: String,
        /// Who is to act for it.
        #[arg(long, value_name = "ORGANISATION")]
        supplier: Option<String>,
    },
}

/// What `set` is given.
#[derive(Debug, ClapArgs)]
pub struct SetArgs {
    /// The organisation.
    organisation: String,
    /// A JSON file with all that is to be known of it; - for stdin [default: what is known].
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// How it stands.
    #[arg(long, value_name = "STANDING", value_parser = ["candidate", "active", "suspended", "expelled"])]
    standing: Option<String>,
    /// Whether it is responsible for data of its own (dataansvarlig).
    #[arg(long, value_name = "YES")]
    controller: Option<bool>,
    /// Where people reach it; may be repeated, and replaces those that are known.
    #[arg(long = "contact", value_name = "TEXT")]
    contacts: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Code> {
    let bridge = args.options.connect()?;
    let mut output = Output::stdout();
    let format = args.format.format;
    match args.command {
        Command::List => {
            let found = bridge.list(&["v1", "members"], "members").await?;
            let shown = ["organisation", "standing", "is_controller", "contact_points", "changed_at"];
            print_all(&mut output, format, &found, &shown, "There is no member that this token may see.")?;
        }
        Command::Show { organisation } => {
            print_one(&mut output, format, &bridge.get(&["v1", "members", &organisation]).await?, &MEMBERS)?;
        }
        Command::Set(set) => print_one(&mut output, format, &change(&bridge, &set).await?, &MEMBERS)?,
        Command::Remove { organisation } => {
            bridge.delete(&["v1", "members", &organisation]).await?;
            note(format!("{organisation} is no member any more."));
        }
        Command::Lacks { organisation, ce_type, supplier } => {
            let query: Vec<(&str, &str)> = [("type", Some(ce_type.as_str())), ("supplier", supplier.as_deref())]
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
            let answer = bridge.get_with(&["v1", "members", &organisation, "lacks"], &query).await?.body;
            match format {
                Format::Ndjson => output.object(&answer)?,
                Format::Table => {
                    let lacks = answer["lacks"].as_array().map_or(&[][..], Vec::as_slice);
                    print_all(&mut output, format, lacks, &["reason", "detail"], "Nothing stands in the way.")?;
                }
            }
        }
    }
    output.flush()?;
    Ok(Code::Ok)
}

/// Puts the member as it is to be. What is known is read first, and must be the same still.
async fn change(bridge: &Bridge, set: &SetArgs) -> anyhow::Result<Value> {
    let path = ["v1", "members", &set.organisation];
    let (known, tag) = match bridge.get_with(&path, &[]).await {
        Ok(page) => (page.body, page.tag),
        Err(error) if is_not_found(&error) => (json!({ "standing": "candidate" }), None),
        Err(error) => return Err(error.into()),
    };
    let given = set.file.as_deref().map(read).transpose()?;
    let body = wanted(given.unwrap_or(known), set);
    Ok(bridge.put(&path, &body, tag.as_deref()).await?)
}

fn wanted(mut body: Value, set: &SetArgs) -> Value {
    if let Value::Object(members) = &mut body {
        // What the bridge adds when it shows a member.
        members.remove("organisation");
        members.remove("changed_at");
        super::put(&mut body, "standing", set.standing.as_ref());
        if let Some(controller) = set.controller {
            body["is_controller"] = json!(controller);
        }
        if !set.contacts.is_empty() {
            body["contact_points"] = json!(set.contacts);
        }
    }
    body
}

fn read(file: &std::path::Path) -> anyhow::Result<Value> {
    let text = input::read(file, "a JSON file")?;
    let remedy = "write it as ryggrad members show ORGANISATION -o ndjson prints one";
    Ok(serde_json::from_str(&text).map_err(|error| Stop::usage(format!("{} is no JSON: {error}", file.display()), remedy))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_changes_one_thing_and_leaves_the_others() {
        let set = SetArgs {
            organisation: "312345676".to_owned(),
            file: None,
            standing: Some("suspended".to_owned()),
            controller: None,
            contacts: Vec::new(),
        };
        let known = json!({"organisation": "312345676", "standing": "active", "is_controller": true, "changed_at": "2026-01-01T00:00:00Z"});
        assert_eq!(wanted(known.clone(), &set), json!({"standing": "suspended", "is_controller": true}));
        let set = SetArgs { standing: None, controller: Some(false), contacts: vec!["a".to_owned()], ..set };
        assert_eq!(wanted(known, &set), json!({"standing": "active", "is_controller": false, "contact_points": ["a"]}));
    }
}
