//! A set of enrollments as one bound value, for statements over many of them.

use mdm_core::ids::EnrollmentId;
use uuid::Uuid;

/// A set of enrollments, as the JSON text that statements over it take as `$1`.
#[derive(Debug)]
pub struct IdSet(String);

impl IdSet {
    /// The set of these.
    pub fn new(ids: &[EnrollmentId]) -> Self {
        Self::of(ids.iter().map(|id| id.0))
    }

    /// The set of these keys of another table.
    pub(crate) fn of(ids: impl Iterator<Item = Uuid>) -> Self {
        let mut json = String::with_capacity(2 + ids.size_hint().0 * 35);
        json.push('[');
        for (n, id) in ids.enumerate() {
            if n > 0 {
                json.push(',');
            }
            json.push('"');
            json.push_str(id.simple().encode_lower(&mut Uuid::encode_buffer()));
            json.push('"');
        }
        json.push(']');
        Self(json)
    }

    pub(crate) fn as_json(&self) -> &str {
        &self.0
    }
}

/// A statement over an [`IdSet`] bound as `$1`: `over_ids!(tx, "… IN (", ") …")`.
macro_rules! over_ids {
    ($tx:expr, $before:expr, $after_sqlite:expr, $after_postgres:expr) => {
        match $tx.dialect() {
            $crate::Dialect::Sqlite => concat!($before, "SELECT unhex(value) FROM json_each($1)", $after_sqlite),
            $crate::Dialect::Postgres => {
                concat!($before, "SELECT value::uuid FROM jsonb_array_elements_text($1::text::jsonb)", $after_postgres)
            }
        }
    };
    ($tx:expr, $before:expr, $after:expr) => {
        over_ids!($tx, $before, $after, $after)
    };
}
pub(crate) use over_ids;
