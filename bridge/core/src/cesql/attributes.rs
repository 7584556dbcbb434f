//! Where an expression finds an event's attributes.
//!
//! Must never show what is no attribute: not the data, nor what only the delivery has.

use ryggrad_schemas::LogRecord;
use serde_json::Map;

use super::value::Value;
use crate::delivery;

/// One event's attributes.
pub trait Attributes {
    /// The attribute of this name, which is in lower case.
    fn attribute(&self, name: &str) -> Option<Value<'_>>;
}

/// The attributes of a record, as its receivers get them. All are Strings: headers are text.
#[derive(Debug, Clone, Copy)]
pub struct RecordAttributes<'r>(pub &'r LogRecord);

impl RecordAttributes<'_> {
    /// The text of an attribute.
    pub fn text(&self, name: &str) -> Option<&str> {
        let Some(text) = self.0.headers.last_prefixed("ce_", name) else {
            return (name == "datacontenttype" && self.0.value.is_some()).then_some(delivery::DATA_JSON);
        };
        match name {
            "subject" | "time" if text.is_empty() => None,
            "datacontenttype" => self.0.value.is_some().then_some(delivery::DATA_JSON),
            _ => delivery::is_free(name).then_some(text),
        }
    }
}

impl Attributes for RecordAttributes<'_> {
    fn attribute(&self, name: &str) -> Option<Value<'_>> {
        self.text(name).map(Value::from)
    }
}

/// The attributes of an event in structured JSON, where Integers and Booleans have their types.
#[derive(Debug, Clone, Copy)]
pub struct JsonAttributes<'j>(pub &'j Map<String, serde_json::Value>);

impl Attributes for JsonAttributes<'_> {
    fn attribute(&self, name: &str) -> Option<Value<'_>> {
        if matches!(name, "data" | "data_base64") {
            return None;
        }
        Some(match self.0.get(name)? {
            serde_json::Value::Null => return None,
            serde_json::Value::Bool(boolean) => Value::Boolean(*boolean),
            serde_json::Value::String(text) => Value::from(text.as_str()),
            serde_json::Value::Number(number) => match number.as_i64().and_then(|number| i32::try_from(number).ok()) {
                Some(integer) => Value::Integer(integer),
                None => Value::String(number.to_string().into()),
            },
            other => Value::String(other.to_string().into()),
        })
    }
}
