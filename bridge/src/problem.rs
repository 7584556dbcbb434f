//! Errors at the edge: problem+json (RFC 9457). The page of each code is in `docs/errors`.
//!
//! Must never carry an internal address, a secret or a stack.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ryggrad_bridge_core::access::Reason;
use ryggrad_bridge_core::role::Role;
use ryggrad_bridge_core::settings::Channel;
use ryggrad_bridge_core::subscription::Fault;
use serde::Serialize;

const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// What can be wrong. A code keeps its status and its title, whatever the occasion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// A cursor that is damaged or another subscription's.
    Cursor,
    /// No good token.
    Unauthorised,
    /// A token without the role.
    Forbidden,
    /// Whoever the subscription is for is stopped.
    Stopped,
    /// Absent, or somebody else's.
    NotFound,
    /// Not that method.
    Method,
    /// A limit is reached.
    Limit,
    /// Something else needs it.
    InUse,
    /// The call is for another channel.
    Channel,
    /// The endpoint has not agreed.
    Unverified,
    /// The first request with an idempotency key has no answer yet.
    UnderWay,
    /// The cursor's run of numbers is over, or passed.
    Resync,
    /// `If-Match` names another version.
    Precondition,
    /// Too many bytes.
    TooLarge,
    /// Wrong fields.
    Invalid,
    /// An idempotency key with another request.
    KeyReused,
    /// No WebSocket handshake.
    Upgrade,
    /// Once a second is enough.
    TooSoon,
    /// Too many requests of one organisation.
    TooMany,
    /// Not now.
    Unavailable,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 20] = [
        Self::Cursor,
        Self::Unauthorised,
        Self::Forbidden,
        Self::Stopped,
        Self::NotFound,
        Self::Method,
        Self::Limit,
        Self::InUse,
        Self::Channel,
        Self::Unverified,
        Self::UnderWay,
        Self::Resync,
        Self::Precondition,
        Self::TooLarge,
        Self::Invalid,
        Self::KeyReused,
        Self::Upgrade,
        Self::TooSoon,
        Self::TooMany,
        Self::Unavailable,
    ];

    /// Its status, its name in `type`, and its title.
    const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Cursor => (StatusCode::BAD_REQUEST, "cursor", "The cursor is not one of this subscription"),
            Self::Unauthorised => (StatusCode::UNAUTHORIZED, "unauthorised", "A valid token is needed"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "This token may not do that"),
            Self::Stopped => (StatusCode::FORBIDDEN, "stopped", "Whoever this subscription is for is stopped"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "There is no such thing here"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "method", "This address does not take that method"),
            Self::Limit => (StatusCode::CONFLICT, "limit", "A limit is reached"),
            Self::InUse => (StatusCode::CONFLICT, "in-use", "It is in use"),
            Self::Channel => (StatusCode::CONFLICT, "channel", "The subscription has another channel"),
            Self::Unverified => (StatusCode::CONFLICT, "unverified", "The endpoint is not verified"),
            Self::UnderWay => (StatusCode::CONFLICT, "under-way", "The first request with this key is under way"),
            Self::Resync => (StatusCode::GONE, "resync", "The cursor is over"),
            Self::Precondition => (StatusCode::PRECONDITION_FAILED, "precondition", "It is not what the request took it for"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large"),
            Self::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The request has wrong fields"),
            Self::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "key-reused", "This key belongs to another request"),
            Self::Upgrade => (StatusCode::UPGRADE_REQUIRED, "upgrade", "This address speaks WebSocket"),
            Self::TooSoon => (StatusCode::TOO_MANY_REQUESTS, "too-soon", "That was done just now"),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "too-many", "These are too many requests"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The bridge cannot do that right now"),
        }
    }

    /// Its status.
    pub const fn status(self) -> u16 {
        self.parts().0.as_u16()
    }

    /// Its title.
    pub const fn title(self) -> &'static str {
        self.parts().2
    }

    /// Its `type`.
    pub fn urn(self) -> String {
        format!("urn:ryggrad:error:{}", self.parts().1)
    }
}

/// One problem.
#[derive(Debug, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Fault>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_role: Option<Role>,
    #[serde(skip)]
    retry_after_s: Option<u16>,
    #[serde(skip)]
    challenge: Option<Box<Challenge>>,
}

/// What a caller who was not let in is asked for, in headers.
#[derive(Debug)]
pub struct Challenge {
    /// `WWW-Authenticate`.
    pub authenticate: String,
    /// `DPoP-Nonce`.
    pub nonce: Option<String>,
}

impl Problem {
    fn new(code: Code, detail: impl Into<String>) -> Self {
        let (status, _, title) = code.parts();
        let (kind, status) = (code.urn(), status.as_u16());
        Self { kind, title, status, detail: detail.into(), errors: Vec::new(), missing_role: None, retry_after_s: None, challenge: None }
    }

    /// The same, noted in the log: loudly where the bridge could not, for the curious where its caller has to mend something.
    pub fn noted(self, what: &str, error: &str, cause: Option<String>) -> Self {
        if self.status >= StatusCode::INTERNAL_SERVER_ERROR.as_u16() {
            tracing::warn!(error, cause, "{what}");
        } else {
            tracing::debug!(error, cause, "{what}");
        }
        self
    }

    /// 400: a cursor that is not this subscription's.
    pub fn cursor(why: &str) -> Self {
        let remedy = "leave it out to go on after what is acknowledged, or use one from an answer for this subscription";
        Self::new(Code::Cursor, format!("{why}; {remedy}"))
    }

    /// 410: what follows the cursor was taken, and is not kept.
    pub fn passed() -> Self {
        let detail = "the subscription's cursor stands after this one: some of what follows it was taken already; leave it out to go on";
        Self::new(Code::Resync, detail)
    }

    /// 426: an address that is for WebSockets.
    pub fn upgrade() -> Self {
        let detail = "open a WebSocket (version 13) and offer the subprotocol ryggrad.v1 or cloudevents.json";
        Self::new(Code::Upgrade, detail)
    }

    /// 401.
    pub fn unauthorised(detail: &str) -> Self {
        Self::new(Code::Unauthorised, detail)
    }

    /// 403.
    pub fn forbidden(detail: &str) -> Self {
        Self::new(Code::Forbidden, detail)
    }

    /// 403: nothing leaves while whoever a subscription is for is stopped.
    pub fn stopped(reason: Reason) -> Self {
        let remedy = "nothing is lost: what waits comes when that has ended, which the bridge's operator can tell more about";
        Self::new(Code::Stopped, format!("{}; {remedy}", reason.in_plain_words()))
    }

    /// 403: an organisation merely sees what a supplier has made for it.
    pub fn run_by_supplier() -> Self {
        Self::forbidden("the supplier that made it runs it; the organisation sees it, and may pause, resume and delete it")
    }

    /// 403: a supplier may not act for these types.
    pub fn not_delegated(types: &[&str]) -> Self {
        let reason = Reason::NotDelegated.in_plain_words();
        Self::forbidden(&format!("{reason}: {}; the organisation delegates (ryggrad delegations create)", types.join(", ")))
    }

    /// 403 for a token that lacks a role.
    pub fn lacks(role: Role) -> Self {
        let name = role.name();
        let detail = format!("it lacks the role {name}; ask the operator for a token with it (ryggrad tokens issue --role {name})");
        Self { missing_role: Some(role), ..Self::forbidden(&detail) }
    }

    /// 403 for a token of an issuer without the scope of a role.
    pub fn lacks_scope(role: Role, scope: &str) -> Self {
        let detail = format!("it lacks the scope {scope}; ask the issuer for a token with it");
        Self { missing_role: Some(role), ..Self::forbidden(&detail) }
    }

    /// The same problem, with what the caller is asked for.
    pub fn challenged(self, challenge: Challenge) -> Self {
        Self { challenge: Some(Box::new(challenge)), ..self }
    }

    /// 404. The same for what is absent and for what is somebody else's.
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("no {what} of that name is yours"))
    }

    /// 405.
    pub fn method() -> Self {
        Self::new(Code::Method, "see the API's description for what it takes")
    }

    /// 409, for a call that has no meaning for the subscription's channel.
    pub fn other_channel(channel: Channel) -> Self {
        let detail = match channel {
            Channel::Webhook => "its events are posted to its sink; to fetch events, make a subscription with channel pull",
            Channel::Kafka => "its events are written to its topic, which is read with a Kafka client",
            Channel::Pull | Channel::WebSocket => {
                "its receiver comes for events: GET …/events or …/socket; to have events posted, make a subscription with channel webhook"
            }
        };
        Self::new(Code::Channel, detail)
    }

    /// 409: nothing is sent to an endpoint that has not agreed.
    pub fn unverified() -> Self {
        let detail = "the endpoint has not agreed to be called; see verification, let it answer the handshake or echo the challenge, \
                      and ask it again with POST …/verify";
        Self::new(Code::Unverified, detail)
    }

    /// 410: the cursor's run of numbers is over.
    pub fn resync() -> Self {
        let detail = "the bridge has lost this subscription's position and has begun to number anew; fetch without a cursor: \
                      events may come again, with the ids that they had";
        Self::new(Code::Resync, detail)
    }

    /// 412.
    pub fn precondition() -> Self {
        let detail = "it was changed since; get it again, look at the change, and repeat the request with its ETag in If-Match";
        Self::new(Code::Precondition, detail)
    }

    /// 409: whoever repeats a request waits for the first one's end.
    pub fn under_way() -> Self {
        let problem = Self::new(Code::UnderWay, "the first request with this Idempotency-Key has no answer yet; repeat it in a second");
        Self { retry_after_s: Some(1), ..problem }
    }

    /// 422: a key says that a request is the same, and it is not.
    pub fn key_reused() -> Self {
        Self::new(
            Code::KeyReused,
            "another request came with this Idempotency-Key; draw a key for each request, and keep it for its repetitions",
        )
    }

    /// 413.
    pub fn too_large(limit_bytes: usize) -> Self {
        Self::new(Code::TooLarge, format!("a request has at most {limit_bytes} bytes"))
    }

    /// 409, for a limit that is reached.
    pub fn limit(detail: String) -> Self {
        Self::new(Code::Limit, detail)
    }

    /// 409: something else needs what is to be deleted.
    pub fn in_use(detail: &str) -> Self {
        Self::new(Code::InUse, detail)
    }

    /// 422 with every wrong field.
    pub fn invalid(errors: Vec<Fault>) -> Self {
        let mut problem = Self::new(Code::Invalid, String::new());
        problem.detail = format!("{} to mend, see errors", errors.len());
        problem.errors = errors;
        problem
    }

    /// 429: once a second is enough.
    pub fn too_soon() -> Self {
        let detail = "an endpoint is called by hand once a second at most";
        let problem = Self::new(Code::TooSoon, detail);
        Self { retry_after_s: Some(1), ..problem }
    }

    /// 429: an organisation has used up what it has of requests.
    pub fn too_many(retry_after_s: u16) -> Self {
        let problem =
            Self::new(Code::TooMany, "your organisation calls more often than it may; wait, ask for more at once, or let events be posted");
        Self { retry_after_s: Some(retry_after_s), ..problem }
    }

    /// 503: not now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let problem = Self::new(Code::Unavailable, detail);
        Self { retry_after_s: Some(2), ..problem }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some(Challenge { authenticate, nonce }) = self.challenge.as_deref() {
            let named = [(header::WWW_AUTHENTICATE, Some(authenticate)), (DPOP_NONCE, nonce.as_ref())];
            for (name, value) in named {
                if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
                    response.headers_mut().insert(name, value);
                }
            }
        } else if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(retry_after_s) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
        }
        response
    }
}
