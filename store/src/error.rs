//! What can go wrong with the database, and running a message again when another one was in its way.

use std::future::Future;

/// A database error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another transaction was in the way; running the whole message again can succeed.
    #[error("the database was busy: {0}")]
    Busy(#[source] sqlx::Error),
    /// A `UNIQUE` constraint refused the row.
    #[error("a row with this key exists already: {0}")]
    Duplicate(#[source] sqlx::Error),
    /// A foreign key refused the row.
    #[error("a row that this one refers to does not exist: {0}")]
    Missing(#[source] sqlx::Error),
    /// The database could not be reached or answered with an error.
    #[error("the database failed: {0}")]
    Database(#[source] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the database's schema could not be brought up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A setting or the surroundings do not allow the database to be opened.
    #[error("{0}")]
    Refused(String),
    /// A stored value cannot be read back.
    #[error("the stored value of {0} cannot be read")]
    Corrupt(&'static str),
}

/// The result of a store function.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<sqlx::Error> for Error {
    fn from(e: sqlx::Error) -> Self {
        let code = match &e {
            sqlx::Error::Database(d) => d.code().map(std::borrow::Cow::into_owned).unwrap_or_default(),
            _ => return Self::Database(e),
        };
        match code.as_str() {
            // SQLite BUSY, LOCKED, BUSY_SNAPSHOT; PostgreSQL serialization failure, deadlock, lock time-out.
            "5" | "6" | "517" | "261" | "40001" | "40P01" | "55P03" => Self::Busy(e),
            "1555" | "2067" | "23505" => Self::Duplicate(e),
            "787" | "23503" => Self::Missing(e),
            _ => Self::Database(e),
        }
    }
}

/// An error that can tell whether running the whole message again makes sense.
pub trait Busy {
    /// Whether another transaction was merely in the way.
    fn is_busy(&self) -> bool;
}

impl Busy for Error {
    fn is_busy(&self) -> bool {
        matches!(self, Self::Busy(_))
    }
}

/// Runs a whole message, and again (twice at most) when another transaction was in its way.
pub async fn retry<T, E: Busy, Fut: Future<Output = Result<T, E>>>(mut message: impl FnMut() -> Fut) -> Result<T, E> {
    for _ in 0..2 {
        match message().await {
            Err(e) if e.is_busy() => {}
            done => return done,
        }
    }
    message().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_message_runs_three_times_at_most() {
        let mut runs = 0;
        let done: Result<()> = retry(|| {
            runs += 1;
            async { Err(Error::Busy(sqlx::Error::PoolClosed)) }
        })
        .await;
        assert!(done.is_err());
        assert_eq!(runs, 3);
    }
}
