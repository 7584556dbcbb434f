//! Whether an endpoint has agreed to be called: what is kept of it, and what follows from it.

use serde::{Deserialize, Serialize};

use crate::settings::Channel;

/// Whether an endpoint is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// By the CloudEvents handshake, and if that grants nothing, by a challenge.
    #[default]
    Auto,
    /// Not at all. In development only.
    None,
}

/// How far that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerificationState {
    /// It has agreed.
    Verified,
    /// It is being asked.
    Pending,
    /// It has not agreed.
    Unverified,
    /// It need not agree: the receiver fetches, or the subscription is older than verification.
    #[default]
    NotRequired,
}

/// How an endpoint agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerificationMethod {
    /// By the answer to the CloudEvents handshake.
    Options,
    /// By echoing a signed challenge.
    Challenge,
}

/// What is known of an endpoint's agreement.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verification {
    /// How far it has come.
    #[serde(default)]
    pub state: VerificationState,
    /// How it agreed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<VerificationMethod>,
    /// Since when that is so, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// How many attempts a minute the endpoint has granted; `None` is as many as there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_minute: Option<u32>,
    /// Why it has not agreed; never with an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Verification {
    /// That of an endpoint that has not been asked yet.
    pub fn first(channel: Channel, verify: Verify) -> Self {
        let state = match (channel, verify) {
            (Channel::Webhook, Verify::Auto) => VerificationState::Pending,
            (Channel::Pull | Channel::WebSocket | Channel::Kafka, _) | (_, Verify::None) => VerificationState::NotRequired,
        };
        Self { state, ..Self::default() }
    }
}
