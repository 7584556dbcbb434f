//! What callers bring back that the bridge has given them: cursors, sealed values, tags in conditions; signed messages.
//!
//! Laws: nothing opens that was not made here, as it was made, for that place.

use std::sync::LazyLock;

use ryggrad_bridge_core::asymmetric::{PublicKey, SigningKey};
use ryggrad_bridge_core::idempotency::is_key;
use ryggrad_bridge_core::pull_cursor::{CursorKey, PullCursor};
use ryggrad_bridge_core::signature::{Secret, sign, verify};
use ryggrad_bridge_core::subscription::Precondition;
use ryggrad_log::Seal;
use uuid::Uuid;

use crate::parts::{altered, choose, divide, seed, tells_nothing_of, told};

const SUBSCRIPTION: Uuid = Uuid::from_u128(7);
const ID: &str = "msg_1";
const AT_S: i64 = 1_700_000_000;
const BODY: &[u8] = b"{}";

static KEY: LazyLock<CursorKey> = LazyLock::new(|| CursorKey::new(&[1; 32]));
static SEAL: LazyLock<Seal> = LazyLock::new(|| Seal::new(&[2; 32]));
// Nothing is ever made with these: a fuzzer that watches comparisons sees what is made here, and shows it.
static NOBODYS_KEY: LazyLock<CursorKey> = LazyLock::new(|| CursorKey::new(&[5; 32]));
static NOBODYS_SEAL: LazyLock<Seal> = LazyLock::new(|| Seal::new(&[6; 32]));
static SECRET: LazyLock<Secret> = LazyLock::new(|| Secret::from_bytes(vec![3; 32]).unwrap());
static SIGNER: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_seed(&[4; 32]).unwrap());

pub(crate) fn run(input: &[u8]) -> bool {
    let Some((parser, rest)) = choose(input, 9) else { return false };
    match parser {
        0 => {
            assert!(NOBODYS_KEY.decode(SUBSCRIPTION, &String::from_utf8_lossy(rest)).is_err(), "a cursor opens that was not made here");
            true
        }
        1 => {
            let (number, changes) = rest.split_at(rest.len().min(12));
            let Some((epoch, number)) = number.split_first_chunk::<4>() else { return false };
            let Ok(number) = number.try_into().map(u64::from_be_bytes) else { return false };
            let cursor = PullCursor { epoch: u32::from_be_bytes(*epoch), number };
            let text = KEY.encode(SUBSCRIPTION, cursor);
            let changed = String::from_utf8(altered(text.as_bytes(), changes)).unwrap_or_default();
            let read = KEY.decode(SUBSCRIPTION, &changed);
            assert_eq!(read.ok(), (changed == text).then_some(cursor));
            assert!(KEY.decode(Uuid::from_u128(8), &text).is_err());
            changed == text
        }
        2 => {
            assert!(NOBODYS_SEAL.open("here", rest).is_err(), "a value opens that was not sealed here");
            true
        }
        3 => {
            let Some((plain, changes)) = divide(rest) else { return false };
            let sealed = SEAL.seal([5; 12], "here", plain).unwrap();
            let changed = altered(&sealed, changes);
            assert_eq!(SEAL.open("here", &changed).ok(), (changed == sealed).then(|| plain.to_vec()));
            assert!(SEAL.open("there", &sealed).is_err());
            changed == sealed
        }
        4 => {
            let text = String::from_utf8_lossy(rest);
            let some = Precondition::if_match([text.as_ref()]);
            assert!(!some.holds(None) && Precondition::if_match([]).holds(None));
            let holds = some.holds(Some("\"own\""));
            assert!(!holds || text.contains('*') || text.contains("\"own\""));
            holds
        }
        // Signatures of a message, as a receiver reads them.
        5 => {
            let Some((timestamp, signatures)) = divide(rest) else { return false };
            let (timestamp, signatures) = (String::from_utf8_lossy(timestamp), String::from_utf8_lossy(signatures));
            let verified = verify(&SECRET, AT_S, 300, ID, &timestamp, &signatures, BODY).is_ok();
            let ours = timestamp == AT_S.to_string() && signatures.contains(&sign(&SECRET, ID, AT_S, BODY)[3..]);
            assert!(!verified || ours, "a message verifies that was not signed here");
            verified
        }
        6 => {
            let signature = SIGNER.sign(ID, AT_S, BODY);
            let changed = altered(signature.as_bytes(), rest);
            let verified = SIGNER.public().verifies(ID, &AT_S.to_string(), &String::from_utf8_lossy(&changed), BODY);
            assert!(!verified || changed == signature.as_bytes(), "an altered signature verifies");
            verified
        }
        7 => {
            let text = String::from_utf8_lossy(rest);
            if let Ok(key) = text.parse::<PublicKey>() {
                assert_eq!(key.to_string(), text);
            }
            match (text.parse::<Secret>(), text.parse::<SigningKey>()) {
                (Ok(secret), _) => {
                    assert_eq!(secret.reveal(), text);
                    true
                }
                (_, Ok(key)) => {
                    assert!(key.reveal().starts_with(text.trim_end_matches('=')) || key.reveal() == text);
                    true
                }
                (Err(secret), Err(key)) => {
                    tells_nothing_of(&told(&secret), rest);
                    tells_nothing_of(&told(&key), rest);
                    false
                }
            }
        }
        _ => {
            assert!(!is_key(rest) || rest.iter().all(u8::is_ascii_graphic));
            is_key(rest)
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let signature = sign(&SECRET, ID, AT_S, BODY);
    vec![
        seed(0, CursorKey::new(&[9; 32]).encode(SUBSCRIPTION, PullCursor { epoch: 1, number: 70_000 })),
        seed(1, [0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 17, 112]),
        seed(2, Seal::new(&[9; 32]).seal([5; 12], "here", b"312345676").unwrap()),
        seed(3, b"312345676\0"),
        seed(4, "\"own\" , \"other\""),
        seed(5, format!("{AT_S}\0v2,x {signature}")),
        seed(6, []),
        seed(7, SECRET.reveal()),
        seed(7, SIGNER.reveal()),
        seed(8, "a-key"),
    ]
}
