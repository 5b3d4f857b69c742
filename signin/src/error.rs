//! What can go wrong while somebody signs in.

use mdm_core::crypto::seal::SealError;
use store::Busy;

/// Why a sign-in failed on our side or the provider's, or was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The nonce and verifier do not open.
    #[error("the secrets of a sign-in: {0}")]
    Seal(#[from] SealError),
    /// There is neither a provider nor, for this purpose, a way by code.
    #[error("nobody can sign in: configure [sign_in], an OpenID Connect provider or invitation codes")]
    NotConfigured,
    /// The provider cannot be reached, or its discovery document, keys or answers are not what the specifications say.
    #[error("the OpenID Connect provider: {0}")]
    Provider(String),
    /// A field of a new invitation has a value that is not accepted.
    #[error("{field} {why}")]
    Field {
        /// The field, in the API's spelling.
        field: &'static str,
        /// What would be right.
        why: &'static str,
    },
    /// The sign-in is refused.
    #[error("the sign-in is refused: {0}")]
    Refused(#[from] Refusal),
}

impl Error {
    /// A failure of the provider, with all its causes in one line.
    pub(crate) fn provider(cause: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = cause.to_string();
        let mut next = cause.source();
        while let Some(cause) = next {
            let more = cause.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            next = cause.source();
        }
        Self::Provider(text)
    }
}

impl Busy for Error {
    fn is_busy(&self) -> bool {
        matches!(self, Self::Store(e) if e.is_busy())
    }
}

/// Why nobody is signed in. The person sees none of these; log and events say them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The request itself is not one of OAuth 2: no `state`, or a parameter twice.
    #[error("the request is not an authorization response")]
    Malformed,
    /// No sign-in waits for this state: it is made up, or came in before (a replay).
    #[error("no sign-in waits for this state")]
    UnknownState,
    /// The state belongs to another browser (TH-56: state fixation).
    #[error("the state belongs to another browser")]
    OtherBrowser,
    /// There is no such sign-in, its time is over, or it is done.
    #[error("the sign-in is over")]
    Over,
    /// The provider says that the person may not, or does not want to.
    #[error("the provider answered with an error")]
    ProviderSaidNo,
    /// The authorization response names another issuer (RFC 9207).
    #[error("the answer names another issuer")]
    OtherIssuer,
    /// The provider does not take the authorization code (or PKCE verifier, or our credentials).
    #[error("the provider did not take the authorization code")]
    Code,
    /// The provider gave no ID token.
    #[error("the provider gave no ID token")]
    NoIdToken,
    /// Its signature is wrong, or of an algorithm or key that is not accepted.
    #[error("the signature of the ID token is wrong")]
    Signature,
    /// `iss` is another one.
    #[error("the ID token is of another issuer")]
    Issuer,
    /// `aud` is not (only) this client.
    #[error("the ID token is for another client")]
    Audience,
    /// `nonce` is not the one of this sign-in.
    #[error("the ID token is for another sign-in")]
    Nonce,
    /// `exp` is over, or `iat` lies ahead.
    #[error("the ID token's time is over or has not begun")]
    Time,
    /// Something else of the ID token is not right.
    #[error("the ID token is not right")]
    IdToken,
    /// The claim with the account is missing or is not text.
    #[error("the provider gave no account")]
    NoAccount,
    /// The account does not have the form `name@domain`.
    #[error("the account does not have the form name@domain")]
    AccountForm,
    /// `email_verified` is not true.
    #[error("the provider has not verified the e-mail address")]
    NotVerified,
    /// The account's domain is not among the allowed ones.
    #[error("the account's domain is not allowed")]
    Domain,
    /// No invitation has this code.
    #[error("no invitation has this code")]
    UnknownCode,
    /// The invitation has ended, was revoked or is used up.
    #[error("the invitation is over")]
    InvitationOver,
    /// The invitation is for the other mode of enrollment.
    #[error("the invitation is for another mode of enrollment")]
    OtherMode,
    /// The invitation is for another account than the person named.
    #[error("the invitation is for another account")]
    OtherAccount,
    /// Too many tries.
    #[error("too many tries")]
    TooMany,
}

impl Refusal {
    /// The stable word in events and the log.
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownState => "unknown_state",
            Self::OtherBrowser => "other_browser",
            Self::Over => "over",
            Self::ProviderSaidNo => "provider_said_no",
            Self::OtherIssuer => "other_issuer",
            Self::Code => "code",
            Self::NoIdToken => "no_id_token",
            Self::Signature => "signature",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Nonce => "nonce",
            Self::Time => "time",
            Self::IdToken => "id_token",
            Self::NoAccount => "no_account",
            Self::AccountForm => "account_form",
            Self::NotVerified => "not_verified",
            Self::Domain => "domain",
            Self::UnknownCode => "unknown_code",
            Self::InvitationOver => "invitation_over",
            Self::OtherMode => "other_mode",
            Self::OtherAccount => "other_account",
            Self::TooMany => "too_many",
        }
    }
}
