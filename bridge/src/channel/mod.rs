//! Delivery channels. A channel makes one attempt and says how it ended; it never retries and
//! never decides.
//!
//! The webhook channel: [`webhook`] makes and signs requests, [`handshake`] asks an endpoint whether
//! it wants them, [`client`] keeps connections, [`connection`] speaks HTTP/1.1 on one of them,
//! [`document`] fetches what an operator has named, [`answer`] reads what comes back, [`guard`] finds the
//! addresses that may be connected to, [`tls`] says whom to trust, [`timer`] limits what all this may take.

pub mod answer;
mod client;
pub mod connection;
pub mod document;
pub mod guard;
pub mod handshake;
mod timer;
pub(crate) mod tls;
pub mod webhook;

pub use tls::InvalidTls;

/// What went wrong in an attempt, in a word. All words that there are: the API shows them.
pub mod fault {
    /// No address of the endpoint is open to the bridge.
    pub const EGRESS_REFUSED: &str = "egress-refused";
    /// The host's name was not found.
    pub const RESOLVE: &str = "resolve";
    /// No connection came about.
    pub const CONNECT: &str = "connect";
    /// No trust came about: certificate, name or protocol.
    pub const TLS: &str = "tls";
    /// No answer in time.
    pub const TIMEOUT: &str = "timeout";
    /// The connection broke, or the answer was no HTTP.
    pub const TRANSPORT: &str = "transport";
    /// It was not to leave any more once there was a connection; the API never shows it, since nothing was sent.
    pub const WITHDRAWN: &str = "withdrawn";
}
