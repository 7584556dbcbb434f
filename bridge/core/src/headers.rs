//! Headers that an owner may have sent along with every delivery to the own endpoint.
//!
//! They carry what the receiver's gateway asks for (a key, a tenant). Must never let an owner say
//! what is the bridge's to say: who is called, how long the body is, what it holds, who signed it.

/// Most own headers of a subscription.
pub const HEADERS_MAX: usize = 16;
/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 2_048;

/// Names that are reserved whole.
const RESERVED: [&str; 17] = [
    "accept-encoding",
    "connection",
    "cookie",
    "cookie2",
    "date",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "max-forwards",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "http2-settings",
];

/// Families of names that are reserved: the body's, the signature's, the event's, the bridge's, hop by hop, the browser's.
const RESERVED_FAMILIES: [&str; 7] = ["content-", "webhook-", "ce-", "ryggrad-", "proxy-", "sec-", "x-forwarded-"];

/// Whether a header is the bridge's (or the connection's), and can't be an owner's.
pub fn reserved_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    RESERVED.contains(&name.as_str()) || RESERVED_FAMILIES.iter().any(|family| name.starts_with(family))
}

/// Why a header can't be an own header. Never quotes a value: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// Too many.
    #[error("there are more than {HEADERS_MAX} headers")]
    TooMany,
    /// No name.
    #[error("a header's name has 1 to {NAME_BYTES_MAX} letters, digits and hyphens")]
    Name,
    /// Somebody else's.
    #[error(
        "this header is reserved: host, content-*, webhook-*, ce-*, ryggrad-*, cookie, user-agent, and all that concerns connections, proxies and framing"
    )]
    Reserved,
    /// Twice.
    #[error("the header stands twice")]
    Twice,
    /// A value that could break the request.
    #[error("a header's value has 1 to {VALUE_BYTES_MAX} visible ASCII characters or spaces, none of these at its ends")]
    Value,
}

/// Checks one header.
pub fn check_header(name: &str, value: &str) -> Result<(), HeaderFault> {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(letters) {
        Err(HeaderFault::Name)
    } else if reserved_header(name) {
        Err(HeaderFault::Reserved)
    } else if value.is_empty()
        || value.len() > VALUE_BYTES_MAX
        || value.trim_matches(' ') != value
        || !value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
    {
        Err(HeaderFault::Value)
    } else {
        Ok(())
    }
}

/// Checks all own headers together. The index is of the first that is wrong.
pub fn check_headers(headers: &[(String, String)]) -> Result<(), (usize, HeaderFault)> {
    for (index, (name, value)) in headers.iter().enumerate() {
        if index >= HEADERS_MAX {
            return Err((index, HeaderFault::TooMany));
        }
        check_header(name, value).map_err(|fault| (index, fault))?;
        if headers[..index].iter().any(|(before, _)| before.eq_ignore_ascii_case(name)) {
            return Err((index, HeaderFault::Twice));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_headers_cannot_be_the_bridges() {
        use HeaderFault::*;
        let long = "v".repeat(VALUE_BYTES_MAX + 1);
        for (name, value, expected) in [
            ("Authorization", "Bearer abc", Ok(())),
            ("X-Api-Key", "k", Ok(())),
            ("x_tenant", "a b", Ok(())),
            ("Accept", "*/*", Ok(())),
            ("Host", "evil.example", Err(Reserved)),
            ("content-length", "0", Err(Reserved)),
            ("Content-Type", "text/plain", Err(Reserved)),
            ("Webhook-Signature", "v1,x", Err(Reserved)),
            ("WebHook-Request-Origin", "x", Err(Reserved)),
            ("CE-Id", "x", Err(Reserved)),
            ("Transfer-Encoding", "chunked", Err(Reserved)),
            ("connection", "close", Err(Reserved)),
            ("TE", "trailers", Err(Reserved)),
            ("Upgrade", "h2c", Err(Reserved)),
            ("Cookie", "a=b", Err(Reserved)),
            ("Expect", "100-continue", Err(Reserved)),
            ("Proxy-Authorization", "x", Err(Reserved)),
            ("Sec-WebSocket-Key", "x", Err(Reserved)),
            ("X-Forwarded-For", "127.0.0.1", Err(Reserved)),
            ("", "x", Err(Name)),
            ("a b", "x", Err(Name)),
            ("a:b", "x", Err(Name)),
            ("a\r\nhost", "x", Err(Name)),
            ("å", "x", Err(Name)),
            ("a", "", Err(Value)),
            ("a", " x", Err(Value)),
            ("a", "x\r\nhost: y", Err(Value)),
            ("a", "x\0", Err(Value)),
            ("a", "å", Err(Value)),
            ("a", long.as_str(), Err(Value)),
        ] {
            assert_eq!(check_header(name, value), expected, "{name:?}: {value:?}");
        }
        let many: Vec<_> = (0..=HEADERS_MAX).map(|index| (format!("h{index}"), "v".to_owned())).collect();
        assert_eq!(check_headers(&many), Err((HEADERS_MAX, TooMany)));
        assert_eq!(check_headers(&many[1..]), Ok(()));
        let twice = [("a", "x"), ("A", "y")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(check_headers(&twice), Err((1, Twice)));
    }
}
