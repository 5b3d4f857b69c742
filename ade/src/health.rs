//! How a server is, in a word, and what an operator must do about it.

use mdm_core::time::Timestamp;
use store::Tx;

use crate::Error;
use crate::service::Fault;

/// How a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It has no token yet.
    NoToken,
    /// The last visit went well.
    Ok,
    /// Apple's terms must be accepted in the portal.
    TermsNotSigned,
    /// The token has ended.
    TokenExpired,
    /// Apple refuses the token.
    TokenRefused,
    /// Apple's service gives no answer that helps.
    Unreachable,
    /// Apple asks for patience.
    Throttled,
}

impl Health {
    /// The word in the database and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::Ok => "ok",
            Self::TermsNotSigned => "terms_not_signed",
            Self::TokenExpired => "token_expired",
            Self::TokenRefused => "token_refused",
            Self::Unreachable => "unreachable",
            Self::Throttled => "throttled",
        }
    }

    /// Whether only a person can make it well.
    pub(crate) fn needs_a_person(self) -> bool {
        matches!(self, Self::TermsNotSigned | Self::TokenExpired | Self::TokenRefused)
    }
}

impl From<&Fault> for Health {
    fn from(fault: &Fault) -> Self {
        match fault {
            Fault::TermsNotSigned => Self::TermsNotSigned,
            Fault::TokenExpired => Self::TokenExpired,
            Fault::TokenRefused(_) => Self::TokenRefused,
            Fault::Throttled { .. } => Self::Throttled,
            Fault::Unreachable { .. } | Fault::Refused { .. } | Fault::NotUnderstood(_) => Self::Unreachable,
        }
    }
}

/// What needs an operator, or soon will, one sentence each; for `/readyz?verbose` and `assay check`. The ends of
/// tokens are not among it: the judgement about trust tells of them, with all other ends.
pub async fn warnings(tx: &mut Tx, now: Timestamp) -> Result<Vec<String>, Error> {
    let mut warnings = Vec::new();
    for server in store::ade::servers::list(tx).await? {
        let name = &server.name;
        if server.health == Health::NoToken.as_str() {
            warnings.push(format!(
                "ADE server {name} has no token: upload its certificate to Apple's portal and put the token"
            ));
            continue;
        }
        let expires_at = server.token_expires_at.map_or(now, Timestamp);
        let known = expires_at <= now && server.health == Health::TokenExpired.as_str();
        if server.health != Health::Ok.as_str() && !known {
            let text = server.health_text.as_deref().unwrap_or(&server.health);
            warnings.push(format!("ADE server {name}: {text}"));
        }
        let counts = store::ade::devices::counts(tx, server.id).await?;
        let stuck: i64 = counts
            .iter()
            .filter(|c| ["failed", "not_accessible"].contains(&c.assign_state.as_str()))
            .map(|c| c.devices)
            .sum();
        if stuck > 0 {
            warnings.push(format!("ADE server {name}: Apple does not give {stuck} device(s) their profile"));
        }
    }
    Ok(warnings)
}
