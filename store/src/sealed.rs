//! Every place of the database that holds a sealed value, so that all of them can be sealed anew with another key.
//!
//! A value is bound to its place by a context, `"table.column:row"`. What `row` is written as, each [`Place`] says; the code
//! that seals and opens values writes the same. A test compares this list with the schema.

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::{Dialect, Error, Result, Tx};

/// How the row of a place is named in the context of its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// By a UUID column: in lower case with hyphens.
    Id(&'static str),
    /// By a text column, as it is.
    Text(&'static str),
    /// By a UUID column and a text column, with a colon between them.
    IdAndText(&'static str, &'static str),
    /// `escrow_archive`: its values stay sealed for the column and row of `enrollment` that they come from.
    Archive,
    /// The one row of `seal_sentinel`.
    Sentinel,
}

/// A column that holds sealed values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    key: Key,
}

const fn place(table: &'static str, column: &'static str, key: Key) -> Place {
    Place { table, column, key }
}

/// All places.
pub const PLACES: [Place; 15] = [
    place("seal_sentinel", "sealed", Key::Sentinel),
    place("sealed_key", "key_sealed", Key::Text("name")),
    place("push_cert", "key_sealed", Key::Text("topic")),
    place("enrollment", "unlock_token_sealed", Key::Id("id")),
    place("enrollment", "bootstrap_token_sealed", Key::Id("id")),
    place("enrollment", "token_update_sealed", Key::Id("id")),
    place("escrow_archive", "sealed", Key::Archive),
    place("command", "body_sealed", Key::Text("uuid")),
    place("command_target", "rendered_sealed", Key::IdAndText("enrollment_id", "command_uuid")),
    place("command_target", "result_sealed", Key::IdAndText("enrollment_id", "command_uuid")),
    place("sign_in", "secrets_sealed", Key::Id("id")),
    place("ade_server", "key_sealed", Key::Id("id")),
    place("ade_server", "token_sealed", Key::Id("id")),
    place("network_user", "digest_sealed", Key::Text("short_name")),
    place("ca_webhook", "secret_sealed", Key::Id("id")),
];

/// A sealed value with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// What it is bound to.
    pub context: String,
    /// The value.
    pub sealed: Vec<u8>,
    row: Row,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Row {
    Id(Uuid),
    Text(String),
    IdAndText(Uuid, String),
    Only,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.table, self.column)
    }
}

/// Keeps every other writer away from the places until the end of the transaction. On SQLite the transaction does so anyway.
pub async fn lock(tx: &mut Tx) -> Result<()> {
    if tx.dialect() == Dialect::Sqlite {
        return Ok(());
    }
    for place in PLACES {
        let sql = format!("LOCK TABLE {} IN EXCLUSIVE MODE", place.table);
        run!(tx, c => sqlx::query(AssertSqlSafe(sql)).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// How many other sessions are open on the database of a server; SQLite's file is open in one process only.
pub async fn others_connected(tx: &mut Tx) -> Result<i64> {
    const COUNT: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
        AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
    if tx.dialect() == Dialect::Sqlite {
        return Ok(0);
    }
    Ok(run!(tx, c => sqlx::query_scalar(COUNT).fetch_one(c).await)?)
}

/// Values of a place that were not sealed with the key of this id (the first four bytes of a value), as many as `limit`.
pub async fn sealed_otherwise(tx: &mut Tx, place: Place, key_id: &[u8; 4], limit: i64) -> Result<Vec<Value>> {
    let Place { table, column, key } = place;
    let keys = match key {
        Key::Id(id) => format!("{id} AS id"),
        Key::Text(text) => format!("{text} AS text"),
        Key::IdAndText(id, text) => format!("{id} AS id, {text} AS text"),
        Key::Archive => "id, enrollment_id, kind".to_owned(),
        Key::Sentinel => "1 AS one".to_owned(),
    };
    let sql = format!(
        "SELECT {column} AS sealed, {keys} FROM {table} WHERE {column} IS NOT NULL AND substr({column}, 1, 4) <> $1 LIMIT $2"
    );
    let sql = AssertSqlSafe(sql);
    let id = key_id.to_vec();
    let value = |row: Row, of: String, sealed: Vec<u8>| Value { context: format!("{place}:{of}"), sealed, row };
    Ok(match key {
        Key::Id(_) => {
            let rows: Vec<(Vec<u8>, Uuid)> =
                run!(tx, c => sqlx::query_as(sql).bind(id).bind(limit).fetch_all(c).await)?;
            rows.into_iter().map(|(sealed, id)| value(Row::Id(id), id.to_string(), sealed)).collect()
        }
        Key::Text(_) => {
            let rows: Vec<(Vec<u8>, String)> =
                run!(tx, c => sqlx::query_as(sql).bind(id).bind(limit).fetch_all(c).await)?;
            rows.into_iter().map(|(sealed, text)| value(Row::Text(text.clone()), text, sealed)).collect()
        }
        Key::IdAndText(..) => {
            let rows: Vec<(Vec<u8>, Uuid, String)> =
                run!(tx, c => sqlx::query_as(sql).bind(id).bind(limit).fetch_all(c).await)?;
            let named = |(sealed, id, text): (Vec<u8>, Uuid, String)| {
                value(Row::IdAndText(id, text.clone()), format!("{id}:{text}"), sealed)
            };
            rows.into_iter().map(named).collect()
        }
        Key::Archive => {
            let rows: Vec<(Vec<u8>, Uuid, Uuid, String)> =
                run!(tx, c => sqlx::query_as(sql).bind(id).bind(limit).fetch_all(c).await)?;
            let from = |(sealed, id, enrollment, kind): (Vec<u8>, Uuid, Uuid, String)| Value {
                context: format!("enrollment.{kind}_sealed:{enrollment}"),
                sealed,
                row: Row::Id(id),
            };
            rows.into_iter().map(from).collect()
        }
        Key::Sentinel => {
            let rows: Vec<(Vec<u8>, i32)> = run!(tx, c => sqlx::query_as(sql).bind(id).bind(limit).fetch_all(c).await)?;
            rows.into_iter().map(|(sealed, _)| value(Row::Only, "1".to_owned(), sealed)).collect()
        }
    })
}

/// Writes a value anew.
pub async fn reseal(tx: &mut Tx, place: Place, value: &Value, sealed: &[u8]) -> Result<()> {
    let Place { table, column, key } = place;
    let update = |row: &str| AssertSqlSafe(format!("UPDATE {table} SET {column} = $1 WHERE {row}"));
    let rows = match (key, &value.row) {
        (Key::Id(id), Row::Id(of)) => {
            let sql = update(&format!("{id} = $2"));
            run!(tx, c => sqlx::query(sql).bind(sealed).bind(of).execute(c).await.map(|done| done.rows_affected()))?
        }
        (Key::Archive, Row::Id(of)) => {
            let sql = update("id = $2");
            run!(tx, c => sqlx::query(sql).bind(sealed).bind(of).execute(c).await.map(|done| done.rows_affected()))?
        }
        (Key::Text(text), Row::Text(of)) => {
            let sql = update(&format!("{text} = $2"));
            run!(tx, c => sqlx::query(sql).bind(sealed).bind(of).execute(c).await.map(|done| done.rows_affected()))?
        }
        (Key::IdAndText(id, text), Row::IdAndText(of, named)) => {
            let sql = update(&format!("{id} = $2 AND {text} = $3"));
            run!(tx, c => sqlx::query(sql).bind(sealed).bind(of).bind(named).execute(c).await
                .map(|done| done.rows_affected()))?
        }
        (Key::Sentinel, Row::Only) => {
            let sql = update("id = 1");
            run!(tx, c => sqlx::query(sql).bind(sealed).execute(c).await.map(|done| done.rows_affected()))?
        }
        _ => return Err(Error::Corrupt(place.table)),
    };
    if rows == 1 { Ok(()) } else { Err(Error::Corrupt(place.table)) }
}
