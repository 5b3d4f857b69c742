//! What a token may do.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

macro_rules! scopes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        /// One permission of a token.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Scope { $($(#[$doc])* #[serde(rename = $text)] $variant),+ }

        impl Scope {
            /// All scopes.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its text in requests, answers and the database.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

scopes! {
    /// Everything.
    Admin = "admin",
    /// List and show enrollments, their facts and decisions.
    EnrollmentsRead = "enrollments:read",
    /// Put labels on enrollments and take them off; revoke the tokens of account-driven enrollments.
    EnrollmentsWrite = "enrollments:write",
    /// List and show commands and their results.
    CommandsRead = "commands:read",
    /// Enqueue commands that a person can undo, cancel commands, push.
    CommandsWrite = "commands:write",
    /// Enqueue commands that erase, lock, restart or unmanage a device; unenroll. Does not contain commands:write.
    CommandsDestructive = "commands:destructive",
    /// List and show ACME policies and what they decide.
    PoliciesRead = "policies:read",
    /// Create, change, assign and delete ACME policies.
    PoliciesWrite = "policies:write",
    /// Show how the enrollment doors are set.
    DoorsRead = "doors:read",
    /// Open, close and set enrollment doors.
    DoorsWrite = "doors:write",
    /// Make, list and revoke enrollment links and invitations.
    LinksWrite = "links:write",
    /// List issuance records, identities and the quarantine.
    IssuanceRead = "issuance:read",
    /// Admit identity certificates that another CA issued; decide on quarantined devices.
    IssuanceWrite = "issuance:write",
    /// List network users, set their passwords, take them off the list.
    NetworkUsersWrite = "network-users:write",
    /// List push certificates.
    PushCertsRead = "push-certs:read",
    /// Upload push certificates.
    PushCertsWrite = "push-certs:write",
    /// Make, list and revoke API tokens, never with more than the own scopes.
    TokensWrite = "tokens:write",
    /// List servers, profiles and devices of Automated Device Enrollment.
    AdeRead = "ade:read",
    /// Make servers and put their tokens, write profiles, say which device gets which, vouch for devices.
    AdeWrite = "ade:write",
    /// Read the log of events.
    EventsRead = "events:read",
}

impl utoipa::PartialSchema for Scope {
    fn schema() -> RefOr<Schema> {
        let texts: Vec<&str> = Self::ALL.iter().map(|scope| scope.as_str()).collect();
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(texts))
            .description(Some("What a token may do."))
            .into()
    }
}

impl ToSchema for Scope {
    fn name() -> Cow<'static, str> {
        "TokenScope".into()
    }
}

/// What a route of the table asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: anyone may read this. Two routes only, and a test names them.
    Public,
    /// A valid token, with this scope where one is named.
    Needs(Option<Scope>),
}

impl From<Scope> for Access {
    fn from(scope: Scope) -> Self {
        Self::Needs(Some(scope))
    }
}

/// The scopes of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// These scopes, each once.
    pub fn new(scopes: &[Scope]) -> Self {
        Self(Scope::ALL.iter().copied().filter(|scope| scopes.contains(scope)).collect())
    }

    /// Reads what [`Self::to_text`] wrote. A word that is not known (any more) allows nothing.
    pub fn from_text(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        Self(Scope::ALL.iter().copied().filter(|scope| words.contains(&scope.as_str())).collect())
    }

    /// The scopes, separated by spaces.
    pub fn to_text(&self) -> String {
        self.0.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// Whether this scope is among them, or `admin` is.
    pub fn allow(&self, scope: Scope) -> bool {
        self.0.contains(&scope) || self.0.contains(&Scope::Admin)
    }

    /// Whether all of `other` are allowed.
    pub fn contain(&self, other: &Self) -> bool {
        other.0.iter().all(|scope| self.allow(*scope))
    }

    /// The scopes.
    pub fn as_slice(&self) -> &[Scope] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_allows_all_and_nothing_else_does() {
        let admin = Scopes::new(&[Scope::Admin]);
        let writer = Scopes::new(&[Scope::CommandsWrite]);
        assert!(Scope::ALL.iter().all(|scope| admin.allow(*scope)));
        assert!(admin.contain(&writer) && !writer.contain(&admin));
        assert!(!writer.allow(Scope::CommandsDestructive) && !writer.allow(Scope::CommandsRead));
    }

    #[test]
    fn text_goes_there_and_back_and_unknown_words_allow_nothing() {
        let scopes = Scopes::new(&[Scope::EventsRead, Scope::CommandsWrite, Scope::EventsRead]);
        assert_eq!(scopes.to_text(), "commands:write events:read");
        assert_eq!(Scopes::from_text("commands:write events:read"), scopes);
        assert!(Scopes::from_text("root admins adminx").as_slice().is_empty());
    }
}
