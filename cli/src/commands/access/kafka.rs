//! `ryggrad access`: what members and delegations say, as topics, ACLs and quotas of Kafka.
//!
//! Shows before it changes. Must never take away what somebody else has set, unless told to.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use jiff::Timestamp;
use ryggrad_bridge_core::access::kafka_access::{self, Binding, Change, Outlet, Parties, Quota, Rights};
use ryggrad_bridge_core::access::{Delegation, Member, Period};
use ryggrad_log::access_control::AccessControl;
use ryggrad_log::topics::{self, State};
use ryggrad_log::{AuthorityError, Connection, LocalAuthority};
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::catalogue::{Latch, Topic};
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Bridge, KafkaAndOperatorOptions};
use crate::commands::frame::Frame;
use crate::exit::{Code, Stop};
use crate::output::{Format, Output, note};

/// What to type for what.
pub const EXAMPLES: &str = "\
EXAMPLES
  What would change at Kafka?
    ryggrad access plan

  Do it; as often as you like, say every minute, since periods begin and end by themselves:
    ryggrad access apply --yes

  Take away, too, what somebody else has set on Ryggrad's topics:
    ryggrad access apply --prune

  With ./ryggrad up --secure: a certificate to try things out with:
    ryggrad access certificate --organisation 312345676 --out my-certificates

EXIT CODES
  0 done, or nothing to change   1 failed   2 wrong command line   3 refused   4 bridge or Kafka not reached
  5 there is something to change (plan), or it was not wanted (apply)";

/// Its command line.
pub type Args = Frame<Command, KafkaAndOperatorOptions>;

/// What can be done about access.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows what would change. Changes nothing.
    Plan {
        #[command(flatten)]
        limits: Limits,
    },
    /// Shows what will change, asks, and does it.
    Apply {
        #[command(flatten)]
        limits: Limits,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// Take away what somebody else has set on these topics, too.
        #[arg(long)]
        prune: bool,
        /// How many brokers hold each record of topics that are made.
        #[arg(long, value_name = "BROKERS", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
        replication: i32,
    },
    /// Issues a certificate from the authority of a local broker (up --secure), for trials.
    Certificate {
        /// For whom.
        #[arg(long)]
        organisation: Organisasjonsnummer,
        /// Folder to write it into.
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
}

/// How much each organisation may ask of a broker.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Limits {
    /// Bytes a second that an organisation may fetch from each broker.
    #[arg(long, value_name = "BYTES", env = "RYGGRAD_ACCESS_CONSUMER_BYTE_RATE", default_value_t = Quota::default().consumer_byte_rate)]
    consumer_byte_rate: u64,
    /// Share of one broker thread that its requests may take, in percent.
    #[arg(long, value_name = "PERCENT", env = "RYGGRAD_ACCESS_REQUEST_PERCENTAGE", default_value_t = Quota::default().request_percentage)]
    request_percentage: u64,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Code> {
    let connection = args.options.connection()?;
    let (mut output, format) = (Output::stdout(), args.format.format);
    let code = match args.command {
        Command::Certificate { organisation, out } => certificate(&connection, organisation, &out)?,
        Command::Plan { limits } => {
            let plan = Plan::make(&connection, &args.options.connect()?, limits).await?;
            plan.print(&mut output, format)?;
            if plan.is_empty() { Code::Ok } else { Code::Differs }
        }
        Command::Apply { limits, yes, prune, replication } => {
            let mut plan = Plan::make(&connection, &args.options.connect()?, limits).await?;
            plan.print(&mut output, format)?;
            output.flush()?;
            if !prune {
                plan.changes.retain(|change| !matches!(change, Change::Prune(_)));
            }
            if plan.is_empty() {
                Code::Ok
            } else if yes || agreed()? {
                plan.carry_out(&connection, replication).await?;
                Code::Ok
            } else {
                Code::Differs
            }
        }
    };
    output.flush()?;
    Ok(code)
}

/// What the services of `up --secure` need before they start.
pub async fn set_up_services(connection: &Connection) -> anyhow::Result<()> {
    let catalogue = Catalogue::built_in();
    let mut control = AccessControl::connect(connection).await?;
    let found = control.rights().await?.bindings;
    let missing: Vec<Change> = kafka_access::of_services(catalogue).difference(&found).cloned().map(Change::Add).collect();
    Ok(control.apply(&missing).await?)
}

struct Plan {
    missing_topics: Vec<String>,
    changes: Vec<Change>,
}

impl Plan {
    async fn make(connection: &Connection, bridge: &Bridge, limits: Limits) -> anyhow::Result<Self> {
        let catalogue = Catalogue::built_in();
        // Whoever may not list tokens sees some of the members only, and would take the others' rights away.
        bridge.get(&["v1", "tokens"]).await?;
        let members = bridge.list(&["v1", "members"], "members").await?.into_iter().map(member).collect::<anyhow::Result<Vec<_>>>()?;
        let delegations = bridge.list(&["v1", "delegations"], "delegations").await?;
        let delegations = delegations.into_iter().map(delegation).collect::<anyhow::Result<Vec<_>>>()?;
        let states = topics::check(connection, to_be_made()).await?;
        let suppliers = bridge.list(&["v1", "subscriptions"], "subscriptions").await?.into_iter().map(supplier);
        let suppliers = suppliers.collect::<anyhow::Result<BTreeMap<_, _>>>()?;
        let outlets = topics::list(connection).await?.into_keys().filter_map(|topic| Outlet::named(&topic));
        let with_supplier = |outlet: Outlet| Outlet { supplier: suppliers.get(&outlet.subscription).copied().flatten(), ..outlet };
        let outlets: Vec<Outlet> = outlets.map(with_supplier).collect();
        let parties = Parties { members: &members, delegations: &delegations, outlets: &outlets };
        let quota = Quota { consumer_byte_rate: limits.consumer_byte_rate, request_percentage: limits.request_percentage };
        let wanted = kafka_access::wanted(catalogue, parties, quota, Timestamp::now());
        let actual: Rights = AccessControl::connect(connection).await?.rights().await?;
        let missing_topics = states.into_iter().filter(|(_, state)| *state == State::Missing).map(|(topic, _)| topic).collect();
        Ok(Self { missing_topics, changes: kafka_access::difference(catalogue, &wanted, &actual) })
    }

    fn is_empty(&self) -> bool {
        self.missing_topics.is_empty() && self.changes.is_empty()
    }

    fn print(&self, output: &mut Output, format: Format) -> anyhow::Result<()> {
        if format == Format::Ndjson {
            let topics = self.missing_topics.iter().map(|topic| json!({"change": "create-topic", "topic": topic}));
            let changes = self.changes.iter().map(|change| json!(change));
            return Ok(topics.chain(changes).try_for_each(|change| output.object(&change))?);
        }
        if self.is_empty() {
            note("Kafka lets everybody do what they may, and nothing else.");
            return Ok(());
        }
        let topics = self.missing_topics.iter().map(|topic| ["+", "", "", "topic", topic].map(str::to_owned).to_vec());
        output.table(&["", "WHO", "MAY", "OF", "NAME"], topics.chain(self.changes.iter().map(row)))?;
        if self.changes.iter().any(|change| matches!(change, Change::Prune(_))) {
            note("! somebody else has set this; ryggrad access apply --prune takes it away.");
        }
        Ok(())
    }

    async fn carry_out(&self, connection: &Connection, replication: i32) -> anyhow::Result<()> {
        let made = topics::ensure(connection, to_be_made(), replication).await?;
        AccessControl::connect(connection).await?.apply(&self.changes).await?;
        note(format!("{} topics made, {} rights and quotas changed.", made.len(), self.changes.len()));
        Ok(())
    }
}

/// Topics that are in every installation. What is not for everyone has one once its bridge is let to open it, and makes it.
fn to_be_made() -> &'static [Topic] {
    &Catalogue::opened(Latch::Shut).topics
}

fn row(change: &Change) -> Vec<String> {
    let right = |sign: &str, binding: &Binding| {
        let may = format!("{}{:?}", if binding.is_allowed { "" } else { "not " }, binding.operation);
        let from = if binding.host == "*" { String::new() } else { format!(" from {}", binding.host) };
        let name = format!("{}{}{from}", binding.name, if binding.is_prefix { "…" } else { "" });
        vec![sign.to_owned(), binding.principal.clone(), may, format!("{:?}", binding.resource), name]
    };
    match change {
        Change::Remove(binding) => right("-", binding),
        Change::Prune(binding) => right("!", binding),
        Change::Add(binding) => right("+", binding),
        Change::Quota { user, quota } => {
            let shown = quota.map(|quota| format!("{} bytes/s, {} %", quota.consumer_byte_rate, quota.request_percentage));
            let sign = if quota.is_some() { "+" } else { "-" };
            vec![sign.to_owned(), format!("User:{user}"), "quota".to_owned(), String::new(), shown.unwrap_or_default()]
        }
    }
}

fn agreed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Stop::usage("nobody is there to be asked", "say --yes").into());
    }
    note("Do this? [y/N]");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

/// What counts here of a member.
fn member(shown: Value) -> anyhow::Result<Member> {
    #[derive(Deserialize)]
    struct Shown {
        organisation: Organisasjonsnummer,
        standing: ryggrad_bridge_core::access::Standing,
    }
    let Shown { organisation, standing } =
        serde_json::from_value(shown).context("the bridge shows a member as this command cannot read it")?;
    let (is_controller, bases, contact_points) = (false, Vec::new(), Vec::new());
    Ok(Member { organisation, standing, agreement: None, is_controller, bases, normen: None, contact_points })
}

/// Who has made a subscription for somebody else, if anyone.
fn supplier(shown: Value) -> anyhow::Result<(Uuid, Option<Organisasjonsnummer>)> {
    #[derive(Deserialize)]
    struct Shown {
        id: Uuid,
        supplier: Option<Organisasjonsnummer>,
    }
    let Shown { id, supplier } = serde_json::from_value(shown).context("the bridge shows a subscription as this command cannot read it")?;
    Ok((id, supplier))
}

fn delegation(shown: Value) -> anyhow::Result<Delegation> {
    #[derive(Deserialize)]
    struct Shown {
        organisation: Organisasjonsnummer,
        supplier: Organisasjonsnummer,
        types: Vec<String>,
        from: Timestamp,
        until: Option<Timestamp>,
    }
    let shown: Shown = serde_json::from_value(shown).context("the bridge shows a delegation as this command cannot read it")?;
    let period = Period { from: shown.from, until: shown.until };
    Ok(Delegation { organisation: shown.organisation, supplier: shown.supplier, types: shown.types, period })
}

/// The authority lies where the profile of `up --secure` finds its certificate.
fn certificate(connection: &Connection, organisation: Organisasjonsnummer, out: &std::path::Path) -> anyhow::Result<Code> {
    let folder = connection.ca_file.as_deref().and_then(std::path::Path::parent).unwrap_or(std::path::Path::new(""));
    let authority = LocalAuthority::open(folder).map_err(|error| match error {
        AuthorityError::None(_) => anyhow::Error::from(Stop {
            code: Code::Refused,
            what: "this installation has no certificate authority of its own".to_owned(),
            remedy: Some(
                "its operator issues certificates; ./ryggrad up --secure makes an authority for trials on this machine".to_owned(),
            ),
        }),
        error => error.into(),
    })?;
    let identity = authority.issue(&organisation.to_string(), out)?;
    for file in [identity.ca_file, identity.certificate_file, identity.key_file] {
        note(format!("✓ {}", file.display()));
    }
    Ok(Code::Ok)
}
