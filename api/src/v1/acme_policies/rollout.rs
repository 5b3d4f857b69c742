//! The rollout of an ACME policy's newest revision.

pub(crate) mod pause;
pub(crate) mod resume;
pub(crate) mod roll_back;
pub(crate) mod show;

use serde::Deserialize;
use utoipa::ToSchema;

use crate::problem::{Problem, Slug};

/// Why an operator does it; the events keep it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Because {
    /// In a sentence of at most 500 characters.
    #[serde(default)]
    why: Option<String>,
}

impl Because {
    fn why(&self) -> Result<Option<&str>, Problem> {
        let why = self.why.as_deref().map(str::trim).filter(|why| !why.is_empty());
        if why.is_some_and(|why| why.chars().count() > 500 || why.chars().any(char::is_control)) {
            return Err(Problem::field("why", "must be at most 500 characters without control characters"));
        }
        Ok(why)
    }
}

impl From<rollout::Error> for Problem {
    fn from(error: rollout::Error) -> Self {
        match error {
            rollout::Error::Store(error) => error.into(),
            rollout::Error::Policy(error) => error.into(),
            rollout::Error::NoRollout(_) => Self::new(Slug::NotFound, error.to_string()),
            rollout::Error::State { .. } | rollout::Error::NotCurrent { .. } | rollout::Error::Changed => {
                Self::new(Slug::Conflict, error.to_string())
            }
            _ => Self::internal(&error),
        }
    }
}
