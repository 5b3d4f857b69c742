//! The two modes of account-driven enrollment.

use mdm_core::enrollment::{Door, EnrollmentKind};
use signin::Purpose;
use store::issuance::Flow;
use url::Url;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `mdm-byod`: User Enrollment.
    Byod,
    /// `mdm-adde`: device enrollment.
    Adde,
}

impl Mode {
    /// Both, the one with fewer rights first.
    pub const ALL: [Self; 2] = [Self::Byod, Self::Adde];

    /// The word in paths and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Byod => "byod",
            Self::Adde => "adde",
        }
    }

    /// Reads what [`Self::as_str`] gives.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text)
    }

    /// The mode of enrollments that came in by this door; `None`: they are not account-driven.
    pub fn of(door: Door) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.door() == door)
    }

    /// `Version` in the answer of service discovery.
    pub fn version(self) -> &'static str {
        match self {
            Self::Byod => "mdm-byod",
            Self::Adde => "mdm-adde",
        }
    }

    /// The door, with its settings.
    pub fn door(self) -> Door {
        match self {
            Self::Byod => Door::Byod,
            Self::Adde => Door::Adde,
        }
    }

    pub(crate) fn flow(self) -> Flow {
        match self {
            Self::Byod => Flow::Byod,
            Self::Adde => Flow::Adde,
        }
    }

    pub(crate) fn kind(self) -> EnrollmentKind {
        match self {
            Self::Byod => EnrollmentKind::User,
            Self::Adde => EnrollmentKind::Device,
        }
    }

    pub(crate) fn purpose(self) -> Purpose {
        match self {
            Self::Byod => Purpose::Byod,
            Self::Adde => Purpose::Adde,
        }
    }

    /// `BaseURL` in the answer of service discovery: where the device asks for its profile.
    pub fn base_url(self, public_url: &Url) -> String {
        format!("{}/account/{}", public_url.as_str().trim_end_matches('/'), self.as_str())
    }

    /// A page or an endpoint of this mode. The mode is in the path, because devices drop what a query of ours says (TH-54).
    pub(crate) fn url(self, public_url: &Url, what: &str) -> String {
        format!("{}/{what}", self.base_url(public_url))
    }
}
