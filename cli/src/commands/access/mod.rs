//! Who takes part, who acts for whom, what is opened to whom: through the bridge's API.
//!
//! Cast: [`members`], [`delegations`], [`grants`], [`persons`] (relations and blocks), [`history`], [`disclosures`] and
//! [`kafka`], a command each.
//! Must never take a person's pseudonym as an argument, where other users of the machine would see it.

pub mod delegations;
pub mod disclosures;
pub mod grants;
pub mod history;
pub mod kafka;
pub mod members;
pub mod persons;

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use crate::client::Bridge;
use crate::output::{Format, Output, cell, note};

/// When something counts.
#[derive(Debug, ClapArgs)]
pub struct Period {
    /// From when it counts, a time (RFC 3339) [default: now].
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// When it ends, a time (RFC 3339) [default: when it is withdrawn].
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl Period {
    fn put_into(&self, body: &mut Value) {
        put(body, "from", self.from.as_ref());
        put(body, "until", self.until.as_ref());
    }
}

/// Sets a member of a body, if there is a value.
fn put(body: &mut Value, name: &str, value: Option<&String>) {
    if let Some(value) = value {
        body[name] = json!(value);
    }
}

/// What facts of one kind are called, and what is shown of them.
struct Kind {
    /// Its part of the address, and its member of lists.
    plural: &'static str,
    /// One of them.
    noun: &'static str,
    /// What is shown.
    members: &'static [&'static str],
}

impl Kind {
    async fn create(&self, bridge: &Bridge, output: &mut Output, format: Format, body: &Value) -> anyhow::Result<()> {
        let made = bridge.make(&["v1", self.plural], body).await?;
        print_one(output, format, &made, self.members)
    }

    async fn list(&self, bridge: &Bridge, output: &mut Output, format: Format) -> anyhow::Result<()> {
        let found = bridge.list(&["v1", self.plural], self.plural).await?;
        print_all(output, format, &found, self.members, &format!("There is no {} that this token may see.", self.noun))
    }

    async fn show(&self, bridge: &Bridge, output: &mut Output, format: Format, id: &str) -> anyhow::Result<()> {
        print_one(output, format, &bridge.get(&["v1", self.plural, id]).await?, self.members)
    }

    async fn remove(&self, bridge: &Bridge, id: &str) -> anyhow::Result<()> {
        bridge.delete(&["v1", self.plural, id]).await?;
        note(format!("The {} {id} counts no more.", self.noun));
        Ok(())
    }
}

fn print_all(output: &mut Output, format: Format, found: &[Value], members: &[&str], none: &str) -> anyhow::Result<()> {
    if format == Format::Ndjson {
        return Ok(found.iter().try_for_each(|one| output.object(one))?);
    }
    if found.is_empty() {
        note(none);
        return Ok(());
    }
    let header: Vec<String> = members.iter().map(|member| member.to_uppercase().replace('_', " ")).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let row = |one: &Value| members.iter().map(|member| cell(one, member)).collect();
    Ok(output.table(&header, found.iter().map(row))?)
}

fn print_one(output: &mut Output, format: Format, one: &Value, members: &[&str]) -> anyhow::Result<()> {
    match format {
        Format::Ndjson => output.object(one)?,
        Format::Table => {
            let pairs = members.iter().map(|member| ((*member).to_owned(), cell(one, member)));
            output.pairs(pairs.filter(|(_, value)| !value.is_empty()))?;
        }
    }
    Ok(())
}
