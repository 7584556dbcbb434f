//! How far consumer groups have read, and who reads in them.
//!
//! Must never move a group that somebody reads in: the broker refuses that, and what was set is
//! read back.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::connection::Listener;
use crate::publisher::blocking;
use crate::{Connection, Error, Remedy};

/// Somebody who reads in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The group's name for it.
    pub id: String,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// Topics and partitions that it reads, as far as its protocol tells.
    pub assignment: Vec<(String, i32)>,
}

/// A group as its coordinator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Kafka's word: `Stable`, `Empty`, `Dead`, `PreparingRebalance`, `CompletingRebalance`.
    pub state: String,
    /// Who is in it.
    pub members: Vec<Member>,
}

impl Group {
    /// Whether somebody reads in it, or is about to.
    pub fn is_active(&self) -> bool {
        !self.members.is_empty() || !matches!(self.state.as_str(), "Empty" | "Dead")
    }
}

/// What a group has committed for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Topic name.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// The next offset that it will read.
    pub offset: i64,
    /// What it wrote beside.
    pub metadata: String,
}

/// A group and its members; none if no coordinator knows it.
pub async fn describe(connection: &Connection, group: &str, timeout_ms: u64) -> Result<Option<Group>, Error> {
    let (consumer, group) = (asker(connection, group)?, group.to_owned());
    blocking(move || {
        let doing = || format!("look at the group {group}");
        let found =
            consumer.fetch_group_list(Some(&group), Duration::from_millis(timeout_ms)).map_err(|error| Error::new(doing(), error))?;
        let described = found.groups().iter().find(|found| found.name() == group).map(|found| Group {
            state: found.state().to_owned(),
            members: found
                .members()
                .iter()
                .map(|member| Member {
                    id: member.id().to_owned(),
                    client_id: member.client_id().to_owned(),
                    host: member.client_host().to_owned(),
                    assignment: member.assignment().and_then(assignment).unwrap_or_default(),
                })
                .collect(),
        });
        Ok(described.filter(|group| group.state != "Dead" || !group.members.is_empty()))
    })
    .await
}

/// What a group has committed for these partitions; those without a commit are left out.
pub async fn committed(
    connection: &Connection,
    group: &str,
    partitions: &[(String, i32)],
    timeout_ms: u64,
) -> Result<Vec<Committed>, Error> {
    let consumer = asker(connection, group)?;
    let doing = format!("ask how far the group {group} has read");
    let partitions = partitions.to_vec();
    blocking(move || ask_committed(&consumer, &partitions, timeout_ms, &doing)).await
}

pub(crate) fn ask_committed(
    consumer: &BaseConsumer<Listener>,
    partitions: &[(String, i32)],
    timeout_ms: u64,
    doing: &str,
) -> Result<Vec<Committed>, Error> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition(topic, *partition);
    }
    let found = consumer.committed_offsets(list, Duration::from_millis(timeout_ms)).map_err(|error| Error::new(doing, error))?;
    let mut committed = Vec::new();
    for element in found.elements() {
        element.error().map_err(|error| Error::new(doing, error))?;
        if let Offset::Offset(offset) = element.offset() {
            committed.push(Committed {
                topic: element.topic().to_owned(),
                partition: element.partition(),
                offset,
                metadata: element.metadata().to_owned(),
            });
        }
    }
    Ok(committed)
}

/// The groups whose names begin so, as far as this client may see them.
pub(crate) fn beginning_with(consumer: &BaseConsumer<Listener>, prefixes: &[String], timeout: Duration) -> Result<Vec<String>, Error> {
    let found = consumer.fetch_group_list(None, timeout).map_err(|error| Error::new("list consumer groups", error))?;
    let is_meant = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()));
    Ok(found.groups().iter().map(|group| group.name()).filter(|name| is_meant(name)).map(str::to_owned).collect())
}

/// Sets the positions of a group in which nobody reads, and reads back that they stand.
pub async fn set(connection: &Connection, group: &str, positions: &[(String, i32, i64)], timeout_ms: u64) -> Result<(), Error> {
    let consumer = asker(connection, group)?;
    let doing = format!("set the offsets of the group {group}");
    let positions = positions.to_vec();
    blocking(move || {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (topic, partition, offset) in &positions {
            let added = list.add_partition_offset(topic, *partition, Offset::Offset(*offset));
            added.map_err(|error| Error::new(doing.clone(), error))?;
        }
        consumer.commit(&list, CommitMode::Sync).map_err(|error| Error::new(doing.clone(), error))?;
        let partitions: Vec<_> = positions.iter().map(|(topic, partition, _)| (topic.clone(), *partition)).collect();
        let found = ask_committed(&consumer, &partitions, timeout_ms, &doing)?;
        let stands = |(topic, partition, offset): &(String, i32, i64)| {
            found.iter().any(|found| found.topic == *topic && found.partition == *partition && found.offset == *offset)
        };
        match positions.iter().find(|position| !stands(position)) {
            None => Ok(()),
            Some((topic, partition, _)) => {
                Err(Error::other(doing, Remedy::Retry, format!("{topic}/{partition} does not stand where it was set; does somebody read?")))
            }
        }
    })
    .await
}

/// Keeps the offsets of a group in which nobody is a member: for who reads all partitions alone.
#[derive(Clone)]
pub struct Keeper {
    consumer: Arc<BaseConsumer<Listener>>,
    group: String,
}

impl Keeper {
    /// For one group. Asks nothing yet.
    pub fn new(connection: &Connection, group: &str) -> Result<Self, Error> {
        Ok(Self { consumer: Arc::new(asker(connection, group)?), group: group.to_owned() })
    }

    /// What is committed for these partitions; those without a commit are left out.
    pub async fn committed(&self, partitions: &[(String, i32)], timeout_ms: u64) -> Result<Vec<Committed>, Error> {
        let (keeper, partitions) = (self.clone(), partitions.to_vec());
        let doing = format!("ask how far the group {} has read", self.group);
        blocking(move || ask_committed(&keeper.consumer, &partitions, timeout_ms, &doing)).await
    }

    /// Commits, and waits until the broker has it. Refused while somebody is a member.
    pub async fn commit(&self, positions: Vec<Committed>) -> Result<(), Error> {
        let keeper = self.clone();
        let doing = format!("commit the offsets of the group {}", self.group);
        blocking(move || {
            let mut list = TopicPartitionList::with_capacity(positions.len());
            for position in &positions {
                let mut element = list.add_partition(&position.topic, position.partition);
                element.set_offset(Offset::Offset(position.offset)).map_err(|error| Error::new(doing.clone(), error))?;
                element.set_metadata(&position.metadata);
            }
            keeper.consumer.commit(&list, CommitMode::Sync).map_err(|error| Error::new(doing, error))
        })
        .await
    }
}

pub(crate) fn asker(connection: &Connection, group: &str) -> Result<BaseConsumer<Listener>, Error> {
    connection
        .client()
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .create_with_context(Listener)
        .map_err(|error| Error::new("create a consumer", error))
}

/// Kafka's `ConsumerProtocolAssignment`: version, then topics with their partitions.
fn assignment(bytes: &[u8]) -> Option<Vec<(String, i32)>> {
    let mut left = bytes;
    let mut found = Vec::new();
    take::<2>(&mut left)?;
    let topics = i32::from_be_bytes(take(&mut left)?);
    for _ in 0..topics {
        let length = usize::try_from(i16::from_be_bytes(take(&mut left)?)).ok()?;
        let (name, rest) = left.split_at_checked(length)?;
        left = rest;
        let name = std::str::from_utf8(name).ok()?;
        let partitions = i32::from_be_bytes(take(&mut left)?);
        for _ in 0..partitions {
            found.push((name.to_owned(), i32::from_be_bytes(take(&mut left)?)));
        }
    }
    Some(found)
}

fn take<const N: usize>(left: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = left.split_first_chunk::<N>()?;
    *left = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_and_a_cut_one_is_none() {
        let bytes = [0, 3, 0, 0, 0, 1, 0, 2, b'a', b'b', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 5];
        assert_eq!(assignment(&bytes), Some(vec![("ab".to_owned(), 0), ("ab".to_owned(), 5)]));
        for cut in 2..bytes.len() {
            assert_eq!(assignment(&bytes[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn a_group_is_active_while_somebody_is_or_comes() {
        let group = |state: &str, members: usize| {
            let member = Member { id: String::new(), client_id: String::new(), host: String::new(), assignment: Vec::new() };
            Group { state: state.to_owned(), members: vec![member; members] }
        };
        for (state, members, expected) in
            [("Stable", 1, true), ("Empty", 0, false), ("Dead", 0, false), ("PreparingRebalance", 0, true), ("Dead", 1, true)]
        {
            assert_eq!(group(state, members).is_active(), expected, "{state}");
        }
    }
}
