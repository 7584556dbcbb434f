//! What can be wrong with a token or a proof, and what a caller is told of it.
//!
//! A caller hears the class alone ([`Refusal`]); the reason goes to metrics and logs, of which there are as
//! many as there are rules. Must never hold any part of a token.

/// What a caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 401 without a word: nothing was shown.
    NoCredentials,
    /// 401, `invalid_token`.
    InvalidToken,
    /// 401, `invalid_dpop_proof`.
    InvalidProof,
    /// 401, `use_dpop_nonce`.
    UseNonce,
    /// 403, `insufficient_scope`.
    InsufficientScope,
    /// 503: the bridge cannot tell right now.
    Unavailable,
}

/// The rule that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// No header `Authorization`.
    NoToken,
    /// Two of a header of which there may be one.
    RepeatedHeader,
    /// Another scheme than the deployment's.
    Scheme,
    /// More bytes than a token may have.
    TokenSize,
    /// No compact JWS, or not of strict base64url and JSON objects without doubled members.
    TokenShape,
    /// `crit`: it asks for something to be understood.
    TokenCritical,
    /// `alg` is none of those that are taken.
    TokenAlgorithm,
    /// `typ` is neither `at+jwt` nor `JWT`.
    TokenType,
    /// No `kid`.
    KeyId,
    /// The issuer publishes no such key.
    UnknownKey,
    /// The key is not one for this algorithm.
    KeyAlgorithm,
    /// The signature is another's.
    TokenSignature,
    /// `iss` is another.
    Issuer,
    /// `aud` is not this API, or not this alone.
    Audience,
    /// `exp` is past, or missing.
    Expired,
    /// `nbf` lies ahead.
    NotYetValid,
    /// `iat` lies ahead.
    IssuedAt,
    /// No `client_id`.
    Client,
    /// `scope` is neither a text nor a list of texts.
    ScopeShape,
    /// No organisation number that could be one, where one must or may stand.
    Organisation,
    /// `cnf` is malformed.
    Confirmation,
    /// The token is bound to no key, and must be.
    Unbound,
    /// The token is bound to a key, and bearer tokens are taken here.
    Bound,
    /// A token of the bridge's own, where an issuer vouches.
    LocalToken,
    /// No header `DPoP`.
    NoProof,
    /// More bytes than a proof may have.
    ProofSize,
    /// No compact JWS.
    ProofShape,
    /// `crit` in a proof.
    ProofCritical,
    /// The proof's `typ` is not `dpop+jwt`.
    ProofType,
    /// The proof's `alg` is none of those that are taken.
    ProofAlgorithm,
    /// The proof's `jwk` is missing, malformed, or of a kind or size that is not taken.
    ProofKey,
    /// The proof's `jwk` has a private part.
    ProofKeyPrivate,
    /// The token is bound to another key.
    ProofBinding,
    /// The proof's signature is another's.
    ProofSignature,
    /// `ath` is of another token.
    ProofToken,
    /// No `jti`, or one that is too long.
    ProofId,
    /// `htm` is another method.
    ProofMethod,
    /// `htu` is another address.
    ProofAddress,
    /// `iat` lies outside the window.
    ProofTime,
    /// No nonce of the bridge's, or an old one.
    ProofNonce,
    /// The proof was used before.
    Replayed,
    /// No more proofs can be remembered.
    ReplaysFull,
    /// No scope of this API.
    NoRole,
    /// A supplier acts for an organisation that has not let it.
    Supplier,
    /// The child is no unit of the parent.
    Child,
    /// Who acts for whom is not known yet.
    NoDelegations,
    /// Which units there are is not known yet.
    NoUnits,
    /// The issuer's keys are not known, or too old.
    NoKeys,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 48] = [
        Self::NoToken,
        Self::RepeatedHeader,
        Self::Scheme,
        Self::TokenSize,
        Self::TokenShape,
        Self::TokenCritical,
        Self::TokenAlgorithm,
        Self::TokenType,
        Self::KeyId,
        Self::UnknownKey,
        Self::KeyAlgorithm,
        Self::TokenSignature,
        Self::Issuer,
        Self::Audience,
        Self::Expired,
        Self::NotYetValid,
        Self::IssuedAt,
        Self::Client,
        Self::ScopeShape,
        Self::Organisation,
        Self::Confirmation,
        Self::Unbound,
        Self::Bound,
        Self::LocalToken,
        Self::NoProof,
        Self::ProofSize,
        Self::ProofShape,
        Self::ProofCritical,
        Self::ProofType,
        Self::ProofAlgorithm,
        Self::ProofKey,
        Self::ProofKeyPrivate,
        Self::ProofBinding,
        Self::ProofSignature,
        Self::ProofToken,
        Self::ProofId,
        Self::ProofMethod,
        Self::ProofAddress,
        Self::ProofTime,
        Self::ProofNonce,
        Self::Replayed,
        Self::ReplaysFull,
        Self::NoRole,
        Self::Supplier,
        Self::Child,
        Self::NoDelegations,
        Self::NoUnits,
        Self::NoKeys,
    ];

    /// Its name in metrics and logs, and what the caller is told.
    pub const fn parts(self) -> (&'static str, Refusal) {
        use Refusal::{InsufficientScope, InvalidProof, InvalidToken, NoCredentials, Unavailable, UseNonce};
        match self {
            Self::NoToken => ("no-token", NoCredentials),
            Self::RepeatedHeader => ("repeated-header", InvalidToken),
            Self::Scheme => ("scheme", InvalidToken),
            Self::TokenSize => ("token-size", InvalidToken),
            Self::TokenShape => ("token-shape", InvalidToken),
            Self::TokenCritical => ("token-critical", InvalidToken),
            Self::TokenAlgorithm => ("token-algorithm", InvalidToken),
            Self::TokenType => ("token-type", InvalidToken),
            Self::KeyId => ("key-id", InvalidToken),
            Self::UnknownKey => ("unknown-key", InvalidToken),
            Self::KeyAlgorithm => ("key-algorithm", InvalidToken),
            Self::TokenSignature => ("token-signature", InvalidToken),
            Self::Issuer => ("issuer", InvalidToken),
            Self::Audience => ("audience", InvalidToken),
            Self::Expired => ("expired", InvalidToken),
            Self::NotYetValid => ("not-yet-valid", InvalidToken),
            Self::IssuedAt => ("issued-at", InvalidToken),
            Self::Client => ("client", InvalidToken),
            Self::ScopeShape => ("scope-shape", InvalidToken),
            Self::Organisation => ("organisation", InvalidToken),
            Self::Confirmation => ("confirmation", InvalidToken),
            Self::Unbound => ("unbound", InvalidToken),
            Self::Bound => ("bound", InvalidToken),
            Self::LocalToken => ("local-token", InvalidToken),
            Self::NoProof => ("no-proof", InvalidProof),
            Self::ProofSize => ("proof-size", InvalidProof),
            Self::ProofShape => ("proof-shape", InvalidProof),
            Self::ProofCritical => ("proof-critical", InvalidProof),
            Self::ProofType => ("proof-type", InvalidProof),
            Self::ProofAlgorithm => ("proof-algorithm", InvalidProof),
            Self::ProofKey => ("proof-key", InvalidProof),
            Self::ProofKeyPrivate => ("proof-key-private", InvalidProof),
            Self::ProofBinding => ("proof-binding", InvalidProof),
            Self::ProofSignature => ("proof-signature", InvalidProof),
            Self::ProofToken => ("proof-token", InvalidProof),
            Self::ProofId => ("proof-id", InvalidProof),
            Self::ProofMethod => ("proof-method", InvalidProof),
            Self::ProofAddress => ("proof-address", InvalidProof),
            Self::ProofTime => ("proof-time", InvalidProof),
            Self::ProofNonce => ("proof-nonce", UseNonce),
            Self::Replayed => ("replayed", InvalidProof),
            Self::ReplaysFull => ("replays-full", Unavailable),
            Self::NoRole => ("no-role", InsufficientScope),
            Self::Supplier => ("supplier", InsufficientScope),
            Self::Child => ("child", InsufficientScope),
            Self::NoDelegations => ("no-delegations", Unavailable),
            Self::NoUnits => ("no-units", Unavailable),
            Self::NoKeys => ("no-keys", Unavailable),
        }
    }

    /// Its name in metrics and logs.
    pub const fn reason(self) -> &'static str {
        self.parts().0
    }

    /// What the caller is told.
    pub const fn refusal(self) -> Refusal {
        self.parts().1
    }
}
