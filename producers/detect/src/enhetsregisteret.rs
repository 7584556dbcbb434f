//! Enhetsregisteret: its update pages, its look-ups, and the virksomhet events made of them.
//!
//! Source of the rules: Brønnøysundregistrene's open API. Must never interpret more than it has
//! to: what upstream sends passes as it is, and what can't pass is quarantined, never guessed.

mod dump;
mod endringer;
mod event;
mod look_up;
mod page;

use ryggrad_schemas::virksomhet::Virksomhetstype;

pub use event::{Feed, UnknownFeed};
pub use look_up::{Answer, LookUpError, State, gone, read_document, unknown};
pub use page::{Change, PageError, read_page, repaired};

use crate::quarantine::Reason;

/// Why items and documents of this registry are set aside.
pub mod reasons {
    use super::Reason;

    /// An item that is no JSON object.
    pub const NO_OBJECT: Reason = Reason { code: "item-no-object", text: "the item is no JSON object" };
    /// An item with a text that is none.
    pub const NO_TEXT: Reason =
        Reason { code: "item-no-text", text: "the item has a text with half of a pair of surrogates, which is no text" };
    /// An item without a usable id.
    pub const NO_POSITION: Reason = Reason { code: "item-no-position", text: "the item has no readable oppdateringsid" };
    /// An item without a usable key.
    pub const NO_KEY: Reason = Reason { code: "item-no-key", text: "the item has no organisasjonsnummer of nine digits" };
    /// Upstream does not know what its own feed names.
    pub const UNKNOWN: Reason = Reason { code: "look-up-unknown", text: "the feed tells of a change, the look-up knows no such unit" };
    /// A look-up answered with another thing than an object.
    pub const DOCUMENT_NO_OBJECT: Reason = Reason { code: "document-no-object", text: "the look-up's document is no JSON object" };
    /// A look-up answered with another unit, or none.
    pub const DOCUMENT_OTHER_KEY: Reason =
        Reason { code: "document-other-key", text: "the look-up's document has another organisasjonsnummer than was asked for, or none" };
    /// A row of a dump that is no JSON object.
    pub const ROW_NO_OBJECT: Reason = Reason { code: "row-no-object", text: "the row of the dump is no JSON object" };
    /// A row of a dump without a usable key.
    pub const ROW_NO_KEY: Reason = Reason { code: "row-no-key", text: "the row of the dump has no organisasjonsnummer of nine digits" };
    /// A look-up fails again and again while others succeed.
    pub const LOOK_UP_FAILED: Reason =
        Reason { code: "look-up-failed", text: "the look-up failed again and again, while others succeeded" };
    /// The event would be larger than Kafka takes.
    pub const TOO_LARGE: Reason = Reason { code: "event-too-large", text: "the event would be larger than Kafka takes" };
    /// The state does not fit its schema.
    pub const UNENCODABLE: Reason = Reason { code: "event-unencodable", text: "the state does not fit the event's schema" };
}

/// Oddities that are counted but stop nothing.
pub mod oddities {
    /// An endringstype that we do not know.
    pub const UNKNOWN_ENDRINGSTYPE: &str = "unknown-endringstype";
    /// A number whose check digit is wrong.
    pub const CHECK_DIGIT: &str = "check-digit";
    /// Changes told in a form that we do not know.
    pub const ENDRINGER: &str = "unreadable-endringer";
}

/// Names that differ between the two kinds of unit.
const fn list_name(virksomhetstype: Virksomhetstype) -> &'static str {
    match virksomhetstype {
        Virksomhetstype::Enhet => "oppdaterteEnheter",
        Virksomhetstype::Underenhet => "oppdaterteUnderenheter",
    }
}

/// The list in the registry's addresses that has a kind of unit's documents and its bulk file.
pub const fn document_list(virksomhetstype: Virksomhetstype) -> &'static str {
    match virksomhetstype {
        Virksomhetstype::Enhet => "enheter",
        Virksomhetstype::Underenhet => "underenheter",
    }
}
