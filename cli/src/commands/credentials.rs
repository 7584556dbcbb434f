//! `ryggrad credentials check`: whether an issuer gives a token for a producer's settings, and what it says.
//!
//! Asks the issuer alone, and no registry. Must never print the token.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ryggrad_producers::{AuthConfig, IssuerKind, ProducerConfig, TokenSays, credentials};
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use serde_json::json;

use crate::exit::{Code, Stop};
use crate::output::{Format, FormatOption, Output, note};
use crate::settings::SettingsArgs;

/// What can be done with credentials.
#[derive(Debug, Subcommand)]
pub enum CredentialsCommand {
    Check(Box<CheckArgs>),
}

/// Asks the issuer for a token, and shows what it says
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  What [producer.auth] of a settings file would get:
    ryggrad credentials check --config producer.toml

  HelseID, for an organisation and one of its units:
    ryggrad credentials check --kind helseid --issuer https://helseid-sts.test.nhn.no \\
        --client-id CLIENT --key-file client.jwk --scope nhn:hendelser/subscribe \\
        --organisation 312345676 --child 310000019

  Maskinporten, with a key in PEM that is registered under a name:
    ryggrad credentials check --kind maskinporten --issuer https://test.maskinporten.no/ \\
        --client-id CLIENT --key-file client.pem --key-id 2026-1 --scope folkeregister:deling/offentligmedhjemmel

A flag counts before the settings file. The token is not shown; its claims are as it has them, unverified.

EXIT CODES
  0 done   1 failed   2 settings or key are wrong   3 the issuer refuses   4 the issuer cannot be reached")]
pub struct CheckArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    format: FormatOption,
    /// Whose token: helseid or maskinporten
    #[arg(long, value_name = "KIND", value_parser = kind)]
    kind: Option<IssuerKind>,
    /// The issuer's name, as its own document has it
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// The client's name at the issuer
    #[arg(long, value_name = "CLIENT")]
    client_id: Option<String>,
    /// The client's private key: a JWK, or PKCS #8 in PEM
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The key's name at the issuer, where the file does not tell
    #[arg(long, value_name = "KID")]
    key_id: Option<String>,
    /// What the token is to open; several with spaces between
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,
    /// Whom the client speaks for
    #[arg(long, value_name = "ORGANISATION")]
    organisation: Option<Organisasjonsnummer>,
    /// The unit of the organisation (HelseID)
    #[arg(long, value_name = "ORGANISATION")]
    child: Option<Organisasjonsnummer>,
    /// The one API that the token is for (Maskinporten)
    #[arg(long, value_name = "API")]
    resource: Option<String>,
}

fn kind(text: &str) -> Result<IssuerKind, String> {
    serde_json::from_value(text.into()).map_err(|_| "use helseid or maskinporten".to_owned())
}

/// Runs the command.
pub async fn run(command: CredentialsCommand) -> anyhow::Result<Code> {
    let CredentialsCommand::Check(args) = command;
    let settings = args.settings.load()?;
    let format = args.format.format;
    let config = asked_for(*args, settings.producer);
    let Some(credentials) = credentials(&config)? else {
        return Err(
            Stop::usage("there is nothing to check", "give --config with [producer.auth], or --issuer and what goes with it").into()
        );
    };
    let says = credentials.token_says().await?;
    let mut output = Output::stdout();
    print(&says, &mut output, format)?;
    output.flush()?;
    note("The issuer gives a token; whether an API takes it, the API decides.");
    Ok(Code::Ok)
}

/// The settings with what the flags say instead.
fn asked_for(args: CheckArgs, mut config: ProducerConfig) -> ProducerConfig {
    let mut auth = config.auth.take();
    fn put<T>(auth: &mut Option<AuthConfig>, flag: Option<T>, set: impl FnOnce(&mut AuthConfig, T)) {
        if let Some(flag) = flag {
            set(auth.get_or_insert_default(), flag);
        }
    }
    put(&mut auth, args.kind, |auth, kind| auth.kind = kind);
    put(&mut auth, args.issuer, |auth, issuer| auth.issuer = issuer);
    put(&mut auth, args.client_id, |auth, client_id| auth.client_id = client_id);
    put(&mut auth, args.key_file, |auth, key_file| auth.key_file = key_file);
    put(&mut auth, args.key_id, |auth, key_id| auth.key_id = Some(key_id));
    put(&mut auth, args.scope, |auth, scope| auth.scope = scope);
    put(&mut auth, args.organisation, |auth, organisation| auth.organisation = Some(organisation));
    put(&mut auth, args.child, |auth, child| auth.child = Some(child));
    put(&mut auth, args.resource, |auth, resource| auth.resource = Some(resource));
    ProducerConfig { auth, ..config }
}

fn print(says: &TokenSays, output: &mut Output, format: Format) -> anyhow::Result<()> {
    let expires_at = says.expires_at_s.and_then(|at_s| jiff::Timestamp::from_second(at_s).ok()).map(|at| at.to_string());
    if format == Format::Ndjson {
        return Ok(output.object(&json!({
            "issuer": says.issuer, "audience": says.audience, "client_id": says.client_id, "scopes": says.scopes,
            "organisation": says.organisation, "child": says.child, "supplier": says.supplier, "bound": says.bound,
            "expires_at": expires_at,
        }))?);
    }
    let bound = if says.bound { "to a key (DPoP)" } else { "to nothing (bearer)" };
    let pairs = [
        ("issuer", says.issuer.clone()),
        ("audience", Some(says.audience.join(" "))),
        ("client", says.client_id.clone()),
        ("scopes", Some(says.scopes.join(" "))),
        ("organisation", says.organisation.clone()),
        ("child", says.child.clone()),
        ("supplier", says.supplier.clone()),
        ("bound", Some(bound.to_owned())),
        ("expires", expires_at),
    ];
    let pairs = pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.filter(|value| !value.is_empty())?)));
    Ok(output.pairs(pairs)?)
}
