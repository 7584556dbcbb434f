//! Between a registry's JSON document and a typed record, without losing a byte of meaning.
//!
//! A known member of the expected shape becomes a field. Everything else (an unknown member, an
//! explicit null, a number where a text is expected) is kept as JSON text under its JSON pointer
//! in the record's rest map, and stands in its old place again when the document is given back.
//! Must never drop, rename or reformat what a registry sent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
pub trait FromDocument: Sized + Default {
    /// Whether the value has this type's outer shape.
    fn fits(value: &Value) -> bool;
    /// Takes a value that [`fits`](Self::fits). `at` is the value's own pointer.
    fn take(value: Value, at: &mut Pointer, rest: &mut Rest) -> Self;
}

/// A JSON pointer (RFC 6901) that grows and shrinks along a walk.
#[derive(Debug, Default)]
pub struct Pointer(String);

impl Pointer {
    fn within<T>(&mut self, step: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.0.len();
        self.0.push('/');
        self.0.push_str(&escape(step));
        let result = work(self);
        self.0.truncate(length);
        result
    }
}

fn escape(step: &str) -> String {
    if step.contains(['~', '/']) { step.replace('~', "~0").replace('/', "~1") } else { step.to_owned() }
}

/// Moves a member out of an object: into a field if it fits, else into the rest.
pub fn take_member<T: FromDocument>(members: &mut Map<String, Value>, name: &str, at: &mut Pointer, rest: &mut Rest) -> Option<T> {
    let value = members.remove(name)?;
    at.within(name, |at| {
        if T::fits(&value) {
            Some(T::take(value, at, rest))
        } else {
            rest.insert(at.0.clone(), value.to_string());
            None
        }
    })
}

/// Puts the members that no field took into the rest.
pub fn keep_remainder(members: Map<String, Value>, at: &mut Pointer, rest: &mut Rest) {
    for (name, value) in members {
        at.within(&name, |at| rest.insert(at.0.clone(), value.to_string()));
    }
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
    fn fits(value: &Value) -> bool {
        value.is_string()
    }
    fn take(value: Value, _: &mut Pointer, _: &mut Rest) -> Self {
        if let Value::String(text) = value { text } else { Self::default() }
    }
}

impl ToDocument for bool {
    fn give(&self) -> Value {
        Value::Bool(*self)
    }
}

impl FromDocument for bool {
    fn fits(value: &Value) -> bool {
        value.is_boolean()
    }
    fn take(value: Value, _: &mut Pointer, _: &mut Rest) -> Self {
        value == Value::Bool(true)
    }
}

impl ToDocument for i64 {
    fn give(&self) -> Value {
        Value::from(*self)
    }
}

impl FromDocument for i64 {
    // `12.0` and `1e3` are numbers too, but would come back written otherwise.
    fn fits(value: &Value) -> bool {
        value.as_i64().is_some_and(|number| Self::give(&number) == *value)
    }
    fn take(value: Value, _: &mut Pointer, _: &mut Rest) -> Self {
        value.as_i64().unwrap_or_default()
    }
}

impl ToDocument for Decimal {
    fn give(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_else(|_| Value::String(self.0.clone()))
    }
}

impl FromDocument for Decimal {
    fn fits(value: &Value) -> bool {
        value.is_number()
    }
    fn take(value: Value, _: &mut Pointer, _: &mut Rest) -> Self {
        Self(value.to_string())
    }
}

impl<T: ToDocument> ToDocument for Vec<T> {
    fn give(&self) -> Value {
        Value::Array(self.iter().map(ToDocument::give).collect())
    }
}

impl<T: FromDocument> FromDocument for Vec<T> {
    fn fits(value: &Value) -> bool {
        value.as_array().is_some_and(|items| items.iter().all(T::fits))
    }
    fn take(value: Value, at: &mut Pointer, rest: &mut Rest) -> Self {
        let Value::Array(items) = value else { return Self::default() };
        items.into_iter().enumerate().map(|(index, item)| at.within(&index.to_string(), |at| T::take(item, at, rest))).collect()
    }
}
