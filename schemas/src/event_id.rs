//! Deterministic event ids: the same change published twice has the same id.
//!
//! `ce_id` = UUIDv5(source, cause, key, element). The cause is a feed position, or a snapshot
//! run's number. Must never take a clock or randomness.

use uuid::Uuid;

/// Namespace of all event ids. It is arbitrary and must never change.
const NAMESPACE: Uuid = Uuid::from_u128(0x6b1f_6c0e_2f0a_5d4c_9a1e_7279_6767_7261);

/// The id of the event that `cause` at `source` makes for `key`. `element` tells apart events
/// that one cause makes for one key; empty for the whole entity.
pub fn event_id(source: &str, cause: &str, key: &str, element: &str) -> Uuid {
    // A separator that no part can contain keeps ("ab", "c") apart from ("a", "bc").
    let name = [source, cause, key, element].join("\u{1f}");
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::event_id;

    #[test]
    fn the_same_cause_has_the_same_id_and_every_part_counts() {
        let id = event_id("enheter", "17", "312345676", "");
        assert_eq!(id, event_id("enheter", "17", "312345676", ""));
        for other in [
            event_id("underenheter", "17", "312345676", ""),
            event_id("enheter", "18", "312345676", ""),
            event_id("enheter", "17", "212345679", ""),
            event_id("enheter", "17", "312345676", "navn"),
            event_id("enheter1", "7", "312345676", ""),
        ] {
            assert_ne!(id, other);
        }
    }
}
