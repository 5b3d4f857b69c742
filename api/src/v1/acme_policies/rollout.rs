//! The rollout of an ACME policy's newest revision.

pub(crate) mod pause;
pub(crate) mod resume;
pub(crate) mod roll_back;
pub(crate) mod show;

use axum::Json;
use rollout::RolloutReport;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::Shared;
use crate::auth::Caller;
use crate::problem::{Problem, Slug};
use crate::v1::acme_policies;

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

/// What an operator does to a rollout.
#[derive(Debug, Clone, Copy)]
enum Act {
    Pause,
    Resume,
    RollBack,
}

/// Does it, and tells how the rollout stands afterwards.
async fn act(
    shared: &Shared,
    caller: &Caller,
    name: &str,
    because: &Because,
    act: Act,
) -> Result<Json<RolloutReport>, Problem> {
    let now = shared.clock.now();
    store::retry(async || {
        let mut tx = shared.store.begin().await?;
        let policy = acme_policies::find(&mut tx, name).await?;
        let (why, actor) = (because.why()?, &caller.actor);
        match act {
            Act::Pause => rollout::pause(&mut tx, &policy, why, actor, now).await?,
            Act::Resume => rollout::resume(&mut tx, &policy, why, actor, now).await?,
            Act::RollBack => rollout::roll_back(&mut tx, &policy, why, actor, now).await?,
        };
        // A rollback has changed which revision is current.
        let policy = acme_policies::find(&mut tx, name).await?;
        let report = rollout::rollout_report(&mut tx, &policy, now).await?;
        tx.commit().await?;
        Ok(Json(report))
    })
    .await
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
