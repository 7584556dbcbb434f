//! Which unit of the register belongs to which: the numbers alone, some twenty bytes a unit.
//!
//! A sub-unit may lie below several parts of an organisation, so the way up is followed. Must never grow
//! beyond its limit, nor guess about a unit that it does not know.

use std::collections::HashMap;

use ryggrad_schemas::identifiers::Organisasjonsnummer;

/// Most steps from a unit up to its organisation. The register's own trees have fewer.
const STEPS_MAX: usize = 8;

/// More units than there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {0} units lie below others; without all of them no child can be checked: raise bridge.trust.units_max")]
pub struct TooManyUnits(pub usize);

/// Units that lie below others.
#[derive(Debug, Default)]
pub struct Units {
    above: HashMap<u32, u32>,
    units_max: usize,
}

impl Units {
    /// Room for so many.
    pub fn new(units_max: usize) -> Self {
        Self { above: HashMap::new(), units_max }
    }

    /// Takes in what the register says of a unit now: what it lies below, if anything.
    pub fn set(&mut self, unit: Organisasjonsnummer, above: Option<Organisasjonsnummer>) -> Result<(), TooManyUnits> {
        match above {
            None => {
                self.above.remove(&unit.number());
            }
            Some(above) => {
                self.above.insert(unit.number(), above.number());
            }
        }
        if self.above.len() > self.units_max { Err(TooManyUnits(self.units_max)) } else { Ok(()) }
    }

    /// Whether a unit belongs to an organisation, at whatever depth.
    pub fn belongs(&self, unit: Organisasjonsnummer, organisation: Organisasjonsnummer) -> bool {
        let mut at = unit.number();
        for _ in 0..STEPS_MAX {
            match self.above.get(&at) {
                Some(above) if *above == organisation.number() => return true,
                Some(above) => at = *above,
                None => return false,
            }
        }
        false
    }

    /// How many lie below others.
    pub fn len(&self) -> usize {
        self.above.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.above.is_empty()
    }
}
