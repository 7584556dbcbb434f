//! Asks endpoints for their agreement: by the CloudEvents handshake, and if that grants nothing,
//! by a signed challenge that they have to echo.
//!
//! In the background, so that a slow endpoint holds up nobody. Outside of development an endpoint
//! that has not agreed is asked again on a schedule. Must never let anything else leave for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ryggrad_bridge_core::access::Sight;
use ryggrad_bridge_core::settings::Channel;
use ryggrad_bridge_core::subscription::{Subscription, Verification, VerificationMethod, VerificationState, Verify};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{ChangeError, Subscriptions};
use crate::channel::handshake::Grant;
use crate::hexadecimal;

/// Endpoints that are asked at the same time.
const AT_A_TIME_MAX: usize = 16;
/// Waits between one asking and the next; the last one goes on.
const SCHEDULE_S: [u64; 6] = [1, 5, 30, 300, 1_800, 3_600];

/// An endpoint that can be asked. Errors never hold an address.
pub trait Endpoint {
    /// The CloudEvents handshake.
    fn options(&self) -> impl Future<Output = Result<Grant, String>> + Send;
    /// A signed challenge, which it echoes or not.
    fn challenge(&self, challenge: &str) -> impl Future<Output = Result<(), String>> + Send;
}

/// Asks an endpoint.
pub async fn ask(endpoint: &impl Endpoint, challenge: &str) -> Verification {
    let at = Some(jiff::Timestamp::now().to_string());
    let verified = |method, rate_per_minute| Verification {
        state: VerificationState::Verified,
        method: Some(method),
        at: at.clone(),
        rate_per_minute,
        error: None,
    };
    let no_grant = match endpoint.options().await {
        Ok(grant) => return verified(VerificationMethod::Options, grant.rate_per_minute),
        Err(why) => why,
    };
    match endpoint.challenge(challenge).await {
        Ok(()) => verified(VerificationMethod::Challenge, None),
        Err(why) => {
            let error = Some(format!("handshake: {no_grant}; challenge: {why}"));
            Verification { state: VerificationState::Unverified, method: None, at: at.clone(), rate_per_minute: None, error }
        }
    }
}

/// The askings under way.
pub struct Verifications {
    stopping: CancellationToken,
    /// Cancelled to end the asking of a subscription.
    under_way: Mutex<HashMap<Uuid, CancellationToken>>,
    permits: Semaphore,
}

impl Verifications {
    /// None yet.
    pub fn new(stopping: CancellationToken) -> Self {
        Self { stopping, under_way: Mutex::default(), permits: Semaphore::new(AT_A_TIME_MAX) }
    }

    /// Ends the asking of a subscription.
    pub fn forget(&self, id: Uuid) {
        if let Some(token) = self.lock().remove(&id) {
            token.cancel();
        }
    }

    fn begin(&self, id: Uuid) -> CancellationToken {
        let token = self.stopping.child_token();
        if let Some(before) = self.lock().insert(id, token.clone()) {
            before.cancel();
        }
        token
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, CancellationToken>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriptions {
    /// Asks the endpoint in the background, if its agreement is needed and not there.
    pub(super) fn verify_if_due(self: &Arc<Self>, subscription: &Subscription) {
        if self.is_due(subscription) {
            self.verify_soon(subscription.id);
        }
    }

    /// Asks the endpoint in the background, in place of whatever asking is under way.
    pub fn verify_soon(self: &Arc<Self>, id: Uuid) {
        let (subscriptions, stop) = (Arc::clone(self), self.verifications.begin(id));
        tokio::spawn(async move { subscriptions.verify(id, stop).await });
    }

    /// Asks the endpoint again on its owner's word, whatever it has said before.
    pub async fn verify_again(self: &Arc<Self>, id: Uuid) -> Result<(), ChangeError> {
        let pending = |before: Subscription| {
            let verification = Verification::first(before.channel, Verify::Auto);
            // An agreement stands until the endpoint takes it back.
            Ok((before.verification.state != VerificationState::Verified).then_some(Subscription { verification, ..before }))
        };
        self.change(id, pending).await?;
        self.verify_soon(id);
        Ok(())
    }

    /// Whether the owner may have the endpoint called now; if so, that counts as done.
    pub fn may_call(&self, id: Uuid) -> bool {
        self.pace.allows(id)
    }

    fn is_due(&self, subscription: &Subscription) -> bool {
        let development = self.context.config.development_egress;
        subscription.channel == Channel::Webhook
            && (subscription.verification.state == VerificationState::Pending || !subscription.may_deliver(development))
    }

    async fn verify(&self, id: Uuid, stop: CancellationToken) {
        for tries in 0_usize.. {
            let asking = async {
                // The semaphore is never closed; without a permit only more would be asked at once.
                let _permit = self.verifications.permits.acquire().await;
                let subscription = self.get(Sight::All, id).await?;
                let sink = subscription.sink.clone()?;
                let challenge = hexadecimal::encode(&rand::random::<[u8; 32]>());
                let endpoint = self.endpoint(&subscription)?;
                Some((sink, ask(&endpoint, &challenge).await))
            };
            let asked = tokio::select! {
                asked = asking => asked,
                () = stop.cancelled() => return,
            };
            let Some((sink, found)) = asked else { return };
            // Not broken off in the middle: topic and memory must agree.
            match self.record(id, &sink, found).await {
                Ok(Some(subscription)) if self.is_due(&subscription) => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(subscription = %id, %error, "an endpoint's agreement could not be recorded; it is asked again")
                }
            }
            let wait_s = SCHEDULE_S[tries.min(SCHEDULE_S.len() - 1)];
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(wait_s)) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Keeps what an endpoint has answered, unless the subscription has another one by now.
    async fn record(&self, id: Uuid, sink: &str, found: Verification) -> Result<Option<Subscription>, ChangeError> {
        let recorded = |before: Subscription| {
            let news = Verification { at: before.verification.at.clone(), ..found.clone() } != before.verification;
            let same_endpoint = before.sink.as_deref() == Some(sink);
            Ok((news && same_endpoint).then_some(Subscription { verification: found, ..before }))
        };
        self.change(id, recorded).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake {
        grant: Result<Grant, String>,
        echo: Result<(), String>,
    }

    impl Endpoint for Fake {
        async fn options(&self) -> Result<Grant, String> {
            self.grant.clone()
        }

        async fn challenge(&self, challenge: &str) -> Result<(), String> {
            assert_eq!(challenge, "abc");
            self.echo.clone()
        }
    }

    #[tokio::test]
    async fn the_handshake_counts_first_and_the_challenge_if_it_grants_nothing() {
        use VerificationMethod::{Challenge, Options};
        use VerificationState::{Unverified, Verified};
        let grant = |rate_per_minute| Ok(Grant { rate_per_minute });
        let no = |why: &str| Err(why.to_owned());
        for (grant, echo, state, method, rate, error) in [
            (grant(Some(120)), no("must not be asked"), Verified, Some(Options), Some(120), None),
            (grant(None), no("must not be asked"), Verified, Some(Options), None, None),
            (Err("405".to_owned()), Ok(()), Verified, Some(Challenge), None, None),
            (Err("405".to_owned()), no("no echo"), Unverified, None, None, Some("handshake: 405; challenge: no echo")),
        ] {
            let found = ask(&Fake { grant, echo }, "abc").await;
            assert_eq!((found.state, found.method, found.rate_per_minute, found.error.as_deref()), (state, method, rate, error));
            assert!(found.at.is_some());
        }
    }
}
