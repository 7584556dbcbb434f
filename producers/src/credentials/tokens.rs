//! Asks an issuer for tokens, one request at a time, and keeps the last one.
//!
//! Whoever needs a token while one is asked for waits for that one. A failure is told to all of them, and for a
//! while to those who come after them, instead of being repeated for each. Must never follow a redirect: an
//! assertion is for one address.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Response, redirect};
use ryggrad_detect::decide::Backoff;
use secrecy::ExposeSecret;
use tokio::time::Instant;
use url::Url;
use url::form_urlencoded::Serializer;
use uuid::Uuid;

use super::cache::{AccessToken, Cache, Step};
use super::claims::Once;
use super::config::AuthConfig;
use super::error::{CredentialsError, TokenError};
use super::issuer::{InvalidAnswer, Issued, issued, token_endpoint};
use super::nonce;
use super::said::TokenSays;
use crate::ProducerConfig;
use crate::http::{HttpError, builder, read};
use crate::pace::retry_after;

/// Longest answer of an issuer.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// How long an issuer's document about itself counts.
const METADATA_AGE_MAX: Duration = Duration::from_secs(86_400);
/// The longest pause that an issuer is given for asking.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// A request for a token.
pub(super) struct Request {
    pub(super) form: Vec<(&'static str, String)>,
    /// Proof that the client holds the key that the token is to be bound to.
    pub(super) proof: Option<String>,
}

/// What a kind of issuer wants.
pub(super) trait Grant: Send + Sync {
    /// The type of its tokens.
    const TOKEN_TYPE: &'static str;
    /// Where its document is, below its address.
    const METADATA_PATH: &'static str;

    /// A request, made for this once.
    fn request(&self, endpoint: &Url, nonce: Option<&str>) -> Result<Request, TokenError>;
}

/// This moment, and an id that was never used.
pub(super) fn once() -> Once {
    Once { now_s: Timestamp::now().as_second(), id: Uuid::new_v4().to_string() }
}

/// What is known of the issuer.
#[derive(Default)]
struct Known {
    endpoint: Option<(Url, Instant)>,
    nonce: Option<String>,
}

/// The tokens of one client.
pub(super) struct Tokens<G> {
    grant: G,
    client: Client,
    issuer: String,
    metadata_url: Url,
    renew_before: Duration,
    backoff: Backoff,
    cache: Mutex<Cache>,
    /// Whose turn it is to ask.
    turn: tokio::sync::Mutex<Known>,
}

impl<G: Grant> Tokens<G> {
    pub(super) fn new(config: &ProducerConfig, auth: &AuthConfig, grant: G) -> Result<Self, CredentialsError> {
        let metadata_url = auth.metadata_url(G::METADATA_PATH)?;
        let client = builder(config, &metadata_url).redirect(redirect::Policy::none()).build();
        Ok(Self {
            grant,
            client: client.map_err(CredentialsError::Client)?,
            issuer: auth.issuer.clone(),
            metadata_url,
            renew_before: Duration::from_millis(auth.renew_before_ms),
            backoff: config.backoff(),
            cache: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// A token that can be shown now.
    pub(super) async fn token(&self) -> Result<Arc<AccessToken>, TokenError> {
        if let Some(decided) = self.decided() {
            return decided;
        }
        let mut known = self.turn.lock().await;
        // Perhaps it came while this one waited.
        if let Some(decided) = self.decided() {
            return decided;
        }
        let asked_at = Instant::now();
        let (error, pause) = match self.ask(&mut known).await {
            Ok(Issued { token, lifetime, scope }) => {
                tracing::debug!(issuer = self.issuer, lifetime_s = lifetime.as_secs(), "token_obtained");
                return Ok(self.cache().obtained(asked_at, token, scope, lifetime, self.renew_before));
            }
            Err(failure) => failure,
        };
        let mut cache = self.cache();
        let now = Instant::now();
        let spare = match cache.step(now) {
            Step::Ask(spare) => spare,
            Step::Use(_) | Step::Wait(_) => None,
        };
        let drawn = rand::random();
        cache.failed(now, error.clone(), |failures| {
            Duration::from_millis(self.backoff.delay_ms(failures, drawn)).max(pause.unwrap_or_default().min(PAUSE_MAX))
        });
        let cause: &(dyn std::error::Error + 'static) = &error;
        tracing::warn!(issuer = self.issuer, error = cause, remedy = error.remedy(), serves_on = spare.is_some(), "no_new_token");
        spare.ok_or(error)
    }

    /// What requests are made with.
    pub(super) fn grant(&self) -> &G {
        &self.grant
    }

    /// An API does not take a token. Whether there may be another one.
    pub(super) fn not_taken(&self, number: u64) -> bool {
        self.cache().not_taken(Instant::now(), number)
    }

    /// What the present token says of itself.
    pub(super) async fn says(&self) -> Result<TokenSays, TokenError> {
        let token = self.token().await?;
        Ok(TokenSays::of(token.text.expose_secret(), token.scope.as_deref()))
    }

    fn decided(&self) -> Option<Result<Arc<AccessToken>, TokenError>> {
        match self.cache().step(Instant::now()) {
            Step::Use(token) => Some(Ok(token)),
            Step::Wait(error) => Some(Err(error)),
            Step::Ask(_) => None,
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // Nothing is left half done under this lock.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A failure comes with the pause that the issuer asks for.
    async fn ask(&self, known: &mut Known) -> Result<Issued, (TokenError, Option<Duration>)> {
        let endpoint = self.endpoint(known).await.map_err(|error| (error, None))?;
        let mut repeated = false;
        loop {
            let request = self.grant.request(&endpoint, known.nonce.as_deref()).map_err(|error| (error, None))?;
            let proves = request.proof.is_some();
            let (status, headers, body) = self.post(&endpoint, request).await.map_err(|error| (error, None))?;
            // The next request has to carry the newest one, whatever the answer is.
            let fresh = nonce(&headers).filter(|_| proves).filter(|fresh| known.nonce.as_ref() != Some(fresh));
            let is_fresh = fresh.is_some();
            known.nonce = fresh.or(known.nonce.take());
            match issued(status, &body, G::TOKEN_TYPE) {
                Err(TokenError::Refused { .. }) if is_fresh && !repeated => repeated = true,
                outcome => return outcome.map_err(|error| (error, pause(&headers))),
            }
        }
    }

    async fn post(&self, endpoint: &Url, request: Request) -> Result<(u16, HeaderMap, Vec<u8>), TokenError> {
        let form = Serializer::new(String::new()).extend_pairs(&request.form).finish();
        let posted = self.client.post(endpoint.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        let posted = request.proof.iter().fold(posted, |posted, proof| posted.header("dpop", proof));
        let response = posted.send().await.map_err(unreachable)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok((status, headers, self::body(response).await?))
    }

    /// Where tokens are asked for: the document is fetched once a day, and what it said serves on while it is away.
    async fn endpoint(&self, known: &mut Known) -> Result<Url, TokenError> {
        if let Some((endpoint, fetched)) = &known.endpoint
            && fetched.elapsed() < METADATA_AGE_MAX
        {
            return Ok(endpoint.clone());
        }
        match self.fetch_endpoint().await {
            Ok(endpoint) => Ok(known.endpoint.insert((endpoint, Instant::now())).0.clone()),
            Err(error) if error.is_unreachable() => known.endpoint.as_ref().map(|(endpoint, _)| endpoint.clone()).ok_or(error),
            Err(error) => Err(error),
        }
    }

    async fn fetch_endpoint(&self) -> Result<Url, TokenError> {
        let response = self.client.get(self.metadata_url.clone()).send().await.map_err(unreachable)?;
        match response.status().as_u16() {
            200 => Ok(token_endpoint(&body(response).await?, &self.issuer)?),
            status if status == 429 || status >= 500 => Err(TokenError::Unavailable { status }),
            status => Err(TokenError::NoMetadata { status }),
        }
    }
}

async fn body(response: Response) -> Result<Vec<u8>, TokenError> {
    read(response, ANSWER_BYTES_MAX).await.map_err(|error| match error {
        HttpError::Transport(error) => TokenError::Unreachable(Arc::new(error)),
        _ => InvalidAnswer::TooLong.into(),
    })
}

fn unreachable(error: reqwest::Error) -> TokenError {
    TokenError::Unreachable(Arc::new(error.without_url()))
}

fn pause(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, Timestamp::now())
}
