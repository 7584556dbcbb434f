//! How a delivery that was set aside is named: by where its event stands; where a topic is not for everyone, by a word
//! that tells nothing of that.
//!
//! A word is an HMAC over subscription and place. Must never give a receiver an offset of a topic whose other records it
//! must not know of.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, Mac};
use serde::{Serialize, Serializer};
use sha2::Sha256;
use uuid::Uuid;

const WORD_BYTES: usize = 16;

/// Names one of a subscription's dead letters. Ordered as they are listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LetterName {
    /// Where its event stands.
    Place {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
    },
    /// A word for it.
    Word {
        /// The topic.
        topic: String,
        /// The word.
        word: String,
    },
}

// No topic's name holds a colon, and no word is a number with two of them.
impl fmt::Display for LetterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place { topic, partition, offset } => write!(f, "{topic}:{partition}:{offset}"),
            Self::Word { topic, word } => write!(f, "{topic}:{word}"),
        }
    }
}

impl Serialize for LetterName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a text names no dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is the id of a dead letter, as the list shows it")]
pub struct InvalidName;

impl FromStr for LetterName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (topic, rest) = text.split_once(':').ok_or(InvalidName)?;
        let topic = topic.to_owned();
        match rest.split_once(':') {
            Some((partition, offset)) => {
                let (partition, offset) = (partition.parse().map_err(|_| InvalidName)?, offset.parse().map_err(|_| InvalidName)?);
                Ok(Self::Place { topic, partition, offset })
            }
            None if rest.len() == 2 * WORD_BYTES && rest.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Ok(Self::Word { topic, word: rest.to_owned() })
            }
            None => Err(InvalidName),
        }
    }
}

/// Makes words. The key never prints.
#[derive(Clone)]
pub struct WordKey(Hmac<Sha256>);

impl fmt::Debug for WordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WordKey(…)")
    }
}

impl WordKey {
    /// A key for this purpose alone.
    pub fn new(key: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
        Self(mac)
    }

    /// The name of what a subscription has set aside, where its topic is not for everyone.
    pub fn name(&self, subscription: Uuid, topic: &str, partition: i32, offset: i64) -> LetterName {
        let mut mac = self.0.clone();
        mac.update(subscription.as_bytes());
        mac.update(&partition.to_be_bytes());
        mac.update(&offset.to_be_bytes());
        mac.update(topic.as_bytes());
        let word = mac.finalize().into_bytes()[..WORD_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        LetterName::Word { topic: topic.to_owned(), word }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word_and_back() {
        let place = LetterName::Place { topic: "grunndata.virksomhet.v1".to_owned(), partition: 3, offset: 17 };
        assert_eq!(place.to_string(), "grunndata.virksomhet.v1:3:17");
        let word = WordKey::new(&[7; 32]).name(Uuid::nil(), "proeve.maaling.v1", 3, 17);
        for name in [place, word] {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        for text in ["", "a", "a:1", "a:x:1", "a:1:", "a:1:99999999999999999999", "a:1:2:3", "a:00", &format!("a:{}", "x".repeat(32))] {
            assert_eq!(text.parse::<LetterName>(), Err(InvalidName), "{text}");
        }
    }

    #[test]
    fn a_word_is_one_places_of_one_subscription_alone() {
        let key = WordKey::new(&[7; 32]);
        let word = key.name(Uuid::nil(), "t", 3, 17);
        assert_eq!(key.name(Uuid::nil(), "t", 3, 17), word);
        for other in [
            key.name(Uuid::from_u128(1), "t", 3, 17),
            key.name(Uuid::nil(), "u", 3, 17),
            key.name(Uuid::nil(), "t", 4, 17),
            key.name(Uuid::nil(), "t", 3, 18),
            WordKey::new(&[8; 32]).name(Uuid::nil(), "t", 3, 17),
        ] {
            assert_ne!(other, word);
        }
    }
}
