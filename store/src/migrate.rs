//! The schema, embedded: forward only, never edited once released, the same numbers and names for both databases.

use std::borrow::Cow;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{PgPool, SqlSafeStr, SqlitePool};

use crate::Result;

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

pub(crate) async fn sqlite(pool: &SqlitePool) -> Result<()> {
    Migrator::with_migrations(migrations!("sqlite", (1, "0001_initial"))).run(pool).await?;
    Ok(())
}

pub(crate) async fn postgres(pool: &PgPool) -> Result<()> {
    Migrator::with_migrations(migrations!("postgres", (1, "0001_initial"))).run(pool).await?;
    Ok(())
}
