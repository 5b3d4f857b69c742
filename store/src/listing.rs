//! The lists that operators read: enrollments and commands by any mix of filters, in pages.
//!
//! The statements are put together from fixed pieces here; what callers give is always bound.

use mdm_core::enrollment::{Channel, EnrollmentKind};
use mdm_core::ids::{CommandUuid, EnrollmentId, IssuanceId, Label};
use mdm_core::time::Timestamp;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::enrollments::{Enrollment, Row, columns};
use crate::issuance::{self, Flow, Issuance, Source, State, select_issuance};
use crate::{Result, Tx};

/// A value that is bound.
enum Value {
    Text(String),
    Int(i64),
    Id(Uuid),
}

/// A statement under construction.
struct Sql {
    text: String,
    values: Vec<Value>,
}

impl Sql {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), values: Vec::new() }
    }

    /// Adds a piece in which `{}` stands for the value.
    fn push(&mut self, piece: &str, value: Value) {
        self.values.push(value);
        self.text.push_str(&piece.replace("{}", &format!("${}", self.values.len())));
    }
}

/// Binds every value and runs the query on either driver.
macro_rules! fetch {
    ($tx:expr, $sql:expr) => {{
        let Sql { text, values } = $sql;
        run!($tx, c => {
            let mut query = sqlx::query_as(AssertSqlSafe(text));
            for value in values {
                query = match value {
                    Value::Text(v) => query.bind(v),
                    Value::Int(v) => query.bind(v),
                    Value::Id(v) => query.bind(v),
                };
            }
            query.fetch_all(c).await
        })
    }};
}

/// Which enrollments to list. Everything that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct Enrollments {
    /// Only in this state: `authenticated`, `enrolled` or `unenrolled`.
    pub state: Option<String>,
    /// Only of this kind.
    pub kind: Option<EnrollmentKind>,
    /// Only of this channel.
    pub channel: Option<Channel>,
    /// Only of the device with this serial number, user channels too.
    pub serial_number: Option<String>,
    /// Only of the device with this `UDID` or `EnrollmentID`, user channels too.
    pub udid: Option<String>,
    /// Only those with this label.
    pub label: Option<Label>,
    /// Only those whose `ProductName` begins so.
    pub product_name: Option<String>,
    /// Only those not heard of since; never heard of counts from the making of the row.
    pub last_seen_before: Option<Timestamp>,
    /// Only those heard of since.
    pub last_seen_after: Option<Timestamp>,
}

/// Enrollments, newest first, that are older than `before`.
pub async fn enrollments(
    tx: &mut Tx,
    filter: &Enrollments,
    before: Option<EnrollmentId>,
    limit: i64,
) -> Result<Vec<Enrollment>> {
    const DEVICE: &str = " AND (e.udid = {} OR e.apple_enrollment_id = {} OR e.parent_id IN \
                          (SELECT d.id FROM enrollment d WHERE d.udid = {} OR d.apple_enrollment_id = {}))";
    const SERIAL: &str = " AND (e.serial_number = {} OR e.parent_id IN \
                          (SELECT d.id FROM enrollment d WHERE d.serial_number = {}))";
    let mut sql = Sql::new(concat!("SELECT ", columns!(), " FROM enrollment e"));
    if let Some(label) = &filter.label {
        let label = Value::Text(label.as_str().to_owned());
        sql.push(" JOIN enrollment_label l ON l.enrollment_id = e.id AND l.label = {}", label);
    }
    sql.push(" WHERE e.id < {}", Value::Id(before.map_or(Uuid::max(), |id| id.0)));
    let texts = [
        (" AND e.state = {}", filter.state.clone()),
        (" AND e.kind = {}", filter.kind.map(|kind| kind.as_str().to_owned())),
        (" AND e.channel = {}", filter.channel.map(|channel| channel.as_str().to_owned())),
        (SERIAL, filter.serial_number.clone()),
        (DEVICE, filter.udid.clone()),
        (" AND substr(e.product_name, 1, length({})) = {}", filter.product_name.clone()),
    ];
    for (piece, text) in texts {
        if let Some(text) = text {
            sql.push(piece, Value::Text(text));
        }
    }
    if let Some(at) = filter.last_seen_before {
        sql.push(" AND COALESCE(e.last_seen_at, e.created_at) < {}", Value::Int(at.0));
    }
    if let Some(at) = filter.last_seen_after {
        sql.push(" AND e.last_seen_at > {}", Value::Int(at.0));
    }
    sql.push(" ORDER BY e.id DESC LIMIT {}", Value::Int(limit));
    let rows: Vec<Row> = fetch!(tx, sql)?;
    rows.into_iter().map(Enrollment::try_from).collect()
}

/// Which commands to list. Everything that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct Commands {
    /// Only those with this enrollment as a target.
    pub enrollment: Option<EnrollmentId>,
    /// Only those with a target in this state.
    pub state: Option<String>,
    /// Only of this `RequestType`.
    pub request_type: Option<String>,
}

/// A command in a list: without its body.
#[derive(Debug, Clone)]
pub struct Command {
    /// `CommandUUID`.
    pub uuid: String,
    /// `RequestType`.
    pub request_type: String,
    /// 0 urgent, 1 normal.
    pub lane: i64,
    /// Queued commands with the same key on the same enrollment replace one another.
    pub coalescing_key: Option<String>,
    /// When targets that are still outstanding expire (ms).
    pub expires_at: Option<i64>,
    /// Who enqueued it.
    pub created_by: String,
    /// When (ms).
    pub created_at: i64,
}

from_row!(Command { uuid, request_type, lane, coalescing_key, expires_at, created_by, created_at });

/// Commands, newest first, that come after the one made at `before.0` with the UUID `before.1`.
pub async fn commands(
    tx: &mut Tx,
    filter: &Commands,
    before: Option<(Timestamp, CommandUuid)>,
    limit: i64,
) -> Result<Vec<Command>> {
    let mut sql = Sql::new(
        "SELECT c.uuid, c.request_type, c.lane, c.coalescing_key, c.expires_at, c.created_by, c.created_at FROM command c",
    );
    let (at, uuid) = before.map_or((i64::MAX, String::new()), |(at, uuid)| (at.0, uuid.into_string()));
    sql.push(" WHERE (c.created_at < {}", Value::Int(at));
    sql.push(" OR c.created_at = {}", Value::Int(at));
    sql.push(" AND c.uuid > {})", Value::Text(uuid));
    if let Some(request_type) = &filter.request_type {
        sql.push(" AND c.request_type = {}", Value::Text(request_type.clone()));
    }
    if filter.enrollment.is_some() || filter.state.is_some() {
        sql.text.push_str(" AND EXISTS (SELECT 1 FROM command_target t WHERE t.command_uuid = c.uuid");
        if let Some(id) = filter.enrollment {
            sql.push(" AND t.enrollment_id = {}", Value::Id(id.0));
        }
        if let Some(state) = &filter.state {
            sql.push(" AND t.state = {}", Value::Text(state.clone()));
        }
        sql.text.push(')');
    }
    sql.push(" ORDER BY c.created_at DESC, c.uuid LIMIT {}", Value::Int(limit));
    Ok(fetch!(tx, sql)?)
}

/// How many targets of a command are in one state.
#[derive(Debug, Clone)]
pub struct Count {
    /// `CommandUUID`.
    pub command_uuid: String,
    /// The state.
    pub state: String,
    /// How many.
    pub targets: i64,
}

from_row!(Count { command_uuid, state, targets });

/// Counts the targets of these commands by state; of one enrollment only, where one is named.
pub async fn counts(tx: &mut Tx, uuids: &[&str], enrollment: Option<EnrollmentId>) -> Result<Vec<Count>> {
    let mut sql =
        Sql::new("SELECT command_uuid, state, count(*) AS targets FROM command_target WHERE command_uuid IN (''");
    for uuid in uuids {
        sql.push(", {}", Value::Text((*uuid).to_owned()));
    }
    sql.text.push(')');
    if let Some(id) = enrollment {
        sql.push(" AND enrollment_id = {}", Value::Id(id.0));
    }
    sql.text.push_str(" GROUP BY command_uuid, state");
    Ok(fetch!(tx, sql)?)
}

/// A command that waits on an enrollment's queue.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Order within the enrollment.
    pub seq: i64,
    /// `CommandUUID`.
    pub command_uuid: String,
    /// `RequestType`.
    pub request_type: String,
    /// `queued`, `sent` or `not_now`.
    pub state: String,
}

from_row!(Waiting { seq, command_uuid, request_type, state });

/// The commands that wait on an enrollment's queue, in order of commit, after the one with the sequence number `after`.
pub async fn waiting(tx: &mut Tx, id: EnrollmentId, after: Option<i64>, limit: i64) -> Result<Vec<Waiting>> {
    const WAITING: &str = "SELECT t.seq, t.command_uuid, c.request_type, t.state FROM command_target t \
        JOIN command c ON c.uuid = t.command_uuid WHERE t.enrollment_id = $1 AND t.seq > $2 \
        AND t.state IN ('queued', 'sent', 'not_now') ORDER BY t.seq LIMIT $3";
    let after = after.unwrap_or(0);
    Ok(run!(tx, c => sqlx::query_as(WAITING).bind(id.0).bind(after).bind(limit).fetch_all(c).await)?)
}

/// Which issuance records to list. Everything that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct Issuances {
    /// Only those of this enrollment.
    pub enrollment: Option<EnrollmentId>,
    /// Only those in this state.
    pub state: Option<State>,
    /// Only those that came about so.
    pub flow: Option<Flow>,
    /// Only those of this issuer.
    pub source: Option<Source>,
}

/// Issuance records, newest first, that are older than `before`.
pub async fn issuance(
    tx: &mut Tx,
    filter: &Issuances,
    before: Option<IssuanceId>,
    limit: i64,
) -> Result<Vec<Issuance>> {
    let mut sql = Sql::new(select_issuance!(""));
    sql.push(" WHERE id < {}", Value::Id(before.map_or(Uuid::max(), |id| id.0)));
    if let Some(id) = filter.enrollment {
        sql.push(" AND enrollment_id = {}", Value::Id(id.0));
    }
    let words = [
        (" AND state = {}", filter.state.map(State::as_str)),
        (" AND flow = {}", filter.flow.map(Flow::as_str)),
        (" AND source = {}", filter.source.map(Source::as_str)),
    ];
    for (piece, word) in words {
        if let Some(word) = word {
            sql.push(piece, Value::Text(word.to_owned()));
        }
    }
    sql.push(" ORDER BY id DESC LIMIT {}", Value::Int(limit));
    let rows: Vec<issuance::Row> = fetch!(tx, sql)?;
    rows.into_iter().map(Issuance::try_from).collect()
}
