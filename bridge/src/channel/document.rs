//! Fetching a document from an address that the operator has named: under the same guard as every delivery.
//!
//! Must never follow a redirect, nor read more than it was told to.

use ryggrad_bridge_core::egress::{Refusal, check_url};

use super::client::Request;
use super::timer::Timer;
use super::webhook::{Webhook, put, request_head};

/// Why there is no document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoDocument {
    /// The bridge may not call it.
    #[error("the address is refused: {0}")]
    Refused(Refusal),
    /// No answer; in one of the words of [`fault`](super::fault).
    #[error("there was no answer ({0})")]
    NoAnswer(&'static str),
    /// Another answer than 200.
    #[error("the answer was {0}")]
    Status(u16),
}

impl Webhook {
    /// A document of at most so many bytes. Of a longer one the beginning or nothing, which is no JSON.
    pub async fn document(&self, address: &str, bytes_max: usize) -> Result<Vec<u8>, NoDocument> {
        let url = check_url(address, self.client.policy()).map_err(NoDocument::Refused)?;
        let mut head = request_head("GET", &url);
        put(&mut head, "accept", "application/json");
        head.extend_from_slice(b"\r\n");
        let endpoint = self.client.endpoint(&url);
        let request = Request { head: &head, body: &[], answer_bytes_max: bytes_max, keep_body: true, may_leave: &|| true };
        let reply = self.client.exchange(&mut Timer::default(), &endpoint, request).await.map_err(NoDocument::NoAnswer)?;
        if reply.head.code == 200 { Ok(reply.body) } else { Err(NoDocument::Status(reply.head.code)) }
    }
}
