//! Secrets and header values on their way into and out of the stored form of a subscription.
//!
//! What is sealed is bound to its subscription and its place there. Must never give an opened
//! value a form that prints.

use ryggrad_bridge_core::own_headers::OwnHeaders;
use ryggrad_bridge_core::signature::Secret;
use ryggrad_bridge_core::subscription::{Secrets, Subscription};
use ryggrad_log::{Seal, SealError};
use uuid::Uuid;

use crate::hexadecimal;

/// Seals and opens.
pub struct Strongbox(Seal);

/// What a subscription keeps sealed, opened.
#[derive(Debug, Clone)]
pub struct Opened {
    /// What signs, and what signed before.
    pub secrets: Secrets,
    /// The owner's own headers.
    pub headers: OwnHeaders,
}

impl Strongbox {
    /// A strongbox with this key.
    pub fn new(seal: Seal) -> Self {
        Self(seal)
    }

    /// A fresh signing secret.
    pub fn draw() -> Result<Secret, SealError> {
        // 32 bytes are always a secret's length.
        Secret::from_bytes(rand::random::<[u8; 32]>().to_vec()).map_err(|_| SealError::Shape)
    }

    /// A signing secret, sealed.
    pub fn seal_secret(&self, id: Uuid, secret: &Secret) -> Result<String, SealError> {
        self.seal(&id.to_string(), &secret.reveal())
    }

    /// Headers, sealed; nothing if there are none.
    pub fn seal_headers(&self, id: Uuid, headers: &OwnHeaders) -> Result<Option<String>, SealError> {
        if headers.names().is_empty() { Ok(None) } else { self.seal(&of_headers(id), &headers.to_text()).map(Some) }
    }

    /// All that a subscription keeps sealed, or nothing if any of it does not open.
    pub fn open(&self, subscription: &Subscription) -> Option<Opened> {
        let context = subscription.id.to_string();
        let newest = self.unseal(&context, &subscription.sealed_secret)?.parse().ok()?;
        let previous = subscription.previous.iter().map(|previous| {
            let secret = self.unseal(&context, &previous.sealed_secret)?.parse().ok()?;
            Some((secret, previous.until_ms))
        });
        let previous = previous.collect::<Option<_>>()?;
        Some(Opened { secrets: Secrets::new(newest, previous), headers: self.open_headers(subscription)? })
    }

    /// The headers alone.
    pub fn open_headers(&self, subscription: &Subscription) -> Option<OwnHeaders> {
        match &subscription.sealed_headers {
            Some(sealed) => OwnHeaders::from_text(&self.unseal(&of_headers(subscription.id), sealed)?),
            None => Some(OwnHeaders::default()),
        }
    }

    fn seal(&self, context: &str, plain: &str) -> Result<String, SealError> {
        self.0.seal(rand::random(), context, plain.as_bytes()).map(|sealed| hexadecimal::encode(&sealed))
    }

    fn unseal(&self, context: &str, sealed: &str) -> Option<String> {
        let opened = self.0.open(context, &hexadecimal::decode(sealed)?).ok()?;
        String::from_utf8(opened).ok()
    }
}

/// A secret has the bare id as its context, from before there were headers.
fn of_headers(id: Uuid) -> String {
    format!("{id}/headers")
}
