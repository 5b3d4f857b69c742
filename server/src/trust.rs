//! How devices trust this server, judged: what is wrong (E-codes), what soon will be (W-codes), and what to do.
//!
//! [`facts`] is everything that the judgement rests on, [`examine()`] is a pure function of it, [`Watch`] gathers it for a running
//! server. `assay check`, `/readyz?verbose`, the log and `GET /api/v1/trust` all say what [`examine()`] says.

pub mod ends;
mod examine;
pub mod facts;
mod kept;
pub mod path;
mod probe;
mod rotation;
mod served;
mod switch;
mod watch;

use std::fmt;

use serde::{Serialize, Serializer};

pub use self::examine::examine;
pub use self::facts::Facts;
pub(crate) use self::rotation::renew_profiles;
pub(crate) use self::served::served;
pub(crate) use self::switch::{Switch, reload};
pub use self::watch::{Setup, Watch};

/// What a finding is about. `E`: wrong now. `W`: works now, and will not for long, or wants a person's eye.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// The certificate does not name the host of `public_url`.
    E1,
    /// The chain is not complete, or certificate and key do not fit.
    E2,
    /// A certificate of the chain, or an anchor, is not valid now.
    E3,
    /// A key, a signature, a use or a lifetime that Apple's systems refuse.
    E4,
    /// `trust.server_certificate` says something else than the chain.
    E5,
    /// `public_url` is not https, or is not the one that devices were enrolled with.
    E6,
    /// Enrolled devices accept only CAs that are not in the chain.
    E7,
    /// A certificate of the chain, or an anchor, ends soon.
    W1,
    /// A profile at Apple carries other anchors.
    W2,
    /// Through the public URL another certificate is seen.
    W3,
    /// A push certificate, a token of Automated Device Enrollment or a CA ends soon, or has ended.
    W4,
    /// A pilot.
    W5,
    /// A root ends within 90 days and no next one is staged.
    W6,
}

impl Code {
    /// All, in order.
    pub const ALL: [Self; 13] = [
        Self::E1,
        Self::E2,
        Self::E3,
        Self::E4,
        Self::E5,
        Self::E6,
        Self::E7,
        Self::W1,
        Self::W2,
        Self::W3,
        Self::W4,
        Self::W5,
        Self::W6,
    ];

    /// `E1` to `W6`, as docs/trust.md lists them.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::E1 => "E1",
            Self::E2 => "E2",
            Self::E3 => "E3",
            Self::E4 => "E4",
            Self::E5 => "E5",
            Self::E6 => "E6",
            Self::E7 => "E7",
            Self::W1 => "W1",
            Self::W2 => "W2",
            Self::W3 => "W3",
            Self::W4 => "W4",
            Self::W5 => "W5",
            Self::W6 => "W6",
        }
    }

    /// Whether something is wrong now.
    pub fn is_error(self) -> bool {
        self <= Self::E7
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

/// Something that a person should know, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of thing.
    pub code: Code,
    /// Which part of the set-up, such as `TLS certificate`.
    pub about: &'static str,
    /// What is the case.
    pub text: String,
    /// What to do.
    pub what_to_do: String,
    /// Said every hour instead of every day.
    #[serde(skip)]
    pub urgent: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} – {}", self.code, self.text, self.what_to_do)
    }
}

/// Writes findings to the log: errors as errors, the rest as warnings.
pub(crate) fn log(findings: &[Finding]) {
    for finding in findings {
        let Finding { code, about, text, what_to_do, .. } = finding;
        if code.is_error() {
            tracing::error!(%code, about, what_to_do, "{text}");
        } else {
            tracing::warn!(%code, about, what_to_do, "{text}");
        }
    }
}
