//! What the store keeps, what it refuses, and what it does with damage and kills.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test may fail loudly")]

use std::path::Path;

use ryggrad_bridge_core::cursor::{Cursor, LaneKey, Place};
use ryggrad_store::{Change, OpenError, Store, Writer};

const PLACE: Place = Place { topic: 1, partition: 3 };

fn cursor(scanned_to: i64) -> Cursor {
    let mut cursor = Cursor::starting_at(scanned_to);
    cursor.pending.extend([scanned_to - 1, scanned_to - 5]);
    cursor.collapsed.insert(LaneKey::of("k"), scanned_to - 2);
    cursor
}

fn put(subscription: u8, scanned_to: i64) -> Change {
    Change::Put { subscription: [subscription; 16], place: PLACE, cursor: cursor(scanned_to) }
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
    let found: Vec<_> = store.cursors().unwrap().into_iter().map(|stored| (stored.subscription[0], stored.cursor)).collect();
    assert_eq!(found, [(1, Some(cursor(11))), (3, Some(cursor(30)))]);
}

#[tokio::test]
async fn a_forgotten_subscription_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    fill(&path, vec![put(1, 10), put(2, 20)]).await;
    let store = reopen(&path).store;
    Writer::start(store.clone()).unwrap().commit(vec![Change::Forget { subscription: [1; 16] }]).await.unwrap();
    let left: Vec<u8> = store.cursors().unwrap().iter().map(|stored| stored.subscription[0]).collect();
    assert_eq!(left, [2]);
}

#[tokio::test]
async fn a_store_belongs_to_one_cluster_and_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap().store;
    store.bind_to_cluster("a").unwrap();
    store.bind_to_cluster("a").unwrap();
    assert!(matches!(store.bind_to_cluster("b"), Err(OpenError::OtherCluster { .. })));
    assert!(matches!(Store::open(folder.path()), Err(OpenError::InUse(_))));
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
    assert_eq!((opened.moved_aside, opened.store.cursors().unwrap().len()), (None, 1));
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
    assert_eq!(opened.store.cursors().unwrap(), []);
}

fn wait_until_free(path: &Path) {
    drop(reopen(path));
}
