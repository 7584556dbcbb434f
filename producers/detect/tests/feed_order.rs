//! The rules by which a page of a feed is brought into order and divided.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use ryggrad_detect::feed::{self, Arranged, Entry, Item, Page, PageFault, Step, Unreadable};
use ryggrad_detect::quarantine::Reason;

const REASON: Reason = Reason { code: "test", text: "a test" };

/// `12a` is an item at 12 with the key a; `12!` an unreadable one at 12; `!` one without a position.
fn page(entries: &str) -> Page<()> {
    let entry = |text: &str| {
        let digits = text.trim_end_matches(|mark: char| !mark.is_ascii_digit());
        let position = digits.parse().ok();
        if text.ends_with('!') {
            return Entry::Unreadable(Unreadable { position, reason: REASON, raw: text.to_owned() });
        }
        let key = text[digits.len()..].to_owned();
        Entry::Item(Item { position: position.unwrap(), key, change: (), oddities: Vec::new(), raw: text.to_owned() })
    };
    Page { entries: entries.split_whitespace().map(entry).collect(), total_items: None }
}

/// Steps as text: `12[a b !11]` has two items and one thing quarantined at 11.
fn shown(steps: &[Step<()>]) -> String {
    let step = |step: &Step<()>| {
        let items = step.items.iter().map(|item| item.key.clone());
        let parts: Vec<String> = items.chain(step.quarantined.iter().map(|found| format!("!{}", found.position))).collect();
        format!("{}[{}]", step.position, parts.join(" "))
    };
    steps.iter().map(step).collect::<Vec<_>>().join(" ")
}

fn arranged(entries: &str, after: u64, items_max: usize) -> Arranged<()> {
    feed::arrange(page(entries), after, items_max).unwrap()
}

#[test]
fn a_page_is_brought_into_order() {
    let table = [
        // entries, after, expected, overlap, duplicates, waiting
        ("", 0, "", 0, 0, 0),
        ("", 10, "", 0, 0, 0),
        ("11a 13b 20a", 10, "11[a] 13[b] 20[a]", 0, 0, 0),
        ("20a 11a 13b", 10, "11[a] 13[b] 20[a]", 0, 0, 0),
        ("9a 10b 11c", 10, "11[c]", 2, 0, 0),
        ("11a 11a 12b", 10, "11[a] 12[b]", 0, 1, 0),
        ("11a 11b 12b", 10, "11[a b] 12[b]", 0, 0, 0),
        ("11a 12! 13b", 10, "11[a] 12[!12] 13[b]", 0, 0, 0),
        ("11! ", 10, "11[!11]", 0, 0, 0),
        ("9! 11a", 10, "11[a]", 1, 0, 0),
        ("11a ! 13b", 10, "11[a] 13[b !11]", 0, 0, 0),
        ("! 13b", 10, "13[b !10]", 0, 0, 0),
        ("9a ! 13b", 10, "13[b !10]", 1, 0, 0),
        ("11a ! ! 12! 13b", 10, "11[a] 12[!12 !11 !11] 13[b]", 0, 0, 0),
        ("11a !", 10, "11[a]", 0, 0, 1),
        ("! !", 10, "", 0, 0, 2),
    ];
    for (entries, after, expected, overlap, duplicates, waiting) in table {
        let found = arranged(entries, after, 100);
        assert_eq!(shown(&found.steps), expected, "{entries:?} after {after}");
        assert_eq!((found.overlap_items, found.duplicate_items, found.waiting_items), (overlap, duplicates, waiting), "{entries:?}");
    }
}

#[test]
fn a_page_that_lies_wholly_before_what_was_asked_for_is_an_error() {
    for (entries, after, greatest) in [("8a 9b", 10, 9), ("10a", 10, 10), ("9b 8a !", 10, 9), ("3!", 10, 3)] {
        assert_eq!(feed::arrange(page(entries), after, 100), Err(PageFault::WentBackwards { asked: after + 1, greatest }), "{entries}");
    }
}

#[test]
fn a_full_page_without_a_single_id_is_an_error_and_a_partial_one_waits() {
    assert_eq!(feed::arrange(page("! !"), 10, 2), Err(PageFault::NoPositions { items: 2 }));
    assert_eq!(arranged("! !", 10, 3).waiting_items, 2);
}

#[test]
fn the_last_id_of_a_full_page_waits_since_the_page_may_be_cut_within_it() {
    for (entries, items_max, expected) in [
        ("11a 12b 13c", 3, "11[a] 12[b]"),
        ("11a 12b 13c", 4, "11[a] 12[b] 13[c]"),
        ("11a 12b 12c", 3, "11[a]"),
        ("11a 11b 11c", 3, "11[a b c]"),
        ("9z 11a", 2, "11[a]"),
        ("11a ! 12b", 3, "11[a]"),
        ("11a", 1, "11[a]"),
    ] {
        assert_eq!(shown(&arranged(entries, 10, items_max).steps), expected, "{entries}");
    }
    assert_eq!(arranged("11a ! 12b", 10, 3).waiting_items, 1);
}

/// Reads a feed to its end by pages, as the shell does.
fn followed(feed: &str, items_max: usize) -> String {
    let all = page(feed);
    // Where an entry without an id really stands, upstream knows: just before the next one.
    let mut next = u64::MAX;
    let mut true_ids: Vec<u64> = all
        .entries
        .iter()
        .rev()
        .map(|entry| {
            if let Entry::Item(Item { position, .. }) | Entry::Unreadable(Unreadable { position: Some(position), .. }) = entry {
                next = *position;
                next
            } else {
                next - 1
            }
        })
        .collect();
    true_ids.reverse();
    let (mut position, mut steps) = (0, Vec::new());
    loop {
        let entries = true_ids.iter().zip(&all.entries).filter(|(id, _)| **id > position).map(|(_, entry)| entry.clone());
        let entries: Vec<_> = entries.take(items_max).collect();
        let arranged = match feed::arrange(Page { entries, total_items: None }, position, items_max) {
            Ok(arranged) => arranged,
            Err(fault) => panic!("{feed:?} in pages of {items_max}: {fault}"),
        };
        let Some(last) = arranged.steps.last() else { return shown(&steps) };
        position = last.position;
        steps.extend(arranged.steps);
    }
}

#[test]
fn every_page_size_hands_out_every_entry_exactly_once() {
    for feed in ["2a 4b 6c 8d 10a", "2a 4! 6c 8! 10a", "2a 4b ! 8c ! 12d", "2a 5b 5c 7d 9a"] {
        let whole = followed(feed, 100);
        for items_max in 3..8 {
            assert_eq!(followed(feed, items_max), whole, "{feed:?} in pages of {items_max}");
        }
    }
}

#[test]
fn chunks_hold_no_more_than_allowed_and_never_divide_a_position() {
    for (entries, events_max, expected) in [
        ("", 2, vec![]),
        ("1a 2b 3c", 2, vec!["1[a] 2[b]", "3[c]"]),
        ("1a 2b 2c 3d", 2, vec!["1[a]", "2[b c]", "3[d]"]),
        ("1a 1b 1c 2d", 2, vec!["1[a b c]", "2[d]"]),
        ("1! 2b 3c", 2, vec!["1[!1] 2[b]", "3[c]"]),
        ("1a 2b", 1, vec!["1[a]", "2[b]"]),
    ] {
        let chunks = feed::chunks(arranged(entries, 0, 100).steps, events_max);
        assert_eq!(chunks.iter().map(|chunk| shown(chunk)).collect::<Vec<_>>(), expected, "{entries}");
    }
}
