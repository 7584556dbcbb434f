//! Keys removed for legal reasons, as receivers see it: from the removal on nobody is sent an
//! older state, whether it was waiting, is read later, or the bridge died in between.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use ryggrad_tests::events::{Events, Published, key};
use ryggrad_tests::receiver::{Received, Receiver};
use ryggrad_tests::scenario::{ORGANISATION, OTHER_ORGANISATION, Scenario};
use ryggrad_tests::wait;

const SETTINGS: &str = "[bridge]\nretry_first_ms = 50\nretry_max_ms = 200\npending_per_key_max = 8\n";

/// Positions of a key that a receiver was sent, taken or not, from the given delivery on.
fn sent(received: &[Received], key: &str, from: usize) -> BTreeSet<u64> {
    received.iter().skip(from).filter(|delivery| delivery.key() == key).map(|delivery| delivery.change().1).collect()
}

fn taken(received: &[Received]) -> BTreeSet<u64> {
    received.iter().filter(|delivery| delivery.status == 204).map(|delivery| delivery.change().1).collect()
}

fn positions(published: &[Published]) -> BTreeSet<u64> {
    published.iter().map(|published| published.position).collect()
}

async fn takes(what: &str, receiver: &Receiver, published: &[Published]) {
    let expected = positions(published);
    wait::until(what, 30, || async { taken(&receiver.received()).is_superset(&expected).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_state_of_a_removed_key_reaches_nobody() {
    let scenario = Scenario::start().await;
    std::fs::write(scenario.folder.path().join("bridge.toml"), SETTINGS).unwrap();
    let mut bridge = scenario.bridge(&["--config", "bridge.toml"]);
    let (owner, other) = (scenario.subscriber(ORGANISATION).await, scenario.subscriber(OTHER_ORGANISATION).await);
    let mut events = Events::start(&scenario.connection()).await;

    // Two keys fail: one with a few states in its lane, one with more than a lane holds.
    let (few, many, unsaid) = (key(1), key(2), key(3));
    let refused = Arc::new(Mutex::new(BTreeSet::from([few.clone(), many.clone()])));
    let asked = Arc::clone(&refused);
    let troubled =
        Receiver::scripted(move |delivery| (if asked.lock().unwrap().contains(delivery.key()) { 500 } else { 204 }, Vec::new())).await;
    let (id, _) = owner.subscribe(&troubled.sink(), "beginning").await;
    let old_of_few = events.publish(vec![few.clone(); 4]).await;
    let old_of_many = events.publish(vec![many.clone(); 40]).await;
    let old_of_unsaid = events.publish(vec![unsaid.clone(); 3]).await;
    let mut others = events.publish((10..40).map(key)).await;
    takes("all but the failing keys", &troubled, &[others.clone(), old_of_unsaid].concat()).await;
    wait::until("both failing keys were tried", 30, || async {
        let received = troubled.received();
        (!sent(&received, &few, 0).is_empty() && !sent(&received, &many, 0).is_empty()).then_some(())
    })
    .await;

    // Removed while its first state is in retry and the rest waits behind it.
    let few_removed = events.remove(&few, true).await;
    scenario.knows_removed(1).await;
    let before = troubled.count();
    refused.lock().unwrap().remove(&few);
    takes("the removal itself", &troubled, std::slice::from_ref(&few_removed)).await;
    let (since, on_its_way) = (sent(&troubled.received(), &few, before), old_of_few[0].position);
    // An attempt that was under way in that moment can't be called back; it has one try.
    assert!(since.iter().all(|position| [few_removed.position, on_its_way].contains(position)), "{since:?}");
    assert!(!taken(&troubled.received()).contains(&old_of_few[1].position));
    let status = owner.status(&id).await.unwrap();
    assert_eq!(status["withheld"].as_u64().map(|withheld| withheld >= 3), Some(true), "{status}");

    // Removed while the bridge is dead, with a lane so full that its tail is read again.
    bridge.kill();
    let many_removed = events.remove(&many, true).await;
    let unsaid_removed = events.remove(&unsaid, false).await;
    others.extend(events.publish((10..40).map(key)).await);
    let before = troubled.count();
    refused.lock().unwrap().clear();
    let _bridge = scenario.bridge(&["--config", "bridge.toml"]);
    owner.ready().await;
    let removals = [few_removed, many_removed, unsaid_removed];
    takes("the removals and all others", &troubled, &[&removals[..], &others].concat()).await;
    assert_eq!(sent(&troubled.received(), &many, before), BTreeSet::from([removals[1].position]));
    assert!(positions(&old_of_many).is_disjoint(&taken(&troubled.received())));

    // Whoever comes now reads the whole log.
    let late = Receiver::start().await;
    other.subscribe(&late.sink(), "beginning").await;
    takes("the late one has the removals and all others", &late, &[&removals[..], &others].concat()).await;
    assert_eq!(taken(&late.received()), positions(&[&removals[..], &others].concat()));

    // A key that appears again is delivered again.
    let again = events.publish([few.clone(), many.clone()]).await;
    takes("what came back, at the first", &troubled, &again).await;
    takes("what came back, at the second", &late, &again).await;
}
