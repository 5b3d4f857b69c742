//! What can go wrong with rollouts.

use store::Busy;
use store::rollouts::State;

/// An error of a rollout.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A policy could not be read.
    #[error(transparent)]
    Policy(#[from] policy::Error),
    /// The policy has no rollout: it has no plan, or is on no device yet.
    #[error("there is no rollout of the ACME policy {0}: it has no steps, or was never assigned")]
    NoRollout(String),
    /// What is asked for does not fit the state of the rollout.
    #[error("the rollout cannot be {asked}: it is {}", .state.as_str())]
    State {
        /// What was asked for: paused, resumed, rolled back.
        asked: &'static str,
        /// What it is.
        state: State,
    },
    /// A newer revision is current.
    #[error("the rollout cannot be {asked}: it is that of revision {revision}, and {current} is current")]
    NotCurrent {
        /// What was asked for: resumed, rolled back.
        asked: &'static str,
        /// The rollout's revision.
        revision: i64,
        /// The policy's.
        current: i64,
    },
    /// Somebody else has just changed it.
    #[error("the rollout was changed by somebody else just now; look at it again")]
    Changed,
}

/// The result of a function of rollouts.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Busy for Error {
    fn is_busy(&self) -> bool {
        match self {
            Self::Store(e) => e.is_busy(),
            Self::Policy(e) => e.is_busy(),
            Self::NoRollout(_) | Self::State { .. } | Self::NotCurrent { .. } | Self::Changed => false,
        }
    }
}
