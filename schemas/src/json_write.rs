//! Texts as JSON, from bytes that may be none.
//!
//! Lines and deliveries are made of short texts, nearly all of them ASCII that needs no escape, so
//! those are recognised eight bytes at a time. Must write exactly what `serde_json` would.

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Appends bytes as a JSON string. `None`, and nothing appended, if they are no UTF-8.
pub fn text(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (has_escapes, is_ascii) = look(bytes);
    if has_escapes || !is_ascii {
        let text = std::str::from_utf8(bytes).ok()?;
        if has_escapes {
            // Writing to memory can't fail.
            return serde_json::to_writer(out, text).ok();
        }
    }
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    out.extend_from_slice(bytes);
    out.push(b'"');
    Some(())
}

/// Whether there is a byte that JSON escapes, and whether all are ASCII.
fn look(bytes: &[u8]) -> (bool, bool) {
    let (mut escapes, mut any) = (0, 0);
    let mut see = |word: u64| {
        // The highest bit of each byte, for those equal to the pattern's: right wherever no lower
        // byte has a hit, which is enough to know whether there is any.
        let equal = |byte: u8| {
            let differs = word ^ (LOW * u64::from(byte));
            differs.wrapping_sub(LOW) & !differs
        };
        escapes |= (word.wrapping_sub(LOW * 0x20) & !word) | equal(b'"') | equal(b'\\');
        any |= word;
    };
    match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(_), Some(last)) => {
            bytes.as_chunks::<8>().0.iter().for_each(|chunk| see(u64::from_le_bytes(*chunk)));
            // Overlaps with the one before it.
            see(u64::from_le_bytes(*last));
        }
        _ => bytes.iter().for_each(|byte| see(LOW * u64::from(*byte))),
    }
    (escapes & HIGH != 0, any & HIGH == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_written_as_serde_json_writes_them_wherever_the_odd_byte_stands() {
        for odd in (0..=0x7f).map(char::from).chain(['å', '\u{2028}', '🏥']) {
            for (before, after) in (0..20).flat_map(|length| (0..=length).map(move |before| (before, length - before))) {
                let given = format!("{}{odd}{}", "~".repeat(before), " ".repeat(after));
                let mut out = b"x".to_vec();
                text(given.as_bytes(), &mut out).unwrap();
                assert_eq!(out, format!("x{}", serde_json::to_string(&given).unwrap()).as_bytes(), "{given:?}");
            }
        }
    }

    #[test]
    fn what_is_no_text_leaves_nothing_behind() {
        for length in 0..20 {
            for place in 0..=length {
                let mut bytes = vec![b'"'; length];
                bytes.insert(place, 0xff);
                let mut out = b"x".to_vec();
                assert_eq!((text(&bytes, &mut out), out.as_slice()), (None, b"x".as_slice()));
            }
        }
    }
}
