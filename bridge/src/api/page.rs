//! Lists in pages: `limit` and `after` in, `next` out.
//!
//! A cursor names the last thing shown, never a count, so that what comes or goes meanwhile neither repeats nor
//! hides anything else.

use uuid::Uuid;

use super::query::Query;
use crate::hexadecimal;
use crate::problem::Problem;

/// Most things of one page.
pub const LIMIT_MAX: u64 = 1_000;
/// Things of a page unless the request says otherwise.
pub const LIMIT_DEFAULT: u64 = 100;

/// What part of a list is wanted. `K` is the list's order.
#[derive(Debug)]
pub struct Page<K> {
    after: Option<K>,
    limit: usize,
}

impl<K: Ord> Page<K> {
    /// Reads a query that has nothing but these parameters; `read` reads a cursor.
    pub fn read(raw: Option<&str>, read: impl Fn(&str) -> Option<K>) -> Result<Self, Problem> {
        Self::of(Query::read(raw, &["after", "limit"]), read)
    }

    /// The same of a query that may have others as well.
    pub fn of(mut query: Query, read: impl Fn(&str) -> Option<K>) -> Result<Self, Problem> {
        let after = query.text("after").map(read);
        if matches!(after, Some(None)) {
            query.wrong("after", "is next of an answer of this list");
        }
        // At most a thousand, which fits.
        let limit = query.number("limit", 1..=LIMIT_MAX, LIMIT_DEFAULT) as usize;
        query.end()?;
        Ok(Self { after: after.flatten(), limit })
    }

    /// The page of a list that is in order, and the last place on it if more follows.
    pub fn cut<T>(self, sorted: impl IntoIterator<Item = T>, place: impl Fn(&T) -> K) -> (Vec<T>, Option<K>) {
        let mut rest = sorted.into_iter().filter(|item| self.after.as_ref().is_none_or(|after| place(item) > *after));
        let shown: Vec<T> = rest.by_ref().take(self.limit).collect();
        let next = shown.last().map(&place).filter(|_| rest.next().is_some());
        (shown, next)
    }
}

/// The cursor of a list in the order of ids.
pub fn cursor_of(id: Uuid) -> String {
    hexadecimal::encode(id.as_bytes())
}

/// The id that such a cursor names.
pub fn read_cursor(text: &str) -> Option<Uuid> {
    Uuid::from_slice(&hexadecimal::decode(text)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(raw: &str) -> Result<Page<u32>, Problem> {
        Page::read(Some(raw), |text| text.parse().ok())
    }

    #[test]
    fn pages_follow_each_other_whatever_comes_and_goes() {
        let mut items = vec![10, 20, 30, 40, 50];
        let (shown, next) = page("limit=2").unwrap().cut(items.clone(), |item| *item);
        assert_eq!((shown, next), (vec![10, 20], Some(20)));
        items.retain(|item| *item != 20);
        items.insert(0, 5);
        let (shown, next) = page("limit=2&after=20").unwrap().cut(items.clone(), |item| *item);
        assert_eq!((shown, next), (vec![30, 40], Some(40)));
        let (shown, next) = page("after=40").unwrap().cut(items, |item| *item);
        assert_eq!((shown, next), (vec![50], None));
        assert_eq!(page("limit=1").unwrap().cut([1], |item| *item), (vec![1], None), "a full page that is the last");
        for wrong in ["after=x", "limit=0", "limit=1001", "farge=1"] {
            assert!(page(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cursor_of_an_id_comes_back() {
        let id = Uuid::from_u128(7 << 100 | 9);
        assert_eq!(read_cursor(&cursor_of(id)), Some(id));
        assert_eq!((read_cursor(""), read_cursor("00"), read_cursor("æ")), (None, None, None));
    }
}
