//! Which topics a replay must not write to, and why. Pure.

use ryggrad_schemas::Catalogue;

use crate::exit::{Code, Stop};

/// A topic that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// How many partitions it has.
    pub partitions: i32,
    /// Whether only the latest record of each key stays.
    pub is_compacted: bool,
    /// Whether it has never held a record.
    pub is_empty: bool,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The topic that is read.
    pub source: &'a str,
    /// How many partitions it has.
    pub source_partitions: i32,
    /// The topic that is written to.
    pub target: &'a str,
    /// Whether keys choose partitions anew.
    pub repartition: bool,
    /// Whether an earlier run has begun to write.
    pub is_begun: bool,
}

/// What is not for everyone leaves by the bridge alone, which decides anew for each event and records it.
pub fn for_everyone(source: &str) -> Result<(), Stop> {
    if Catalogue::built_in().is_protected(source) {
        return refuse(
            format!("{source} holds events that are not for everyone"),
            "replay them --to-subscription, which gives its receiver what that may have now; ryggrad consume --reveal shows single ones",
        );
    }
    Ok(())
}

/// Whether it may be; if so, whether records keep the number of their partition.
pub fn keeps_partitions(wish: &Wish<'_>, target: Option<&Facts>) -> Result<bool, Stop> {
    let name = wish.target;
    if wish.source == name {
        return refuse(format!("{name} would be copied into itself"), "name another topic");
    }
    if name.starts_with("ryggrad.") || name.starts_with("__") {
        return refuse(
            format!("{name} is a topic in which a part of Ryggrad, or Kafka itself, keeps facts"),
            "copy into a topic of your own",
        );
    }
    if Catalogue::built_in().topic(name).is_some() {
        return refuse(
            format!("{name} is a topic of the catalogue: its order, its positions and its ids are its producer's"),
            "copy into a topic of your own, or let the producer publish again (ryggrad sources reset)",
        );
    }
    let Some(facts) = target else {
        let how = format!(
            "make it first, with {} partitions: kafka-topics.sh --create --topic {name} --partitions {}",
            wish.source_partitions, wish.source_partitions
        );
        return refuse(format!("the topic {name} does not exist at this broker"), &how);
    };
    if facts.is_compacted && !facts.is_empty && !wish.is_begun {
        return refuse(
            format!("{name} is compacted and holds records: older states and tombstones would take the place of what it has"),
            "copy into one that is empty, or whose cleanup.policy is delete",
        );
    }
    if facts.partitions != wish.source_partitions && !wish.repartition {
        return refuse(
            format!("{name} has {} partitions, {} has {}", facts.partitions, wish.source, wish.source_partitions),
            "--repartition lets each key choose its partition anew; keys keep their order, partitions do not",
        );
    }
    Ok(!wish.repartition)
}

fn refuse<T>(what: String, remedy: &str) -> Result<T, Stop> {
    Err(Stop { code: Code::Refused, what, remedy: Some(remedy.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_would_be_corrupted_is_refused() {
        let plain = Facts { partitions: 6, is_compacted: false, is_empty: false };
        let compacted = Facts { is_compacted: true, ..plain };
        for (what, target, facts, repartition, is_begun, expected) in [
            ("one's own", "copy", Some(plain), false, false, Ok(true)),
            ("other partitions by wish", "copy", Some(Facts { partitions: 3, ..plain }), true, false, Ok(false)),
            ("empty and compacted", "copy", Some(Facts { is_empty: true, ..compacted }), false, false, Ok(true)),
            ("our own work", "copy", Some(compacted), false, true, Ok(true)),
            ("itself", "source", Some(plain), false, false, Err("into itself")),
            ("events", "grunndata.virksomhet.v1", Some(plain), false, false, Err("of the catalogue")),
            ("facts", "ryggrad.cursors", Some(plain), false, false, Err("keeps facts")),
            ("facts to come", "ryggrad.anything", None, false, false, Err("keeps facts")),
            ("Kafka's", "__consumer_offsets", Some(plain), false, false, Err("keeps facts")),
            ("nothing", "copy", None, false, false, Err("does not exist")),
            ("fewer partitions", "copy", Some(Facts { partitions: 3, ..plain }), false, false, Err("has 3 partitions")),
            ("more partitions", "copy", Some(Facts { partitions: 7, ..plain }), false, false, Err("has 7 partitions")),
            ("compacted", "copy", Some(compacted), false, false, Err("is compacted")),
        ] {
            let wish = Wish { source: "source", source_partitions: 6, target, repartition, is_begun };
            match (keeps_partitions(&wish, facts.as_ref()), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{what}"),
                (Err(stop), Err(word)) => assert!(stop.what.contains(word) && stop.remedy.is_some(), "{what}: {stop:?}"),
                (found, _) => panic!("{what}: {found:?}"),
            }
        }
    }
}
