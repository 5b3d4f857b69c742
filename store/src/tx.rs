//! A connection to one of two databases, as one type, and the macro that runs the same SQL text on either.

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, Postgres, Sqlite, SqliteConnection, Transaction};

use crate::durable::Durable;
use crate::open::Wakers;
use crate::{Error, Result};

/// Which SQL dialect is spoken. Only for the few statements that cannot be one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

impl Dialect {
    /// What a claiming `SELECT` ends with so that two claimers neither share a row nor deadlock. Rows that refer to a claimed one
    /// are written meanwhile, and one that is being referred to is not passed over: its key stays.
    pub fn skip_locked(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR NO KEY UPDATE SKIP LOCKED",
        }
    }

    /// [`Self::skip_locked`] for rows that are deleted: one that is being referred to is passed over.
    pub fn skip_locked_to_delete(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE SKIP LOCKED",
        }
    }
}

/// Which loop has work once this transaction is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The push loop.
    Push,
    /// The reconcile loop.
    Reconcile,
    /// The renewal loop.
    Renewal,
}

pub(crate) enum Link<D: sqlx::Database> {
    Read(PoolConnection<D>),
    Write(Transaction<'static, D>),
}

impl<D: sqlx::Database> Link<D> {
    pub(crate) fn connection(&mut self) -> &mut D::Connection {
        match self {
            Self::Read(c) => c,
            Self::Write(t) => t,
        }
    }
}

pub(crate) enum Backend {
    Sqlite(Link<Sqlite>),
    Postgres(Link<Postgres>),
}

/// A read connection or a write transaction. Dropped without [`Tx::commit`], a write transaction is rolled back.
pub struct Tx {
    pub(crate) backend: Backend,
    durable: Option<Durable>,
    wakers: Wakers,
    wake_push: bool,
    wake_reconcile: bool,
    wake_renewal: bool,
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx").field("dialect", &self.dialect()).finish_non_exhaustive()
    }
}

impl Tx {
    pub(crate) fn new(backend: Backend, durable: Option<Durable>, wakers: Wakers) -> Self {
        Self { backend, durable, wakers, wake_push: false, wake_reconcile: false, wake_renewal: false }
    }

    /// The dialect of the database behind it.
    pub fn dialect(&self) -> Dialect {
        match self.backend {
            Backend::Sqlite(_) => Dialect::Sqlite,
            Backend::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Wakes that loop once this transaction is committed, not before.
    pub fn wake(&mut self, wake: Wake) {
        match wake {
            Wake::Push => self.wake_push = true,
            Wake::Reconcile => self.wake_reconcile = true,
            Wake::Renewal => self.wake_renewal = true,
        }
    }

    /// Makes everything durable, then wakes the loops that were asked for.
    pub async fn commit(self) -> Result<()> {
        match self.backend {
            Backend::Sqlite(Link::Write(t)) => {
                t.commit().await?;
                if let Some(durable) = &self.durable {
                    durable.wait().await?;
                }
            }
            Backend::Postgres(Link::Write(t)) => t.commit().await?,
            Backend::Sqlite(Link::Read(_)) | Backend::Postgres(Link::Read(_)) => {}
        }
        if self.wake_push {
            self.wakers.push.notify_one();
        }
        if self.wake_reconcile {
            self.wakers.reconcile.notify_one();
        }
        if self.wake_renewal {
            self.wakers.renewal.notify_one();
        }
        Ok(())
    }

    /// Gives everything up; the same as dropping it, but waits for the database.
    pub async fn rollback(self) -> Result<()> {
        match self.backend {
            Backend::Sqlite(Link::Write(t)) => t.rollback().await.map_err(Error::from),
            Backend::Postgres(Link::Write(t)) => t.rollback().await.map_err(Error::from),
            Backend::Sqlite(Link::Read(_)) | Backend::Postgres(Link::Read(_)) => Ok(()),
        }
    }
}

/// Runs an expression with `$c` as the driver's connection: `run!(tx, c => sqlx::query(SQL).bind(x).execute(c).await)`.
///
/// The expression is compiled once for each driver, so one SQL text and one chain of binds serve both.
macro_rules! run {
    ($tx:expr, $c:ident => $body:expr) => {
        match &mut $tx.backend {
            $crate::tx::Backend::Sqlite(link) => {
                let $c: &mut $crate::tx::SqliteConn = link.connection();
                $body
            }
            $crate::tx::Backend::Postgres(link) => {
                let $c: &mut $crate::tx::PgConn = link.connection();
                $body
            }
        }
    };
}

/// Implements `sqlx::FromRow` for both drivers, field by column name.
macro_rules! from_row {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl<'r> sqlx::FromRow<'r, sqlx::sqlite::SqliteRow> for $name {
            fn from_row(row: &'r sqlx::sqlite::SqliteRow) -> std::result::Result<Self, sqlx::Error> {
                use sqlx::Row as _;
                Ok(Self { $($field: row.try_get(stringify!($field))?),+ })
            }
        }
        impl<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> for $name {
            fn from_row(row: &'r sqlx::postgres::PgRow) -> std::result::Result<Self, sqlx::Error> {
                use sqlx::Row as _;
                Ok(Self { $($field: row.try_get(stringify!($field))?),+ })
            }
        }
    };
}

pub(crate) type SqliteConn = SqliteConnection;
pub(crate) type PgConn = PgConnection;
