//! The decision as everything that delivers asks for it: may this event go to this one, now?
//!
//! Asked when a record is read, when it leaves the hub or is fetched, and right before it is posted. What anyone may
//! have costs one look at the topic. Must never take a protected record for an open one because of what the record says of
//! itself: its topic tells.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::Timestamp;
use ryggrad_bridge_core::access::{Caller, Event, Extent, Facts};
use ryggrad_bridge_core::record::{Matter, Record};
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::catalogue::{DataClass, EventType};
use ryggrad_schemas::identifiers::Organisasjonsnummer;

/// How a record leaves for somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leave {
    /// As what anyone may have.
    Freely,
    /// As a disclosure, which is recorded before.
    Disclosed(Box<Disclosed>),
    /// Not now.
    Not,
}

impl Leave {
    /// How much of it leaves.
    pub fn extent(&self) -> Extent {
        match self {
            Self::Freely => Extent::Whole,
            Self::Disclosed(disclosed) => disclosed.extent,
            Self::Not => Extent::Notice,
        }
    }
}

/// What is disclosed, to whom, and under which terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disclosed {
    /// Whose data it is.
    pub controller: Organisasjonsnummer,
    /// Who gets it.
    pub caller: Caller,
    /// In which view.
    pub view: &'static str,
    /// How much of it that is.
    pub extent: Extent,
    /// Whether addresses go along.
    pub with_addresses: bool,
    /// The law that the receiver cites.
    pub law: Option<String>,
}

/// The facts, and what they are asked about.
pub struct Decisions {
    facts: RwLock<Facts>,
    /// By topic number, what it carries.
    carried: Vec<Option<&'static EventType>>,
}

impl Decisions {
    /// No facts yet.
    pub fn new(catalogue: &'static Catalogue) -> Self {
        let topics_max = catalogue.topics.iter().map(|topic| usize::from(topic.id)).max().unwrap_or_default();
        let mut carried = vec![None; topics_max + 1];
        for event in &catalogue.events {
            if let Some(topic) = catalogue.topic(&event.topic) {
                carried[usize::from(topic.id)] = Some(event);
            }
        }
        Self { facts: RwLock::default(), carried }
    }

    /// Whether a record must not go to this one, as of now; what stops all that goes there aside.
    pub fn denies(&self, caller: Caller, record: &Record) -> bool {
        // What no event type is known of goes to nobody.
        let Some(carried) = self.carried(record) else { return true };
        if carried.class == DataClass::Open && caller.supplier.is_none() {
            return false;
        }
        self.read().denied(caller, event(carried, record.matter()), Timestamp::now()).is_some()
    }

    /// How a record leaves for this one, as of now; what stops all that goes there aside where anyone may have it.
    pub fn leave(&self, caller: Caller, record: &Record) -> Leave {
        let Some(carried) = self.carried(record) else { return Leave::Not };
        if carried.class == DataClass::Open {
            return if self.denies(caller, record) { Leave::Not } else { Leave::Freely };
        }
        let event = event(carried, record.matter());
        let (facts, controller) = (self.read(), event.controller);
        // Where nobody's records can tell of it, it stays.
        let (Some(terms), Some(controller)) = (facts.terms(caller, event, Timestamp::now()), controller) else { return Leave::Not };
        let Some(view) = carried.views.iter().find(|view| *view == terms.view.name) else { return Leave::Not };
        let (with_addresses, extent, law) = (terms.view.with_addresses, terms.extent, terms.law.map(str::to_owned));
        drop(facts);
        Leave::Disclosed(Box::new(Disclosed { controller, caller, view, extent, with_addresses, law }))
    }

    fn carried(&self, record: &Record) -> Option<&'static EventType> {
        self.carried.get(usize::from(record.place.topic)).copied().flatten()
    }

    /// The facts as of now.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Facts> {
        self.facts.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The facts, to be changed.
    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Facts> {
        self.facts.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is asked about a record.
fn event<'r>(carried: &'r EventType, matter: &'r Matter) -> Event<'r> {
    let Matter { controller, subject, occurred_at } = matter;
    let EventType { ce_type, class, views, .. } = carried;
    Event { ce_type, class: *class, views, controller: *controller, subject: subject.as_ref(), occurred_at: *occurred_at }
}
