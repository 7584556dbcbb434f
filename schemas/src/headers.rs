//! Headers of a record, in two pieces of memory.
//!
//! A record has a dozen of them. Were every name and value a text of its own, making and dropping
//! these would cost more than the rest of the event.

use std::fmt;

/// Names and values, in order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// Every name and its value, one behind the other.
    text: String,
    /// Where in the text a name ends, and where its value does.
    ends: Vec<(usize, usize)>,
}

impl Headers {
    /// None yet, with room for so many headers of so many bytes together.
    pub fn with_capacity(headers: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), ends: Vec::with_capacity(headers) }
    }

    /// Adds one behind the others.
    pub fn push(&mut self, name: &str, value: &str) {
        self.push_prefixed("", name, value);
    }

    /// The same, with something before the name.
    pub fn push_prefixed(&mut self, prefix: &str, name: &str, value: &str) {
        self.text.push_str(prefix);
        self.text.push_str(name);
        let name_end = self.text.len();
        self.text.push_str(value);
        self.ends.push((name_end, self.text.len()));
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.iter().map(move |&(name_end, value_end)| {
            let (name, value) = (start..name_end, name_end..value_end);
            start = value_end;
            (self.text.get(name).unwrap_or_default(), self.text.get(value).unwrap_or_default())
        })
    }

    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.value_at(self.position(name)?)
    }

    /// Where the first of that name stands, for those who ask for it often.
    pub fn position(&self, name: &str) -> Option<usize> {
        let mut start = 0;
        self.ends.iter().position(|&(name_end, value_end)| {
            let here = std::mem::replace(&mut start, value_end)..name_end;
            // Lengths tell most names apart.
            here.len() == name.len() && self.text.get(here) == Some(name)
        })
    }

    /// The last value of the name that is made of these two.
    pub fn last_prefixed(&self, prefix: &str, name: &str) -> Option<&str> {
        let wanted = prefix.len() + name.len();
        for (index, &(name_end, value_end)) in self.ends.iter().enumerate().rev() {
            let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |(_, end)| *end);
            // Lengths tell most names apart.
            if name_end - start == wanted
                && self.text.get(start..name_end).and_then(|found| found.strip_prefix(prefix)).is_some_and(|rest| rest == name)
            {
                return self.text.get(name_end..value_end);
            }
        }
        None
    }

    /// The value that stands there.
    pub fn value_at(&self, position: usize) -> Option<&str> {
        let (name_end, value_end) = *self.ends.get(position)?;
        self.text.get(name_end..value_end)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all names and values.
    pub fn size_bytes(&self) -> usize {
        self.text.len()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut headers = Self::default();
        pairs.into_iter().for_each(|(name, value)| headers.push(name.as_ref(), value.as_ref()));
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_their_order_and_the_first_of_a_name_counts() {
        let pairs = [("a", "b"), ("", ""), ("å", "ø"), ("a", "c")];
        let mut headers: Headers = pairs.into_iter().collect();
        assert_eq!(headers.iter().collect::<Vec<_>>(), pairs);
        assert_eq!((headers.get("a"), headers.get(""), headers.get("b")), (Some("b"), Some(""), None));
        headers.push_prefixed("ce_", "id", "7");
        assert_eq!((headers.get("ce_id"), headers.len(), headers.size_bytes()), (Some("7"), 5, 14));
        assert!(Headers::default().is_empty() && Headers::default() != headers);
    }
}
