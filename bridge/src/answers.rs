//! Answers to requests with an idempotency key: kept sealed in the store for a day, and given again.
//!
//! Order: the request's effect, the answer on disk, the answer. A crash before the second step leaves the key free;
//! what the request makes has an id that follows from the key, so that repeating it finds what is there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ryggrad_bridge_core::idempotency::{Asked, Decision, KeyId, Keys};
use ryggrad_log::Seal;
use ryggrad_store::{Change, KeptAnswer, OpenError, Store, Writer};
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Deserialize, Serialize};

use crate::config::BridgeConfig;
use crate::hexadecimal;
use crate::telemetry::Telemetry;

/// Longest answer that is kept, in bytes of its body.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// An answer as it went out. It may hold a secret, and has no form that prints.
#[derive(Serialize, Deserialize)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Those of its headers that belong to it.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

/// Why an answer was not kept.
#[derive(Debug, thiserror::Error)]
pub enum NotKept {
    /// It could not be sealed.
    #[error("the answer cannot be sealed")]
    Seal(#[from] ryggrad_log::SealError),
    /// The store did not take it.
    #[error("the store did not take the answer")]
    Store(#[from] ryggrad_store::CommitError),
}

/// All of them.
pub struct Answers {
    keys: Mutex<Keys>,
    store: Store,
    writer: Writer,
    seal: Seal,
    telemetry: Telemetry,
}

/// The first request with a key, under way. Dropped without an answer, it leaves the key free.
pub struct UnderWay {
    answers: Arc<Answers>,
    asked: Asked,
}

impl Answers {
    /// What is in the store.
    pub fn load(config: &BridgeConfig, store: Store, writer: Writer, seal: Seal, telemetry: Telemetry) -> Result<Self, OpenError> {
        let mut keys = Keys::new(config.idempotency_keys_per_organisation_max, config.idempotency_keys_max);
        for kept in store.answers() {
            let KeptAnswer { key, owner, fingerprint, at_ms, .. } = kept?;
            keys.restore(&Asked { key, owner, fingerprint }, at_ms);
        }
        Ok(Self { keys: Mutex::new(keys), store, writer, seal, telemetry })
    }

    /// What becomes of a request; with the right to go ahead if it is the first.
    pub fn begin(self: &Arc<Self>, asked: Asked) -> (Decision, Option<UnderWay>) {
        let decision = self.keys().begin(&asked);
        self.telemetry.idempotency_keys.set(i64::try_from(self.keys().len()).unwrap_or(i64::MAX));
        let under_way = (decision == Decision::Proceed).then(|| UnderWay { answers: Arc::clone(self), asked });
        (decision, under_way)
    }

    /// The first answer. `None` if it can't be read any more.
    pub fn first(&self, key: KeyId) -> Option<Answer> {
        let kept = self.store.answer(key).ok()??;
        // Opened only to be sent.
        let opened = SecretSlice::from(self.seal.open(&context(key), &kept.sealed).ok()?);
        let answer = serde_json::from_slice(opened.expose_secret()).ok()?;
        self.telemetry.idempotency_replays.inc();
        Some(answer)
    }

    /// Forgets what is a day old.
    pub async fn expire(&self, now_ms: i64) {
        let expired = self.keys().expire(now_ms);
        self.telemetry.idempotency_keys.set(i64::try_from(self.keys().len()).unwrap_or(i64::MAX));
        if expired.is_empty() {
            return;
        }
        let forget = expired.into_iter().map(|key| Change::ForgetAnswer { key }).collect();
        if let Err(error) = self.writer.commit(forget).await {
            // They are read again at the next start, and forgotten then.
            tracing::warn!(%error, "answers that are a day old could not be removed");
        }
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    /// Keeps the answer; it is on disk when this returns.
    pub async fn answered(self, answer: &Answer, at_ms: i64) -> Result<(), NotKept> {
        let (answers, Asked { key, owner, fingerprint }) = (&self.answers, self.asked);
        // Our own type, which has a JSON form.
        let plain = SecretSlice::from(serde_json::to_vec(answer).unwrap_or_default());
        let sealed = answers.seal.seal(rand::random(), &context(key), plain.expose_secret())?;
        answers.writer.commit(vec![Change::KeepAnswer(KeptAnswer { key, owner, fingerprint, at_ms, sealed })]).await?;
        answers.keys().answered(key, at_ms);
        Ok(())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        // Nothing happens if it was answered.
        self.answers.keys().given_up(self.asked.key);
    }
}

fn context(key: KeyId) -> String {
    format!("answer/{}", hexadecimal::encode(&key))
}
