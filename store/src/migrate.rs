//! The schema, embedded: forward only, never edited once released, the same numbers and names for both databases.

use std::borrow::Cow;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{PgPool, SqlSafeStr, SqlitePool};

use crate::{Error, Result};

macro_rules! migrations {
    ($dialect:literal, $(($number:literal, $name:literal)),+ $(,)?) => {
        vec![$(Migration::new(
            $number,
            Cow::Borrowed($name),
            MigrationType::Simple,
            include_str!(concat!("../../migrations/", $dialect, "/", $name, ".sql")).into_sql_str(),
            false,
        )),+]
    };
}

fn for_sqlite() -> Migrator {
    Migrator::with_migrations(migrations!("sqlite", (1, "0001_initial"), (2, "0002_doors"), (3, "0003_certificates")))
}

fn for_postgres() -> Migrator {
    Migrator::with_migrations(migrations!("postgres", (1, "0001_initial"), (2, "0002_doors"), (3, "0003_certificates")))
}

pub(crate) async fn sqlite(pool: &SqlitePool) -> Result<()> {
    Ok(for_sqlite().run(pool).await?)
}

pub(crate) async fn postgres(pool: &PgPool) -> Result<()> {
    Ok(for_postgres().run(pool).await?)
}

/// Refuses a schema that is older or newer than this program, without touching it.
pub(crate) async fn is_current_sqlite(pool: &SqlitePool) -> Result<()> {
    let newest: i64 = sqlx::query_scalar(NEWEST).fetch_one(pool).await?;
    is_current(newest, &for_sqlite())
}

/// Refuses a schema that is older or newer than this program, without touching it.
pub(crate) async fn is_current_postgres(pool: &PgPool) -> Result<()> {
    let newest: i64 = sqlx::query_scalar(NEWEST).fetch_one(pool).await?;
    is_current(newest, &for_postgres())
}

const NEWEST: &str = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations";

fn is_current(found: i64, ours: &Migrator) -> Result<()> {
    let newest = ours.iter().map(|m| m.version).max().unwrap_or(0);
    match found.cmp(&newest) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err(Error::Refused(format!(
            "the database's schema is at step {found}, this program's at {newest}: the next start brings it up to date"
        ))),
        std::cmp::Ordering::Greater => Err(Error::Refused(format!(
            "the database's schema is at step {found}, but this program knows only {newest}: run the newer program"
        ))),
    }
}
