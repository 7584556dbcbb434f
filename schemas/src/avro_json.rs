//! From a framed Avro value straight to JSON text, without building values in between.
//!
//! Every delivery is rendered here, so it must cost little: the schema is turned into a plan once,
//! and the datum is walked beside it. It knows the Avro that our schemas use. Whatever it does not
//! know, or finds odd, it gives back untouched: the careful reader in [`crate::avro`] then decides,
//! so that both always agree on what is an event and what it says.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

use serde_json::Value;

use crate::{json_text, json_write};

/// What a datum looks like and how it is written.
#[derive(Debug, Clone)]
enum Node {
    Text,
    /// A decimal in a text, written as the number that it is.
    Decimal,
    Bool,
    Long,
    Double,
    /// Symbols, already in quotes.
    Enum(Vec<String>),
    Array(Box<Node>),
    /// Null, which comes first, or this.
    Optional(Box<Node>),
    Record(Members),
    /// JSON pointer -> JSON text of what has no field.
    Rest,
}

#[derive(Debug, Clone)]
struct Members {
    fields: Vec<Field>,
    /// Which of them is the rest. A record with one is a document: its pointers begin there.
    rest_at: Option<usize>,
}

#[derive(Debug, Clone)]
struct Field {
    name: String,
    /// `,"name":`
    label: String,
    node: Node,
    /// Whether pointers may lead into it.
    is_nested: bool,
}

/// Of a record: one bit for each field.
const FIELDS_MAX: usize = u128::BITS as usize;

/// How a schema is written.
#[derive(Debug)]
pub struct Plan(Node);

impl Plan {
    /// The plan of a schema; none if it has what this does not know.
    pub fn of(schema: &str) -> Option<Self> {
        let schema: Value = serde_json::from_str(schema).ok()?;
        node(&schema, &mut BTreeMap::new()).map(Self)
    }

    /// Appends the datum as JSON. `None` if it has to be looked at more carefully; then what was
    /// appended means nothing.
    pub fn write(&self, datum: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let mut reader = Reader { left: datum };
        write_node(&self.0, &mut reader, &mut Place::default(), out)?;
        reader.left.is_empty().then_some(())
    }
}

fn node(schema: &Value, named: &mut BTreeMap<String, Node>) -> Option<Node> {
    match schema {
        Value::Array(branches) => match branches.as_slice() {
            [null, branch] if null == "null" => Some(Node::Optional(Box::new(node(branch, named)?))),
            _ => None,
        },
        Value::String(name) => match name.as_str() {
            "string" => Some(Node::Text),
            "boolean" => Some(Node::Bool),
            "long" => Some(Node::Long),
            "double" => Some(Node::Double),
            // A name that is not known yet would be a recursion, which no schema of ours has.
            named_before => named.get(named_before).cloned(),
        },
        Value::Object(members) => {
            let made = match members.get("type")?.as_str()? {
                "array" => Node::Array(Box::new(node(members.get("items")?, named)?)),
                "enum" => {
                    let symbols = members.get("symbols")?.as_array()?.iter();
                    Node::Enum(symbols.map(|symbol| Some(format!("\"{}\"", symbol.as_str()?))).collect::<Option<_>>()?)
                }
                "record" => {
                    let given = members.get("fields")?.as_array()?.iter();
                    let fields: Vec<_> = given.map(|given| field(given, named)).collect::<Option<_>>()?;
                    (fields.len() <= FIELDS_MAX).then_some(())?;
                    let rest_at = fields.iter().position(|field| matches!(field.node, Node::Rest));
                    Node::Record(Members { fields, rest_at })
                }
                _ => return None,
            };
            if let Some(name) = members.get("name").and_then(Value::as_str) {
                named.insert(name.to_owned(), made.clone());
            }
            Some(made)
        }
        _ => None,
    }
}

fn field(given: &Value, named: &mut BTreeMap<String, Node>) -> Option<Field> {
    let name = given["name"].as_str()?.to_owned();
    let node = match given["ryggrad.json"].as_str() {
        Some("rest") => Node::Rest,
        Some("number") => match node(&given["type"], named)? {
            Node::Text => Node::Decimal,
            Node::Optional(within) if matches!(*within, Node::Text) => Node::Optional(Box::new(Node::Decimal)),
            _ => return None,
        },
        Some(_) => return None,
        None => node(&given["type"], named)?,
    };
    let is_nested = match &node {
        Node::Optional(within) => nests(within),
        node => nests(node),
    };
    Some(Field { label: format!(",\"{name}\":"), name, node, is_nested })
}

fn nests(node: &Node) -> bool {
    matches!(node, Node::Array(_) | Node::Record(_))
}

/// Where in a document the writer is, and what has to be put back there.
#[derive(Default)]
struct Place<'d> {
    rest: Vec<Kept<'d>>,
    /// JSON pointer of the object that is being written.
    pointer: String,
}

/// One member that has no field.
struct Kept<'d> {
    parent: &'d str,
    name: Cow<'d, str>,
    json: &'d str,
    restored: bool,
}

fn write_node<'d>(node: &Node, reader: &mut Reader<'d>, place: &mut Place<'d>, out: &mut Vec<u8>) -> Option<()> {
    match node {
        Node::Text => json_write::text(reader.bytes()?, out)?,
        Node::Decimal => json_or_text(reader.text()?, out)?,
        Node::Bool => out.extend_from_slice(if reader.bool()? { b"true" } else { b"false" }),
        Node::Long => write!(out, "{}", reader.long()?).ok()?,
        // What JSON has no number for is told apart elsewhere.
        Node::Double => serde_json::to_writer(out, &reader.double().filter(|value| value.is_finite())?).ok()?,
        Node::Enum(symbols) => out.extend_from_slice(symbols.get(usize::try_from(reader.long()?).ok()?)?.as_bytes()),
        Node::Array(items) => {
            let (mut index, pointer_bytes) = (0_usize, place.pointer.len());
            out.push(b'[');
            while let Some(count) = reader.block()? {
                for _ in 0..count {
                    if index > 0 {
                        out.push(b',');
                    }
                    if !place.rest.is_empty() {
                        use std::fmt::Write;
                        write!(place.pointer, "/{index}").ok()?;
                    }
                    // Items that take no bytes could be claimed without end.
                    let before = reader.left.len();
                    write_node(items, reader, place, out)?;
                    place.pointer.truncate(pointer_bytes);
                    (reader.left.len() < before).then_some(())?;
                    index += 1;
                }
            }
            out.push(b']');
        }
        Node::Optional(within) => match reader.long()? {
            0 => out.extend_from_slice(b"null"),
            1 => write_node(within, reader, place, out)?,
            _ => return None,
        },
        Node::Record(fields) => write_record(fields, reader, place, out)?,
        Node::Rest => return None,
    }
    Some(())
}

fn write_record<'d>(members: &Members, reader: &mut Reader<'d>, place: &mut Place<'d>, out: &mut Vec<u8>) -> Option<()> {
    let Some(rest_at) = members.rest_at else { return write_members(members, reader, place, out) };
    let mut ahead = Reader { left: reader.left };
    skip_fields(&members.fields[..rest_at], &mut ahead)?;
    let mut document = Place { rest: ahead.rest()?, pointer: String::new() };
    write_members(members, reader, &mut document, out)?;
    document.rest.iter().all(|kept| kept.restored).then_some(())
}

fn write_members<'d>(members: &Members, reader: &mut Reader<'d>, place: &mut Place<'d>, out: &mut Vec<u8>) -> Option<()> {
    let (begins_at, pointer_bytes) = (out.len(), place.pointer.len());
    let mut written = 0_u128;
    for (index, field) in members.fields.iter().enumerate() {
        match &field.node {
            Node::Rest => {
                skip(&field.node, reader)?;
                continue;
            }
            Node::Optional(_) if reader.left.first() == Some(&0) => {
                reader.left = &reader.left[1..];
                continue;
            }
            _ => {}
        }
        written |= 1 << index;
        out.extend_from_slice(field.label.as_bytes());
        match (&field.node, reader.left) {
            // Most of what is there.
            (Node::Optional(within), [2, left @ ..]) if matches!(**within, Node::Text) => {
                reader.left = left;
                json_write::text(reader.bytes()?, out)?;
            }
            (node, _) if field.is_nested && !place.rest.is_empty() => {
                place.pointer.push('/');
                place.pointer.push_str(&field.name);
                write_node(node, reader, place, out)?;
                place.pointer.truncate(pointer_bytes);
            }
            (node, _) => write_node(node, reader, place, out)?,
        }
    }
    for kept in place.rest.iter_mut().filter(|kept| !kept.restored && kept.parent == place.pointer) {
        let same = members.fields.iter().position(|field| field.name == kept.name);
        if same.is_some_and(|index| written & (1 << index) != 0) {
            // Field and rest say different things: not from a writer of ours.
            return None;
        }
        kept.restored = true;
        out.push(b',');
        json_write::text(kept.name.as_bytes(), out)?;
        out.push(b':');
        json_or_text(kept.json, out)?;
    }
    // Each member brought its comma; the first one's is where the record begins.
    match out.get_mut(begins_at) {
        Some(comma) => *comma = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
    Some(())
}

fn json_or_text(json: &str, out: &mut Vec<u8>) -> Option<()> {
    if json_text::check(json).is_err() {
        return json_write::text(json.as_bytes(), out);
    }
    out.extend_from_slice(json.as_bytes());
    Some(())
}

fn skip(node: &Node, reader: &mut Reader<'_>) -> Option<()> {
    match node {
        Node::Text | Node::Decimal => drop(reader.bytes()?),
        Node::Bool => drop(reader.bool()?),
        Node::Long | Node::Enum(_) => drop(reader.long()?),
        Node::Double => drop(reader.double()?),
        Node::Array(items) => {
            while let Some(count) = reader.block()? {
                for _ in 0..count {
                    let before = reader.left.len();
                    skip(items, reader)?;
                    (reader.left.len() < before).then_some(())?;
                }
            }
        }
        Node::Optional(within) => match reader.long()? {
            0 => {}
            1 => skip(within, reader)?,
            _ => return None,
        },
        Node::Record(members) => skip_fields(&members.fields, reader)?,
        Node::Rest => {
            while let Some(count) = reader.block()? {
                for _ in 0..count {
                    reader.bytes()?;
                    reader.bytes()?;
                }
            }
        }
    }
    Some(())
}

fn skip_fields(fields: &[Field], reader: &mut Reader<'_>) -> Option<()> {
    for field in fields {
        match (&field.node, reader.left) {
            // Most of them.
            (Node::Optional(_), [0, left @ ..]) => reader.left = left,
            (Node::Optional(within), [2, left @ ..]) if matches!(**within, Node::Text) => {
                reader.left = left;
                reader.bytes()?;
            }
            (node, _) => skip(node, reader)?,
        }
    }
    Some(())
}

struct Reader<'d> {
    left: &'d [u8],
}

impl<'d> Reader<'d> {
    fn byte(&mut self) -> Option<u8> {
        let (first, left) = self.left.split_first()?;
        self.left = left;
        Some(*first)
    }

    #[inline]
    fn long(&mut self) -> Option<i64> {
        let first = self.byte()?;
        let value = u64::from(first & 0x7f);
        let value = if first & 0x80 == 0 { value } else { self.rest_of_long(value)? };
        Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    fn rest_of_long(&mut self, mut value: u64) -> Option<u64> {
        let (mut more, mut shift) = (true, 7);
        while more {
            let byte = self.byte()?;
            // The tenth byte has room for one bit only.
            if shift == 63 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << shift;
            (more, shift) = (byte & 0x80 != 0, shift + 7);
        }
        Some(value)
    }

    fn bool(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn double(&mut self) -> Option<f64> {
        let (taken, left) = self.left.split_first_chunk()?;
        self.left = left;
        Some(f64::from_le_bytes(*taken))
    }

    #[inline]
    fn bytes(&mut self) -> Option<&'d [u8]> {
        let length = usize::try_from(self.long()?).ok()?;
        let (taken, left) = self.left.split_at_checked(length)?;
        self.left = left;
        Some(taken)
    }

    fn text(&mut self) -> Option<&'d str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// How many items come next; `Some(None)` is the end.
    fn block(&mut self) -> Option<Option<u64>> {
        let count = self.long()?;
        if count < 0 {
            // The bytes of the block, for those who skip.
            self.long()?;
        }
        Some((count != 0).then_some(count.unsigned_abs()))
    }

    fn rest(&mut self) -> Option<Vec<Kept<'d>>> {
        let mut rest: Vec<Kept<'d>> = Vec::new();
        while let Some(count) = self.block()? {
            for _ in 0..count {
                let (parent, name) = self.text()?.rsplit_once('/')?;
                let name = if name.contains('~') { Cow::Owned(name.replace("~1", "/").replace("~0", "~")) } else { Cow::Borrowed(name) };
                if rest.iter().any(|kept| kept.parent == parent && kept.name == name) {
                    return None;
                }
                rest.push(Kept { parent, name, json: self.text()?, restored: false });
            }
        }
        Some(rest)
    }
}
