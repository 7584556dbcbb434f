//! Event type -> the subscriptions that want it: matching turned round.
//!
//! Lists are made when a type is seen first, and kept right as subscriptions come and go.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ryggrad_schemas::catalogue::type_matches;

use super::MemberId;

#[derive(Debug, Default)]
pub(super) struct TypeIndex {
    patterns: BTreeMap<MemberId, Vec<String>>,
    known: HashMap<String, Arc<Vec<MemberId>>>,
}

impl TypeIndex {
    pub(super) fn add(&mut self, id: MemberId, patterns: &[String]) {
        for (ce_type, members) in &mut self.known {
            if wants(patterns, ce_type) {
                Arc::make_mut(members).push(id);
            }
        }
        self.patterns.insert(id, patterns.to_vec());
    }

    pub(super) fn remove(&mut self, id: MemberId) {
        if let Some(patterns) = self.patterns.remove(&id) {
            for (_, members) in self.known.iter_mut().filter(|(ce_type, _)| wants(&patterns, ce_type)) {
                Arc::make_mut(members).retain(|member| *member != id);
            }
        }
    }

    pub(super) fn wanting(&mut self, ce_type: &str) -> impl Iterator<Item = MemberId> + use<> {
        let members = match self.known.get(ce_type) {
            Some(members) => Arc::clone(members),
            None => {
                let found = self.patterns.iter().filter(|(_, patterns)| wants(patterns, ce_type)).map(|(id, _)| *id);
                let members = Arc::new(found.collect());
                self.known.insert(ce_type.to_owned(), Arc::clone(&members));
                members
            }
        };
        (0..members.len()).map(move |index| members[index])
    }
}

/// Whether any of the patterns means this type.
pub fn wants(patterns: &[String], ce_type: &str) -> bool {
    patterns.iter().any(|pattern| type_matches(pattern, ce_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wants_by_type() {
        for (types, expected) in [(vec!["no.a.*"], true), (vec!["no.x.*", "no.a.b.v1"], true), (vec!["no.x.v1"], false), (vec![], false)] {
            let patterns: Vec<String> = types.iter().map(ToString::to_string).collect();
            assert_eq!(wants(&patterns, "no.a.b.v1"), expected, "{types:?}");
        }
    }
}
