//! Rows of `event`: what happened, for people to read. Never with a secret.

use mdm_core::ids::{CommandUuid, EnrollmentId};
use mdm_core::time::Timestamp;
use uuid::Uuid;

use crate::{Dialect, Error, Result, Store, Tx};

/// Something that happened.
#[derive(Debug, Clone, Copy)]
pub struct NewEvent<'a> {
    /// When.
    pub at: Timestamp,
    /// What kind, in dotted words: `enrollment.enrolled`, `command.cancelled`, `token.created`.
    pub kind: &'a str,
    /// The enrollment it concerns.
    pub enrollment: Option<EnrollmentId>,
    /// The command it concerns.
    pub command: Option<&'a CommandUuid>,
    /// Who: `device`, `server`, or `token:<name>`.
    pub actor: &'a str,
    /// One sentence for people.
    pub summary: &'a str,
    /// Further facts for programs.
    pub data: &'a serde_json::Value,
}

/// A stored event.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its place in the log; rises with each event.
    pub id: i64,
    /// When (ms).
    pub at: i64,
    /// What kind.
    pub kind: String,
    /// The enrollment it concerns.
    pub enrollment_id: Option<Uuid>,
    /// The command it concerns.
    pub command_uuid: Option<String>,
    /// Who.
    pub actor: String,
    /// One sentence for people.
    pub summary: String,
    /// Further facts, as JSON text.
    pub data: String,
}

from_row!(Row { id, at, kind, enrollment_id, command_uuid, actor, summary, data });

/// Writes an event in a transaction of its own, where that of the request was given up or there is none. That it could not be
/// written is a line in the log: the refusal that it tells of stands anyway.
pub async fn record_alone(store: &Store, event: &NewEvent<'_>) {
    let written = crate::retry(|| async {
        let mut tx = store.begin().await?;
        record(&mut tx, event).await?;
        tx.commit().await
    });
    if let Err(error) = written.await {
        tracing::warn!(kind = event.kind, %error, "an event could not be written");
    }
}

/// Which events to read.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those of this enrollment.
    pub enrollment: Option<EnrollmentId>,
    /// Only those of this kind; with a trailing dot, of all kinds that begin so.
    pub kind: Option<String>,
}

/// Adds an event to the log.
pub async fn record(tx: &mut Tx, event: &NewEvent<'_>) -> Result<()> {
    let data = serde_json::to_string(event.data).map_err(|_| Error::Corrupt("event.data"))?;
    run!(tx, c => sqlx::query(
        "INSERT INTO event (at, kind, enrollment_id, command_uuid, actor, summary, data) VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(event.at.0)
        .bind(event.kind)
        .bind(event.enrollment.map(|id| id.0))
        .bind(event.command.map(CommandUuid::as_str))
        .bind(event.actor)
        .bind(event.summary)
        .bind(&data)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// [`record`] for many, in one statement and in their order.
pub async fn record_many(tx: &mut Tx, events: &[NewEvent<'_>]) -> Result<()> {
    const INTO: &str = "INSERT INTO event (at, kind, enrollment_id, command_uuid, actor, summary, data) ";
    const SQLITE: &str = "SELECT value ->> 'at', value ->> 'kind', unhex(value ->> 'enrollment'), value ->> 'command',
             value ->> 'actor', value ->> 'summary', value ->> 'data' FROM json_each($1) ORDER BY key";
    const POSTGRES: &str = "SELECT at, kind, enrollment, command, actor, summary, data
         FROM ROWS FROM (jsonb_to_recordset($1::text::jsonb) AS (at bigint, kind text, enrollment uuid, command text,
              actor text, summary text, data text)) WITH ORDINALITY AS x ORDER BY ordinality";
    let row = |e: &NewEvent<'_>| {
        serde_json::json!({
            "at": e.at.0,
            "kind": e.kind,
            "enrollment": e.enrollment.map(|id| id.0.simple().to_string()),
            "command": e.command,
            "actor": e.actor,
            "summary": e.summary,
            "data": e.data.to_string(),
        })
    };
    let rows = serde_json::Value::Array(events.iter().map(row).collect()).to_string();
    let select = match tx.dialect() {
        Dialect::Sqlite => SQLITE,
        Dialect::Postgres => POSTGRES,
    };
    let sql = sqlx::AssertSqlSafe(format!("{INTO}{select}"));
    run!(tx, c => sqlx::query(sql).bind(&rows).execute(c).await.map(drop))?;
    Ok(())
}

// `$2` is one kind, `$3` how a family of kinds begins ('' for any), so that one text serves all filters.
const NEWEST: &str = "SELECT id, at, kind, enrollment_id, command_uuid, actor, summary, data FROM event
     WHERE id < $1 AND (kind = $2 OR substr(kind, 1, length($3)) = $3) ORDER BY id DESC LIMIT $4";
const NEWEST_OF_ENROLLMENT: &str = "SELECT id, at, kind, enrollment_id, command_uuid, actor, summary, data FROM event
     WHERE id < $1 AND (kind = $2 OR substr(kind, 1, length($3)) = $3) AND enrollment_id = $5 ORDER BY id DESC LIMIT $4";
const SINCE: &str = "SELECT id, at, kind, enrollment_id, command_uuid, actor, summary, data FROM event
     WHERE id > $1 AND (kind = $2 OR substr(kind, 1, length($3)) = $3) ORDER BY id LIMIT $4";
const SINCE_OF_ENROLLMENT: &str = "SELECT id, at, kind, enrollment_id, command_uuid, actor, summary, data FROM event
     WHERE id > $1 AND (kind = $2 OR substr(kind, 1, length($3)) = $3) AND enrollment_id = $5 ORDER BY id LIMIT $4";

/// Events, newest first, that are older than the one with id `before`.
pub async fn newest(tx: &mut Tx, filter: &Filter, before: Option<i64>, limit: i64) -> Result<Vec<Row>> {
    read(tx, (NEWEST, NEWEST_OF_ENROLLMENT), filter, before.unwrap_or(i64::MAX), limit).await
}

/// Events, oldest first, that came after the one with id `after`.
pub async fn since(tx: &mut Tx, filter: &Filter, after: i64, limit: i64) -> Result<Vec<Row>> {
    read(tx, (SINCE, SINCE_OF_ENROLLMENT), filter, after, limit).await
}

async fn read(
    tx: &mut Tx,
    (all, of_enrollment): (&'static str, &'static str),
    filter: &Filter,
    bound: i64,
    limit: i64,
) -> Result<Vec<Row>> {
    let (kind, family) = kinds(filter.kind.as_deref());
    let rows = if let Some(enrollment) = filter.enrollment {
        run!(tx, c => sqlx::query_as(of_enrollment)
            .bind(bound).bind(kind).bind(family).bind(limit).bind(enrollment.0).fetch_all(c).await)?
    } else {
        run!(tx, c => sqlx::query_as(all).bind(bound).bind(kind).bind(family).bind(limit).fetch_all(c).await)?
    };
    Ok(rows)
}

/// One kind, and how a family of kinds begins; `!` begins no kind.
fn kinds(filter: Option<&str>) -> (&str, &str) {
    match filter {
        None => ("", ""),
        Some(family) if family.ends_with('.') => ("", family),
        Some(kind) => (kind, "!"),
    }
}
