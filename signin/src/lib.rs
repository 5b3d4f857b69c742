//! Who a person is: sign-in by an OpenID Connect provider, or by an invitation code.
//!
//! A door begins a sign-in ([`begin`]) and sends the browser where that says. The pages here lead the person through it and
//! send the browser back to a path that is fixed for each [`Purpose`] (TH-56: no redirect to an address that a request names).
//! There the door takes the person ([`take`]), once.
//!
//! The OAuth 2 state belongs to one browser: it is bound to a session cookie, and both are stored as hashes only. PKCE
//! (RFC 7636, S256), the nonce and the signature, issuer, audience and times of the ID token are checked for each sign-in
//! (OpenID Connect Core 1.0, 3.1.3.7).

mod claims;
mod error;
mod http;
pub mod invitation;
mod page;
mod provider;
mod session;
pub mod web;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mdm_core::crypto::seal::Sealer;
use mdm_core::ids::Label;
use mdm_core::random::Random;
use mdm_core::rate::{Buckets, Rate};
use mdm_core::time::Clock;
use serde_json::Value;
use store::Store;
use url::Url;
use uuid::Uuid;

pub use claims::{AccountClaim, Rules};
pub use error::{Error, Refusal};
pub use http::router;
pub use provider::{Provider, ProviderSettings};
pub use session::{begin, clean_up, forget, take};

/// What every sign-in has in common.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How browsers reach the server; `redirect_uri` is made of it.
    pub public_url: Url,
    /// The organization's name, on pages.
    pub organization: String,
    /// A trial, with a banner on every page.
    pub pilot: bool,
    /// Whether invitation codes are taken, for the doors `byod` and `adde`.
    pub invitations: bool,
    /// How long a sign-in may take, from its first page to its end.
    pub life: Duration,
    /// How often one address may ask for pages.
    pub per_ip: Rate,
    /// How often one address may try a code.
    pub codes_per_ip: Rate,
    /// How often codes may be tried in the name of one account. It fills faster than one address can empty it, so that no
    /// single one can keep a person out (TH-55).
    pub codes_per_account: Rate,
    /// How often codes may be tried by all together.
    pub codes_together: Rate,
}

impl Settings {
    /// The defaults: no invitation codes, 20 minutes.
    pub fn new(public_url: Url, organization: &str) -> Self {
        Self {
            public_url,
            organization: organization.to_owned(),
            pilot: false,
            invitations: false,
            life: Duration::from_mins(20),
            per_ip: Rate { burst: 30, per_second: 0.5 },
            codes_per_ip: Rate { burst: 10, per_second: 0.2 },
            codes_per_account: Rate { burst: 20, per_second: 0.5 },
            codes_together: Rate { burst: 120, per_second: 4.0 },
        }
    }

    /// `redirect_uri` at the provider: exactly this one.
    pub fn redirect_url(&self) -> Url {
        self.page("sign-in/callback")
    }

    fn site(&self) -> web::Site<'_> {
        web::Site { organization: &self.organization, pilot: self.pilot }
    }

    fn page(&self, path: &str) -> Url {
        let mut url = self.public_url.clone();
        url.set_path(path);
        url
    }
}

/// How often who asked. In memory of each server.
#[derive(Debug, Default)]
pub struct Limits {
    pages: Buckets<IpAddr>,
    codes: Buckets<IpAddr>,
    accounts: Buckets<String>,
    together: Buckets<()>,
    refusals: Buckets<&'static str>,
}

/// What signing in needs.
#[derive(Debug, Clone)]
pub struct Context {
    /// The database.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// Randomness for states, nonces, verifiers, cookies and codes.
    pub random: Random,
    /// Seals nonce and verifier.
    pub sealer: Sealer,
    /// What every sign-in has in common.
    pub settings: Arc<Settings>,
    /// The OpenID Connect provider, where one is configured.
    pub provider: Option<Provider>,
    /// Who asked how often.
    pub limits: Arc<Limits>,
}

impl Context {
    /// Whether anybody can sign in for this purpose.
    pub fn is_configured_for(&self, purpose: Purpose) -> bool {
        self.provider.is_some() || self.takes_codes(purpose)
    }

    fn takes_codes(&self, purpose: Purpose) -> bool {
        self.settings.invitations && matches!(purpose, Purpose::Byod | Purpose::Adde)
    }
}

/// What a sign-in is for. A person who signed in for one is nobody for another (TH-54).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// An enrollment link that asks for it.
    Link,
    /// Automated Device Enrollment with `configuration_web_url`.
    Ade,
    /// Account-driven User Enrollment.
    Byod,
    /// Account-driven device enrollment.
    Adde,
}

impl Purpose {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Ade => "ade",
            Self::Byod => "byod",
            Self::Adde => "adde",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Link, Self::Ade, Self::Byod, Self::Adde].into_iter().find(|purpose| purpose.as_str() == word)
    }

    /// Where the browser goes once somebody signed in; nothing else decides on it.
    pub fn return_path(self) -> &'static str {
        match self {
            Self::Link => "/enroll/signed-in",
            Self::Ade => "/ade/signed-in",
            Self::Byod => "/account/byod/signed-in",
            Self::Adde => "/account/adde/signed-in",
        }
    }
}

/// A sign-in to begin.
#[derive(Debug, Clone)]
pub struct Begin<'a> {
    /// What it is for.
    pub purpose: Purpose,
    /// What the door wants back from [`take`]: a link, a serial number, an OAuth 2 request. Never a secret: it is stored as is.
    pub subject_of: Value,
    /// The account that the person named on the device; shown to the provider, and an invitation must be for it.
    pub login_hint: Option<&'a str>,
}

/// A sign-in that began.
#[derive(Clone)]
pub struct Begun {
    /// `Location` of the answer, 302 or 303: an absolute URL of this server.
    pub location: String,
    /// `Set-Cookie` of the answer.
    pub cookie: String,
}

impl std::fmt::Debug for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Begun").field("location", &self.location).finish_non_exhaustive()
    }
}

/// Somebody who signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The sign-in, for `account_token.sign_in_id` and events.
    pub sign_in: Uuid,
    /// The Managed Apple Account, `name@domain`.
    pub account: String,
    /// The label that the enrollment gets.
    pub label: Option<Label>,
    /// What the door gave to [`begin`].
    pub subject_of: Value,
}
