//! What can go wrong in the queue.

use mdm_core::crypto::seal::SealError;
use mdm_core::ids::CommandUuid;
use store::Busy;

/// An error of the queue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The `CommandUUID` is taken by a command with another body.
    #[error("a command with CommandUUID {0} exists already, with another body")]
    OtherBody(CommandUuid),
    /// A stored body or result cannot be opened.
    #[error("what is stored of command {uuid} cannot be opened: {source}")]
    Sealed {
        /// Which command.
        uuid: CommandUuid,
        /// Why.
        source: SealError,
    },
}

impl Busy for Error {
    fn is_busy(&self) -> bool {
        matches!(self, Self::Store(e) if e.is_busy())
    }
}
