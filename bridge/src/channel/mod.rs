//! Delivery channels, one file each. A channel makes one attempt and says how it ended; it never
//! retries and never decides.

pub mod webhook;
