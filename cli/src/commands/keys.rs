//! `ryggrad keys`: shows the bridge's keys, and has one take over from another.
//!
//! Works on the files alone; the bridge reads them when it starts. Must never print a secret, nor leave a file without
//! a key that is in use.

use std::path::Path;

use anyhow::ensure;
use clap::Subcommand;
use ryggrad_bridge_core::asymmetric::SigningKeys;
use serde_json::{Value, json};

use crate::commands::frame::Frame;
use crate::exit::Code;
use crate::keys;
use crate::output::{Format, Output, cell, note};
use crate::settings::{Settings, SettingsArgs};

/// What to type for what.
pub const EXAMPLES: &str = "\
EXAMPLES
  Which keys there are, and what each is for:
    ryggrad keys list --data /var/lib/ryggrad

  A new key signs deliveries and records of disclosures (restart the bridge after each):
    ryggrad keys signing add        the new key signs deliveries beside the old one, and is published
    ryggrad keys signing promote    the new key signs the records too; receivers trust it by now
    ryggrad keys signing retire     the old key signs no more; what it has signed still verifies

  A new operator's token (restart the bridge after each):
    ryggrad keys operator replace   both are accepted; put the new one where the old one was used
    ryggrad keys operator retire    the old one is refused

What else can be rotated, and what cannot: docs/how-to/rotate-keys.md

EXIT CODES
  0 done   1 a file cannot be read or written   2 wrong command line   3 there is nothing to do";

/// Its command line.
pub type Args = Frame<Command, SettingsArgs>;

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists keys: their names and public halves
    List,
    /// Rotates the key that signs deliveries and records of disclosures
    #[command(subcommand)]
    Signing(Signing),
    /// Rotates the operator's token
    #[command(subcommand)]
    Operator(Operator),
}

/// Steps of the signing key's rotation.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Signing {
    /// Makes a key that signs deliveries beside the others
    Add,
    /// Makes the newest key the one that signs records of disclosures
    Promote,
    /// Has all but the first sign no more
    Retire,
}

/// Steps of the token's rotation.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Operator {
    /// Makes a token; the old one stays accepted
    Replace,
    /// Has all but the newest refused
    Retire,
}

/// Does what is asked.
pub fn run(args: Args) -> anyhow::Result<Code> {
    let settings = args.options.load()?;
    // Elsewhere a file that is not there is made; here that would be in the wrong folder.
    for file in [&settings.signing_key_file, &settings.operator_token_file, &settings.key_file] {
        ensure!(file.exists(), "there is no {}; is --data the bridge's folder, and has the bridge run?", file.display());
    }
    let (signing, operator) = (settings.signing_key_file.as_path(), settings.operator_token_file.as_path());
    match args.command {
        Command::List => list(&settings, args.format.format),
        Command::Signing(step) => rotate_signing(signing, step),
        Command::Operator(step) => rotate_operator(operator, step),
    }
}

fn list(settings: &Settings, format: Format) -> anyhow::Result<Code> {
    let signing = keys::signing_keys(&settings.signing_key_file)?;
    let file = settings.signing_key_file.display().to_string();
    let row =
        |public: String, name: String, role: &str| json!({"key": "signing", "name": name, "role": role, "public": public, "file": file});
    let roles = ["signs deliveries and records"].into_iter().chain(std::iter::repeat("signs deliveries"));
    let mut rows: Vec<Value> =
        signing.signing().map(|key| key.public()).zip(roles).map(|(key, role)| row(key.to_string(), key.id(), role)).collect();
    rows.extend(signing.former().iter().map(|key| row(key.to_string(), key.id(), "has signed records")));
    let file = settings.operator_token_file.display().to_string();
    for number in 1..=keys::tokens(&settings.operator_token_file)?.len() {
        let role = if number == 1 { "newest" } else { "accepted until it is retired" };
        rows.push(json!({"key": "operator token", "name": number.to_string(), "role": role, "file": file}));
    }
    let file = settings.key_file.display().to_string();
    rows.push(json!({"key": "sealing", "name": "", "role": "seals secrets; never rotated", "file": file}));
    let mut output = Output::stdout();
    if format == Format::Ndjson {
        rows.iter().try_for_each(|row| output.object(row))?;
    } else {
        let columns = ["key", "name", "role", "public", "file"];
        output.table(&["KEY", "NAME", "ROLE", "PUBLIC", "FILE"], rows.iter().map(|row| columns.map(|name| cell(row, name)).to_vec()))?;
    }
    output.flush()?;
    Ok(Code::Ok)
}

fn rotate_signing(path: &Path, step: Signing) -> anyhow::Result<Code> {
    let mut all: SigningKeys = keys::signing_keys(path)?;
    let (is_done, then) = match step {
        Signing::Add => {
            all.add(keys::fresh_signing_key()?);
            (
                true,
                "restart the bridge: deliveries bear both signatures, and the new key is published. Once receivers have it, `ryggrad keys signing promote`",
            )
        }
        Signing::Promote => {
            (all.promote(), "restart the bridge: the new key signs records of disclosures too. Then `ryggrad keys signing retire`")
        }
        Signing::Retire => {
            (all.retire() > 0, "restart the bridge: the old key signs no more. Its public half stays, so that what it has signed verifies")
        }
    };
    if !is_done {
        note("there is one signing key only; begin with `ryggrad keys signing add`");
        return Ok(Code::Refused);
    }
    keys::write_private(path, &all.reveal())?;
    note(then);
    Ok(Code::Ok)
}

fn rotate_operator(path: &Path, step: Operator) -> anyhow::Result<Code> {
    let mut all = keys::tokens(path)?;
    let then = match step {
        Operator::Replace => {
            all.insert(0, keys::fresh_token());
            "restart the bridge: it accepts both. The new token is the file's first line; once everyone has it, `ryggrad keys operator retire`"
        }
        Operator::Retire if all.len() > 1 => {
            all.truncate(1);
            "restart the bridge: it refuses the old token"
        }
        Operator::Retire => {
            note("there is one token only; begin with `ryggrad keys operator replace`");
            return Ok(Code::Refused);
        }
    };
    keys::write_private(path, &(all.join("\n") + "\n"))?;
    note(then);
    Ok(Code::Ok)
}
