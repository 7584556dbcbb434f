//! The entity tag of a subscription, and what a request may demand of it (RFC 9110, `If-Match`).
//!
//! A tag follows what the owner has asked for, and never what became of it: how far the cursor is, what the endpoint
//! has agreed to and which replaced secrets still sign leave it alone. It tells nobody anything of a secret.

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Subscription;

const TAG_BYTES: usize = 16;

impl Subscription {
    /// Its entity tag, with its quotes.
    pub fn tag(&self) -> String {
        let definition = (
            (&self.types, &self.filters, &self.sink, &self.description, self.state),
            (&self.delivery, &self.headers, &self.sealed_headers, self.verify, &self.sealed_secret),
        );
        entity_tag(&definition)
    }
}

/// The entity tag of what is defined like this, with its quotes.
pub fn entity_tag(definition: &impl Serialize) -> String {
    // Our own types, all of which have a JSON form.
    let digest = Sha256::digest(serde_json::to_vec(definition).unwrap_or_default());
    let digits: String = digest.iter().take(TAG_BYTES).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}\"")
}

/// What a request demands: nothing, or that the tag is one of these.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Precondition(Option<Vec<String>>);

impl Precondition {
    /// What the values of all headers `If-Match` say; there may be none.
    pub fn if_match<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return Self(None);
        }
        // None of our tags holds a comma.
        Self(Some(values.flat_map(|value| value.split(',')).map(|tag| tag.trim().to_owned()).collect()))
    }

    /// Whether a subscription is as demanded. A weak tag promises too little, and never is.
    pub fn holds_for(&self, subscription: &Subscription) -> bool {
        self.holds(Some(&subscription.tag()))
    }

    /// Whether something is as demanded that has this tag, or is not there at all.
    pub fn holds(&self, own: Option<&str>) -> bool {
        let Some(tags) = &self.0 else { return true };
        own.is_some_and(|own| tags.iter().any(|tag| tag == "*" || tag == own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscription::tests::example;
    use crate::subscription::{State, Verification, VerificationState};

    #[test]
    fn a_tag_follows_the_definition_and_not_its_fate() {
        let tag = example().tag();
        assert!(tag.len() == 2 * TAG_BYTES + 2 && tag.starts_with('"') && tag.ends_with('"'), "{tag}");
        let verification = Verification { state: VerificationState::Verified, ..Verification::default() };
        let later = Subscription { verification, reason: Some("x".to_owned()), previous: Vec::new(), ..example() };
        assert_eq!(later.tag(), tag);
        for other in [
            Subscription { types: vec!["*".to_owned()], ..example() },
            Subscription { filters: None, ..example() },
            Subscription { sink: None, ..example() },
            Subscription { description: None, ..example() },
            Subscription { state: State::Paused, ..example() },
            Subscription { sealed_headers: None, ..example() },
            Subscription { sealed_secret: "x".to_owned(), ..example() },
        ] {
            assert_ne!(other.tag(), tag, "{other:?}");
        }
    }

    #[test]
    fn only_a_strong_tag_of_just_this_definition_will_do() {
        let own = example().tag();
        for (values, expected) in [
            (vec![], true),
            (vec![own.clone()], true),
            (vec!["*".to_owned()], true),
            (vec![format!("\"a\" ,{own}")], true),
            (vec!["\"a\"".to_owned(), own.clone()], true),
            (vec![String::new()], false),
            (vec!["\"a\", \"b\"".to_owned()], false),
            (vec![format!("W/{own}")], false),
            (vec![own.trim_matches('"').to_owned()], false),
        ] {
            let demanded = Precondition::if_match(values.iter().map(String::as_str));
            assert_eq!(demanded.holds_for(&example()), expected, "{values:?}");
        }
    }
}
