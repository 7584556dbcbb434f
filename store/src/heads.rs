//! Where chains of records of disclosures stood, in a tree of their own: what a log alone cannot tell of its own end.
//!
//! Values begin with a checksum; one that is damaged counts as not there.

use ryggrad_bridge_core::disclosure::Head;
use ryggrad_schemas::identifiers::Organisasjonsnummer;

use crate::checksum::{checked, with_checksum};
use crate::open::{OpenError, Store};

const NUMBER_BYTES: usize = 8;

/// Where a controller's chain stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptHead {
    /// The controller.
    pub controller: Organisasjonsnummer,
    /// Its last record then.
    pub head: Head,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
}

impl KeptHead {
    pub(crate) fn key(&self) -> String {
        self.controller.to_string()
    }

    /// As it is stored.
    pub fn value(&self) -> Vec<u8> {
        let body = [&self.at_ms.to_be_bytes()[..], &self.head.number.to_be_bytes(), self.head.hash.as_bytes()].concat();
        with_checksum(&body)
    }

    /// Reads what is stored of a controller; nothing if it is damaged.
    pub fn parse(controller: Organisasjonsnummer, value: &[u8]) -> Option<Self> {
        let body = checked(value)?;
        let (at_ms, rest) = body.split_first_chunk::<NUMBER_BYTES>()?;
        let (number, hash) = rest.split_first_chunk::<NUMBER_BYTES>()?;
        let head = Head { number: u64::from_be_bytes(*number), hash: String::from_utf8(hash.to_vec()).ok()? };
        Some(Self { controller, head, at_ms: i64::from_be_bytes(*at_ms) })
    }
}

impl Store {
    /// Where a controller's chain stood when that was last kept.
    pub fn head(&self, controller: Organisasjonsnummer) -> Result<Option<KeptHead>, OpenError> {
        Ok(self.heads.get(controller.to_string())?.and_then(|value| KeptHead::parse(controller, &value)))
    }
}
