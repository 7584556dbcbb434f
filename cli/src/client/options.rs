//! Connection options, flattened into the commands that need them.
//!
//! What counts, in order: the flag, the environment, the profile, the default of `ryggrad up`.

use std::path::PathBuf;

use clap::Args;
use ryggrad_log::{Connection, Security};

use crate::client::{Bridge, Profile, Token};
use crate::exit::Stop;

const BRIDGE_DEFAULT: &str = "http://127.0.0.1:8484";
const KAFKA_DEFAULT: &str = "127.0.0.1:9092";

/// How to reach the bridge as an organisation.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub struct BridgeOptions {
    /// The bridge's address [default: from the profile, else http://127.0.0.1:8484].
    #[arg(long, env = "RYGGRAD_BRIDGE", value_name = "URL", global = true)]
    bridge: Option<String>,
    /// The organisation's token [default: from the profile].
    #[arg(long, env = "RYGGRAD_TOKEN", hide_env_values = true, value_name = "TOKEN", global = true)]
    token: Option<Token>,
    #[command(flatten)]
    profile: ProfileOption,
}

/// How to reach the bridge as its operator.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub struct OperatorOptions {
    /// The bridge's address [default: from the profile, else http://127.0.0.1:8484].
    #[arg(long, env = "RYGGRAD_BRIDGE", value_name = "URL", global = true)]
    bridge: Option<String>,
    /// The operator's token [default: from the profile].
    #[arg(long, env = "RYGGRAD_OPERATOR_TOKEN", hide_env_values = true, value_name = "TOKEN", global = true)]
    operator_token: Option<Token>,
    #[command(flatten)]
    profile: ProfileOption,
}

/// How to reach Kafka.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub struct KafkaOptions {
    /// Kafka's address, several separated by commas [default: from the profile, else 127.0.0.1:9092].
    #[arg(long, env = "KAFKA_BOOTSTRAP", value_name = "HOST:PORT", global = true)]
    kafka: Option<String>,
    /// A setting of librdkafka, e.g. security.protocol=ssl; may be repeated.
    #[arg(short = 'X', long = "kafka-setting", value_name = "NAME=VALUE", value_parser = setting, global = true)]
    kafka_settings: Vec<(String, String)>,
    #[command(flatten)]
    tls: KafkaTls,
    #[command(flatten)]
    profile: ProfileOption,
}

/// Who we are to Kafka, and whom to trust there. Any of them means TLS.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct KafkaTls {
    /// Authority that the brokers' certificates must come from (PEM).
    #[arg(long, env = "RYGGRAD_KAFKA_CA_FILE", value_name = "FILE", global = true)]
    kafka_ca_file: Option<PathBuf>,
    /// Our certificate with its chain (PEM).
    #[arg(long, env = "RYGGRAD_KAFKA_CERTIFICATE_FILE", value_name = "FILE", global = true)]
    kafka_certificate_file: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, env = "RYGGRAD_KAFKA_KEY_FILE", value_name = "FILE", global = true)]
    kafka_key_file: Option<PathBuf>,
}

impl KafkaTls {
    /// Overrides what is given, and looks whether all of it can be used.
    pub fn put_into(&self, connection: &mut Connection) -> Result<(), Stop> {
        let files = [
            (&self.kafka_ca_file, &mut connection.ca_file),
            (&self.kafka_certificate_file, &mut connection.certificate_file),
            (&self.kafka_key_file, &mut connection.key_file),
        ];
        for (given, file) in files {
            // An empty variable in the environment means none.
            if let Some(given) = given.as_ref().filter(|given| !given.as_os_str().is_empty()) {
                *file = Some(given.clone());
                connection.security = Security::Tls;
            }
        }
        connection.check().map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Stop::usage(format!("{error}{cause}"), "docs/how-to/secure-kafka.md tells which files belong where, and who issues them")
        })
    }
}

/// How to reach Kafka and the bridge, both as an operator.
#[derive(Debug, Clone, Args)]
pub struct KafkaAndOperatorOptions {
    #[command(flatten)]
    kafka: KafkaOptions,
    /// The bridge's address [default: from the profile, else http://127.0.0.1:8484].
    #[arg(long, env = "RYGGRAD_BRIDGE", value_name = "URL", global = true, help_heading = "Connection")]
    bridge: Option<String>,
    /// The operator's token [default: from the profile].
    #[arg(long, env = "RYGGRAD_OPERATOR_TOKEN", hide_env_values = true, value_name = "TOKEN", global = true, help_heading = "Connection")]
    operator_token: Option<Token>,
}

impl KafkaAndOperatorOptions {
    /// How to reach Kafka. Makes no call yet.
    pub fn connection(&self) -> anyhow::Result<Connection> {
        self.kafka.connection()
    }

    /// A client for the bridge. Makes no call yet.
    pub fn connect(&self) -> anyhow::Result<Bridge> {
        let (bridge, operator_token, profile) = (self.bridge.clone(), self.operator_token.clone(), self.kafka.profile.clone());
        OperatorOptions { bridge, operator_token, profile }.connect()
    }
}

/// How to reach Kafka, and the bridge as an organisation.
#[derive(Debug, Clone, Args)]
pub struct KafkaAndBridgeOptions {
    #[command(flatten)]
    kafka: KafkaOptions,
    /// The bridge's address, for what is a subscription's [default: from the profile, else http://127.0.0.1:8484].
    #[arg(long, env = "RYGGRAD_BRIDGE", value_name = "URL", global = true, help_heading = "Connection")]
    bridge: Option<String>,
    /// The organisation's token [default: from the profile].
    #[arg(long, env = "RYGGRAD_TOKEN", hide_env_values = true, value_name = "TOKEN", global = true, help_heading = "Connection")]
    token: Option<Token>,
}

#[derive(Debug, Clone, Args)]
struct ProfileOption {
    /// File with addresses and tokens [default: .ryggrad/client.toml].
    #[arg(long, env = "RYGGRAD_PROFILE", value_name = "FILE", global = true)]
    profile: Option<PathBuf>,
}

impl ProfileOption {
    fn load(&self) -> Result<Profile, Stop> {
        Profile::load(self.profile.as_deref().filter(|path| !path.as_os_str().is_empty()))
    }
}

impl BridgeOptions {
    /// A client for the bridge. Makes no call yet.
    pub fn connect(&self) -> anyhow::Result<Bridge> {
        let profile = self.profile.load()?;
        let token = first_token(&self.token, profile.token, "token", "--token or RYGGRAD_TOKEN")?;
        Bridge::new(&first(&self.bridge, profile.bridge, BRIDGE_DEFAULT), token)
    }
}

impl KafkaAndBridgeOptions {
    /// How to reach Kafka. Makes no call yet.
    pub fn connection(&self) -> anyhow::Result<Connection> {
        self.kafka.connection()
    }

    /// A client for the bridge. Makes no call yet.
    pub fn connect(&self) -> anyhow::Result<Bridge> {
        let (bridge, token, profile) = (self.bridge.clone(), self.token.clone(), self.kafka.profile.clone());
        BridgeOptions { bridge, token, profile }.connect()
    }
}

impl OperatorOptions {
    /// A client for the bridge. Makes no call yet.
    pub fn connect(&self) -> anyhow::Result<Bridge> {
        let profile = self.profile.load()?;
        let token =
            first_token(&self.operator_token, profile.operator_token, "operator token", "--operator-token or RYGGRAD_OPERATOR_TOKEN")?;
        Bridge::new(&first(&self.bridge, profile.bridge, BRIDGE_DEFAULT), token)
    }
}

impl KafkaOptions {
    /// How to reach Kafka. Makes no call yet.
    pub fn connection(&self) -> anyhow::Result<Connection> {
        let profile = self.profile.load()?;
        let is_elsewhere = self.kafka.as_ref().is_some_and(|kafka| !kafka.trim().is_empty());
        let mut connection = Connection::new(first(&self.kafka, profile.kafka, KAFKA_DEFAULT));
        // Certificates of the profile go with its address alone.
        if let Some(tls) = profile.kafka_tls.filter(|_| !is_elsewhere) {
            connection.security = Security::Tls;
            (connection.ca_file, connection.certificate_file, connection.key_file) = (tls.ca_file, tls.certificate_file, tls.key_file);
        }
        self.tls.put_into(&mut connection)?;
        connection.settings.extend(self.kafka_settings.iter().cloned());
        Ok(connection)
    }
}

/// An empty variable in the environment means none.
fn first(given: &Option<String>, profile: Option<String>, default: &str) -> String {
    let filled = |text: &String| !text.trim().is_empty();
    given.clone().filter(filled).or(profile.filter(filled)).unwrap_or_else(|| default.to_owned())
}

fn first_token(given: &Option<Token>, profile: Option<Token>, what: &str, where_: &str) -> Result<Token, Stop> {
    let filled = |token: &Token| !token.is_empty();
    given.clone().filter(filled).or(profile.filter(filled)).ok_or_else(|| {
        Stop::usage(
            format!("there is no {what}"),
            format!("give it with {where_}, or run ./ryggrad up here, which leaves one in .ryggrad/client.toml"),
        )
    })
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("use NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_counts_before_the_profile_and_an_empty_one_is_none() {
        let text = |text: &str| Some(text.to_owned());
        for (given, profile, expected) in
            [(text("a"), text("b"), "a"), (text(""), text("b"), "b"), (None, text(" "), "c"), (None, None, "c")]
        {
            assert_eq!(first(&given, profile, "c"), expected);
        }
    }

    #[test]
    fn without_a_token_the_user_learns_where_one_comes_from() {
        let token = |text: &str| text.parse::<Token>().ok();
        assert_eq!(first_token(&token("a"), token("b"), "token", "--token").unwrap().reveal(), "a");
        assert_eq!(first_token(&token(" "), token("b"), "token", "--token").unwrap().reveal(), "b");
        let stop = first_token(&None, None, "token", "--token").unwrap_err();
        assert!(stop.remedy.is_some_and(|remedy| remedy.contains("./ryggrad up")));
    }

    #[test]
    fn settings_are_pairs() {
        for (text, expected) in [
            ("a=b", Ok(("a".to_owned(), "b".to_owned()))),
            ("a=b=c", Ok(("a".to_owned(), "b=c".to_owned()))),
            ("a=", Ok(("a".to_owned(), String::new()))),
            ("=b", Err("use NAME=VALUE".to_owned())),
            ("a", Err("use NAME=VALUE".to_owned())),
        ] {
            assert_eq!(setting(text), expected);
        }
    }
}
