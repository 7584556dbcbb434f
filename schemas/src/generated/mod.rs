//! Types made from the newest version of each schema by `tests/generated.rs`. Do not edit.

pub mod proevemaaling;
pub mod virksomhet;
