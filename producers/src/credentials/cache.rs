//! When a token is used, when a new one is asked for, and when the issuer is left in peace. Pure.
//!
//! A token is renewed some time before its end, at most half its life; should that fail, it serves to its end. A
//! token that an API does not take is given up, but a second one so soon is the API's fault and not the token's.
//! Must never ask an issuer again before the pause that follows a failure is over.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::Instant;

use super::error::TokenError;

/// How long after a token was given up the next one may be.
const GIVEN_UP_APART: Duration = Duration::from_secs(10);

/// A token that can be shown.
#[derive(Debug)]
pub(super) struct AccessToken {
    /// Counts this client's tokens.
    pub(super) number: u64,
    pub(super) text: SecretString,
    pub(super) scope: Option<String>,
}

struct Held {
    token: Arc<AccessToken>,
    renew_at: Instant,
    ends_at: Instant,
}

struct Failed {
    error: TokenError,
    failures: u32,
    again_at: Instant,
}

/// What to do when a token is needed.
#[derive(Debug)]
pub(super) enum Step {
    /// Use this one.
    Use(Arc<AccessToken>),
    /// Ask for a new one; this one serves if that fails.
    Ask(Option<Arc<AccessToken>>),
    /// Nothing: it was refused a moment ago.
    Wait(TokenError),
}

/// What is known.
#[derive(Default)]
pub(super) struct Cache {
    held: Option<Held>,
    failed: Option<Failed>,
    given_up_at: Option<Instant>,
    count: u64,
}

impl Cache {
    /// What to do now.
    pub(super) fn step(&self, now: Instant) -> Step {
        let held = self.held.as_ref().filter(|held| now < held.ends_at);
        let paused = self.failed.as_ref().filter(|failed| now < failed.again_at);
        match (held, paused) {
            (Some(held), None) if now >= held.renew_at => Step::Ask(Some(Arc::clone(&held.token))),
            (Some(held), _) => Step::Use(Arc::clone(&held.token)),
            (None, Some(failed)) => Step::Wait(failed.error.clone()),
            (None, None) => Step::Ask(None),
        }
    }

    /// A token came that was asked for at this moment.
    pub(super) fn obtained(
        &mut self,
        asked_at: Instant,
        text: SecretString,
        scope: Option<String>,
        lifetime: Duration,
        renew_before: Duration,
    ) -> Arc<AccessToken> {
        self.failed = None;
        self.count += 1;
        let token = Arc::new(AccessToken { number: self.count, text, scope });
        let renew_at = asked_at + (lifetime - renew_before.min(lifetime / 2));
        self.held = Some(Held { token: Arc::clone(&token), renew_at, ends_at: asked_at + lifetime });
        token
    }

    /// None came; the pause follows from how many failures in a row there are.
    pub(super) fn failed(&mut self, now: Instant, error: TokenError, pause: impl FnOnce(u32) -> Duration) {
        let failures = self.failed.as_ref().map_or(0, |failed| failed.failures).saturating_add(1);
        self.failed = Some(Failed { error, failures, again_at: now + pause(failures) });
    }

    /// An API does not take the token of this number. Whether there is, or may be, another one.
    pub(super) fn not_taken(&mut self, now: Instant, number: u64) -> bool {
        if self.held.as_ref().is_none_or(|held| held.token.number != number) {
            return true;
        }
        if self.given_up_at.is_some_and(|at| now < at + GIVEN_UP_APART) {
            return false;
        }
        (self.held, self.given_up_at) = (None, Some(now));
        true
    }
}
