//! What the store keeps, what it refuses, and what it does with damage and kills.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test may fail loudly")]

use std::path::Path;

use ryggrad_bridge_core::cursor::{Collapsed, Cursor, LaneKey, Pending, Place};
use ryggrad_bridge_core::machine::{DeadLetter, Numbering};
use ryggrad_bridge_core::outcome::Outcome;
use ryggrad_store::{Bound, Change, Entry, KeptAnswer, OpenError, Store, Stored, Writer};

const PLACE: Place = Place { topic: 1, partition: 3 };

fn cursor(scanned_to: i64) -> Cursor {
    let mut cursor = Cursor::starting_at(scanned_to);
    cursor.pending.extend([scanned_to - 1, scanned_to - 5].map(|offset| (offset, Pending { number: 7, void: false })));
    cursor.collapsed.insert(LaneKey::of("k"), Collapsed { mark: scanned_to - 2, parked: true });
    cursor
}

fn put(subscription: u8, scanned_to: i64) -> Change {
    Change::Put(Entry::Cursor { subscription: [subscription; 16], place: PLACE, cursor: cursor(scanned_to) })
}

fn scanned(store: &Store) -> Vec<(u8, Option<Cursor>)> {
    let found = store.load().unwrap().subscriptions;
    found.into_iter().map(|(id, mut stored)| (id[0], stored.cursors.remove(&PLACE))).collect()
}

async fn fill(path: &Path, changes: Vec<Change>) {
    let store = Store::open(path).unwrap().store;
    Writer::start(store).unwrap().commit(changes).await.unwrap();
}

/// The writer's thread lets go of the directory a moment after its last handle.
fn reopen(path: &Path) -> ryggrad_store::Opened {
    for _ in 0..1_000 {
        match Store::open(path) {
            Err(OpenError::InUse(_)) => std::thread::yield_now(),
            other => return other.unwrap(),
        }
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
    panic!("the directory is never let go");
}

#[tokio::test]
async fn what_was_committed_is_there_and_what_was_forgotten_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    fill(&path, vec![put(1, 10), put(2, 20), put(1, 11), Change::Forget { subscription: [2; 16] }, put(3, 30)]).await;
    let store = reopen(&path).store;
    assert_eq!(scanned(&store), [(1, Some(cursor(11))), (3, Some(cursor(30)))]);
}

#[tokio::test]
async fn a_forgotten_subscription_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    fill(&path, vec![put(1, 10), put(2, 20)]).await;
    let store = reopen(&path).store;
    Writer::start(store.clone()).unwrap().commit(vec![Change::Forget { subscription: [1; 16] }]).await.unwrap();
    assert_eq!(scanned(&store), [(2, Some(cursor(20)))]);
}

#[tokio::test]
async fn everything_of_a_subscription_comes_back_and_goes_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let subscription = [9; 16];
    let numbering = Numbering { epoch: 3, next: u64::MAX };
    let letter = |offset, parked, outcome| DeadLetter { place: PLACE, offset, lane: LaneKey(5), number: 12, outcome, parked };
    let letters = [(letter(4, true, Outcome::Hopeless), 100), (letter(8, false, Outcome::Failed), 200)];
    let mut changes =
        vec![put(9, 10), Change::Put(Entry::Numbering { subscription, numbering }), Change::Put(Entry::Live { place: PLACE, to: 77 })];
    changes.extend(letters.map(|(letter, at_ms)| Change::Put(Entry::DeadLetter { subscription, letter, at_ms })));
    fill(&path, changes).await;
    let store = reopen(&path).store;
    let whole =
        Stored { cursors: [(PLACE, cursor(10))].into(), numbering: Some(numbering), dead_letters: letters.to_vec(), damaged: false };
    let loaded = store.load().unwrap();
    assert_eq!((loaded.live.get(&PLACE), loaded.subscriptions.get(&subscription)), (Some(&77), Some(&whole)));
    let writer = Writer::start(store.clone()).unwrap();
    writer.commit(vec![Change::ForgetDeadLetter { subscription, place: PLACE, offset: 4 }]).await.unwrap();
    assert_eq!(store.load().unwrap().subscriptions[&subscription].dead_letters, letters[1..]);
    writer.commit(vec![Change::Forget { subscription }]).await.unwrap();
    assert!(store.load().unwrap().subscriptions.is_empty());
}

#[tokio::test]
async fn answers_are_kept_until_they_are_forgotten_and_only_whole_ones_and_here() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let answer =
        |key: u8, sealed: &[u8]| KeptAnswer { key: [key; 32], owner: [8; 32], fingerprint: [9; 32], at_ms: -7, sealed: sealed.to_vec() };
    let keep = |answer: &KeptAnswer| Change::KeepAnswer(answer.clone());
    let (first, second, third) = (answer(1, b"one"), answer(2, b""), answer(3, b"three"));
    fill(&path, vec![keep(&first), keep(&second), keep(&third), put(1, 10), Change::ForgetAnswer { key: third.key }]).await;
    let store = reopen(&path).store;
    let kept = |store: &Store| store.answers().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!((kept(&store), scanned(&store).len()), (vec![first.clone(), second.clone()], 1));
    assert_eq!((store.answer(first.key).unwrap(), store.answer(third.key).unwrap()), (Some(first.clone()), None));
    drop(store);

    wait_until_free(&path);
    let raw = sled::open(&path).unwrap();
    raw.open_tree("answers").unwrap().update_and_fetch([1; 32], |value| value.map(|value| value[..value.len() - 1].to_vec())).unwrap();
    drop(raw);
    let store = reopen(&path).store;
    assert_eq!((kept(&store), store.answer(first.key).unwrap()), (vec![second], None), "half an answer is none");
    store.bind_to_cluster("a").unwrap();
    store.bind_to_cluster("b").unwrap();
    assert_eq!(kept(&store), []);
}

#[tokio::test]
async fn a_directory_of_the_older_form_is_moved_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let old = sled::open(&path).unwrap();
    old.open_tree("cursors").unwrap().insert([1; 22], b"1").unwrap();
    drop(old);
    assert!(reopen(&path).moved_aside.is_some());
    assert!(reopen(&path).moved_aside.is_none());
}

#[tokio::test]
async fn a_store_belongs_to_one_cluster_and_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    fill(&path, vec![put(1, 10)]).await;
    let store = reopen(&path).store;
    assert_eq!(store.bind_to_cluster("a").unwrap(), Bound::Now);
    assert_eq!(store.bind_to_cluster("a").unwrap(), Bound::Before);
    assert_eq!(scanned(&store).len(), 1);
    let Bound::Instead(aside) = store.bind_to_cluster("b").unwrap() else { panic!("bound to another cluster") };
    assert_eq!(scanned(&store), []);
    assert_eq!(store.bind_to_cluster("b").unwrap(), Bound::Before);
    assert_eq!(scanned(&reopen(&aside).store), [(1, Some(cursor(10)))]);
    assert!(matches!(Store::open(&path), Err(OpenError::InUse(_))));
}

#[tokio::test]
async fn a_damaged_directory_is_moved_aside_and_a_kill_during_open_is_survived() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    fill(&path, vec![put(1, 10)]).await;
    drop(reopen(&path));

    // What a kill in the middle of an open leaves behind.
    std::fs::write(path.join("snap.0000000000000FFF.generating"), b"half").unwrap();
    let opened = reopen(&path);
    assert_eq!((opened.moved_aside, scanned(&opened.store).len()), (None, 1));
    drop(opened.store);

    let db = path.join("db");
    wait_until_free(&path);
    let mut bytes = std::fs::read(&db).unwrap();
    bytes.iter_mut().for_each(|byte| *byte = byte.wrapping_add(0x5a));
    std::fs::write(&db, bytes).unwrap();
    std::fs::write(path.join("conf"), b"nonsense").unwrap();
    let opened = reopen(&path);
    let aside = opened.moved_aside.expect("moved aside");
    assert!(aside.join("db").is_file());
    assert_eq!(scanned(&opened.store), []);
}

fn wait_until_free(path: &Path) {
    drop(reopen(path));
}
