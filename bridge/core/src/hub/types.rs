//! Event type -> the subscriptions that want it, by watch list where they have one: matching
//! turned round.
//!
//! Lists are made when a type is seen first, and kept right as subscriptions come and go.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ryggrad_schemas::catalogue::type_matches;
use uuid::Uuid;

use super::MemberId;

/// Who wants events of one type.
#[derive(Debug, Default, Clone)]
pub(super) struct Wanting {
    /// Of whatever key.
    pub(super) any_key: Vec<MemberId>,
    /// Of the keys of a watch list.
    pub(super) listed_keys: HashMap<Uuid, Vec<MemberId>>,
}

impl Wanting {
    fn add(&mut self, id: MemberId, list: Option<Uuid>) {
        match list {
            Some(list) => self.listed_keys.entry(list).or_default().push(id),
            None => self.any_key.push(id),
        }
    }

    fn remove(&mut self, id: MemberId, list: Option<Uuid>) {
        let Some(list) = list else { return self.any_key.retain(|member| *member != id) };
        if let Some(members) = self.listed_keys.get_mut(&list) {
            members.retain(|member| *member != id);
            if members.is_empty() {
                self.listed_keys.remove(&list);
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct TypeIndex {
    wishes: BTreeMap<MemberId, (Vec<String>, Option<Uuid>)>,
    known: HashMap<String, Arc<Wanting>>,
}

impl TypeIndex {
    pub(super) fn add(&mut self, id: MemberId, patterns: &[String], list: Option<Uuid>) {
        for (_, wanting) in self.known.iter_mut().filter(|(ce_type, _)| wants(patterns, ce_type)) {
            Arc::make_mut(wanting).add(id, list);
        }
        self.wishes.insert(id, (patterns.to_vec(), list));
    }

    pub(super) fn remove(&mut self, id: MemberId) {
        if let Some((patterns, list)) = self.wishes.remove(&id) {
            for (_, wanting) in self.known.iter_mut().filter(|(ce_type, _)| wants(&patterns, ce_type)) {
                Arc::make_mut(wanting).remove(id, list);
            }
        }
    }

    pub(super) fn wanting(&mut self, ce_type: &str) -> Arc<Wanting> {
        if let Some(wanting) = self.known.get(ce_type) {
            return Arc::clone(wanting);
        }
        let mut found = Wanting::default();
        let wishes = self.wishes.iter().filter(|(_, (patterns, _))| wants(patterns, ce_type));
        wishes.for_each(|(id, (_, list))| found.add(*id, *list));
        let found = Arc::new(found);
        self.known.insert(ce_type.to_owned(), Arc::clone(&found));
        found
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

    #[test]
    fn who_wants_a_type_is_kept_right_as_members_come_and_go() {
        let (mut index, all, list) = (TypeIndex::default(), ["no.*".to_owned()], Some(Uuid::from_u128(7)));
        let mut found = |change: &dyn Fn(&mut TypeIndex)| {
            change(&mut index);
            let wanting = index.wanting("no.a.v1");
            let listed: Vec<_> = wanting.listed_keys.values().flatten().map(|id| id.0).collect();
            (wanting.any_key.iter().map(|id| id.0).collect::<Vec<_>>(), listed)
        };
        assert_eq!(found(&|index| index.add(MemberId(0), &all, None)), (vec![0], vec![]));
        assert_eq!(found(&|index| index.add(MemberId(1), &all, list)), (vec![0], vec![1]));
        assert_eq!(found(&|index| index.add(MemberId(2), &["no.b.v1".to_owned()], list)), (vec![0], vec![1]));
        assert_eq!(found(&|index| index.remove(MemberId(0))), (vec![], vec![1]));
        assert_eq!(found(&|index| index.remove(MemberId(1))), (vec![], vec![]));
        assert!(index.wanting("no.a.v1").listed_keys.is_empty(), "no list is remembered that nobody has");
    }
}
