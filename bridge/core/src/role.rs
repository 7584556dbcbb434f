//! What a token may do. A token has a set of roles; a role opens things and never closes any.
//!
//! Must never open anything for a role that is not named here: an unknown name is refused.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Make subscriptions, and see and change one's own.
    Subscribe,
    /// Reserved for publishing; opens nothing yet.
    Publish,
    /// Tokens, and everyone's subscriptions.
    Operate,
    /// See what was disclosed of one's own data, and to whom.
    Audit,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Subscribe, Self::Publish, Self::Operate, Self::Audit];

    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Operate => "operate",
            Self::Audit => "audit",
        }
    }
}

/// The roles of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Roles(BTreeSet<Role>);

/// What a token has whose request, or whose record of old, names no role: tokens could subscribe
/// before there were roles.
impl Default for Roles {
    fn default() -> Self {
        Self(BTreeSet::from([Role::Subscribe]))
    }
}

impl Roles {
    /// All of them: the operator's.
    pub fn all() -> Self {
        Self(BTreeSet::from(Role::ALL))
    }

    /// These; none if there are none.
    pub fn of(roles: impl Iterator<Item = Role>) -> Option<Self> {
        let roles: BTreeSet<Role> = roles.collect();
        (!roles.is_empty()).then_some(Self(roles))
    }

    /// Reads a list of names, or says what it should be.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let named = value.as_array().filter(|names| !names.is_empty()).and_then(|names| {
            let role = |name: &Value| Role::ALL.into_iter().find(|role| name.as_str() == Some(role.name()));
            names.iter().map(role).collect::<Option<BTreeSet<Role>>>()
        });
        named.map(Self).ok_or_else(|| format!("is a list of one or more of {}", Role::ALL.map(Role::name).join(", ")))
    }

    /// Those that one organisation can lend to a supplier: what operators do is nobody's to lend.
    pub fn lent(self) -> Option<Self> {
        Self::of(self.0.into_iter().filter(|role| matches!(role, Role::Subscribe | Role::Publish)))
    }

    /// Whether the role is among them.
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn roles_are_read_whole_or_not_at_all() {
        let parsed = |value: Value| Roles::parse(&value).map(|roles| roles.0.into_iter().map(Role::name).collect::<Vec<_>>()).ok();
        for (value, expected) in [
            (json!(["operate", "subscribe", "operate"]), Some(vec!["subscribe", "operate"])),
            (json!(["publish"]), Some(vec!["publish"])),
            (json!([]), None),
            (json!(["subscribe", "root"]), None),
            (json!(["Subscribe"]), None),
            (json!([1]), None),
            (json!("subscribe"), None),
        ] {
            assert_eq!(parsed(value.clone()), expected, "{value}");
        }
    }

    #[test]
    fn stored_names_are_the_names_of_the_api() {
        for role in Role::ALL {
            assert_eq!(serde_json::to_value(role).unwrap(), json!(role.name()));
        }
        assert_eq!(serde_json::to_value(Roles::default()).unwrap(), json!(["subscribe"]));
    }
}
