//! Between a registry's JSON document and a typed record, without losing a byte of meaning.
//!
//! A known member of the expected shape becomes a field. Everything else (an unknown member, an
//! explicit null, a number where a text is expected) is kept as JSON text under its JSON pointer
//! in the record's rest map, and stands in its old place again when the document is given back.
//! Must never drop, rename or reformat what a registry sent.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::{Error, Map, Value};

use crate::json_text::{self, Kind};

/// JSON pointer -> JSON text of what has no field.
pub type Rest = BTreeMap<String, String>;

/// A decimal number with the digits that upstream wrote: `30000.00` stays `30000.00`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Decimal(pub String);

/// Can be given back as JSON.
pub trait ToDocument {
    /// The JSON value.
    fn give(&self) -> Value;
}

/// Can be taken from JSON.
pub trait FromDocument: Sized {
    /// Whether the JSON has this type's outer shape.
    fn fits(json: &str) -> bool;
    /// Takes what [`fits`](Self::fits). What has no place in this type goes to the rest.
    fn take(json: &str, at: &At<'_>, left: &mut Left) -> Result<Self, Error>;
}

/// A place in a document. Costs nothing until somebody asks for its pointer.
#[derive(Debug, Clone, Copy)]
pub enum At<'a> {
    /// The document itself.
    Top,
    /// A member of an object.
    Member(&'a At<'a>, &'a str),
    /// An item of an array.
    Item(&'a At<'a>, usize),
}

impl At<'_> {
    /// The JSON pointer (RFC 6901).
    fn pointer(&self) -> String {
        let mut pointer = String::new();
        self.write(&mut pointer);
        pointer
    }

    fn write(&self, pointer: &mut String) {
        match self {
            Self::Top => {}
            Self::Member(within, name) => {
                within.write(pointer);
                pointer.push('/');
                pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
            }
            Self::Item(within, index) => {
                within.write(pointer);
                // Writing to a text can't fail.
                let _ = write!(pointer, "/{index}");
            }
        }
    }
}

/// What a document has left when all fields are taken.
#[derive(Debug, Default)]
pub struct Left {
    rest: Rest,
    /// A member that has a field did not fit it.
    has_misfits: bool,
}

impl Left {
    fn keep(&mut self, json: &str, at: &At<'_>) -> Result<(), Error> {
        self.rest.insert(at.pointer(), json_text::normal(json)?);
        Ok(())
    }

    fn forget(&mut self, at: &At<'_>) {
        let pointer = at.pointer();
        self.rest.retain(|kept, _| kept.strip_prefix(&pointer).is_none_or(|below| !below.is_empty() && !below.starts_with('/')));
    }
}

/// One member of an object, to be taken into a field or kept.
pub struct Member<'m> {
    json: &'m str,
    at: At<'m>,
    left: &'m mut Left,
}

impl Member<'_> {
    /// Takes it into its field if it fits, else into the rest.
    pub fn take<T: FromDocument>(self, field: &mut Option<T>) -> Result<(), Error> {
        let Self { json, at, left } = self;
        if field.is_some() || left.has_misfits {
            // It may stand here a second time. Then, as everywhere, the last one counts.
            left.forget(&at);
        }
        if T::fits(json) {
            *field = Some(T::take(json, &at, left)?);
            return Ok(());
        }
        (*field, left.has_misfits) = (None, true);
        left.keep(json, &at)
    }

    /// Keeps what has no field.
    pub fn keep(self) -> Result<(), Error> {
        self.left.keep(self.json, &self.at)
    }
}

/// Hands out the members of an object.
pub fn take_members(
    object: &str,
    at: &At<'_>,
    left: &mut Left,
    mut each: impl FnMut(&str, Member<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    json_text::members(object, |name, json| each(name, Member { json, at: At::Member(at, name), left: &mut *left }))
}

/// Takes a document whole, with its rest. `None` if it is JSON of another shape.
pub fn take_whole<T: FromDocument>(text: &str) -> Result<Option<(T, Rest)>, Error> {
    let json = json_text::whole(text)?;
    let mut left = Left::default();
    if T::fits(json) {
        return T::take(json, &At::Top, &mut left).map(|taken| Some((taken, left.rest)));
    }
    // An object or array that nobody has looked into yet.
    json_text::check(json).map(|()| None)
}

/// Whether JSON is an object.
pub fn is_object(json: &str) -> bool {
    json_text::kind(json) == Kind::Object
}

/// Puts the rest back in its old places.
pub fn restore(document: &mut Value, rest: &Rest) {
    for (pointer, text) in rest {
        let Some((parent, step)) = pointer.rsplit_once('/') else { continue };
        // What is not JSON can only come from a foreign writer; shown as the text that it is.
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
        if let Some(Value::Object(members)) = document.pointer_mut(parent) {
            members.insert(step.replace("~1", "/").replace("~0", "~"), value);
        }
    }
}

/// Adds a member unless it is absent.
pub fn give_member<T: ToDocument>(members: &mut Map<String, Value>, name: &str, field: &Option<T>) {
    if let Some(field) = field {
        members.insert(name.to_owned(), field.give());
    }
}

impl ToDocument for String {
    fn give(&self) -> Value {
        Value::String(self.clone())
    }
}

impl FromDocument for String {
    fn fits(json: &str) -> bool {
        json_text::kind(json) == Kind::Text
    }
    fn take(json: &str, _: &At<'_>, _: &mut Left) -> Result<Self, Error> {
        json_text::text(json).map(Into::into)
    }
}

impl ToDocument for bool {
    fn give(&self) -> Value {
        Value::Bool(*self)
    }
}

impl FromDocument for bool {
    fn fits(json: &str) -> bool {
        json_text::kind(json) == Kind::Bool
    }
    fn take(json: &str, _: &At<'_>, _: &mut Left) -> Result<Self, Error> {
        Ok(json == "true")
    }
}

impl ToDocument for i64 {
    fn give(&self) -> Value {
        Value::from(*self)
    }
}

impl FromDocument for i64 {
    // `12.0`, `1e3` and `-0` are numbers too, but would come back written otherwise.
    fn fits(json: &str) -> bool {
        json != "-0" && json.parse::<Self>().is_ok()
    }
    fn take(json: &str, _: &At<'_>, _: &mut Left) -> Result<Self, Error> {
        json.parse().map_err(Error::custom)
    }
}

impl ToDocument for f64 {
    // What JSON has no number for is null.
    fn give(&self) -> Value {
        Value::from(*self)
    }
}

impl ToDocument for Decimal {
    fn give(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_else(|_| Value::String(self.0.clone()))
    }
}

impl FromDocument for Decimal {
    fn fits(json: &str) -> bool {
        json_text::kind(json) == Kind::Number
    }
    fn take(json: &str, _: &At<'_>, _: &mut Left) -> Result<Self, Error> {
        Ok(Self(json.to_owned()))
    }
}

impl<T: ToDocument> ToDocument for Vec<T> {
    fn give(&self) -> Value {
        Value::Array(self.iter().map(ToDocument::give).collect())
    }
}

impl<T: FromDocument> FromDocument for Vec<T> {
    // An array with one item that does not fit is kept whole.
    fn fits(json: &str) -> bool {
        let mut items_fit = true;
        let look = |_, item: &str| {
            items_fit &= T::fits(item);
            Ok(())
        };
        json_text::kind(json) == Kind::Array && json_text::items(json, look).is_ok() && items_fit
    }
    fn take(json: &str, at: &At<'_>, left: &mut Left) -> Result<Self, Error> {
        let mut taken = Self::new();
        json_text::items(json, |index, item| {
            taken.push(T::take(item, &At::Item(at, index), left)?);
            Ok(())
        })?;
        Ok(taken)
    }
}
