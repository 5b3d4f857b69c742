//! Pages of a list: `limit`, and a cursor that callers pass on without looking inside.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::problem::Problem;

/// How many entries a page has where the caller does not say.
pub(crate) const DEFAULT_LIMIT: i64 = 100;
/// The most entries that a page has.
pub(crate) const MAX_LIMIT: i64 = 500;

/// Where in a list that has no filters.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// How many, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    pub(crate) limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub(crate) cursor: Option<String>,
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// The entries.
    pub(crate) items: Vec<T>,
    /// Pass it as `cursor` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
}

/// The number of entries asked for, checked: 1 to 500, or 100 where nothing is asked.
pub(crate) fn limit(asked: Option<i64>) -> Result<i64, Problem> {
    match asked {
        None => Ok(DEFAULT_LIMIT),
        Some(n) if (1..=MAX_LIMIT).contains(&n) => Ok(n),
        Some(_) => Err(Problem::field("limit", format!("must be between 1 and {MAX_LIMIT}"))),
    }
}

/// Writes a cursor: which list it belongs to, and the key of the last entry shown.
pub(crate) fn cursor(list: &str, key: impl std::fmt::Display) -> String {
    URL_SAFE_NO_PAD.encode(format!("{list}:{key}"))
}

/// Reads the cursor of this list; `None` for the first page.
pub(crate) fn after<K: std::str::FromStr>(list: &str, text: Option<&str>) -> Result<Option<K>, Problem> {
    let Some(text) = text else { return Ok(None) };
    URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|plain| plain.strip_prefix(list)?.strip_prefix(':')?.parse().ok())
        .map(Some)
        .ok_or_else(|| Problem::field("cursor", "must be a next_cursor that this list gave"))
}

/// Makes a page of `rows`, which were fetched with one more than `limit`, so that the last page is known.
pub(crate) fn page<R, T, K: std::fmt::Display>(
    list: &str,
    limit: i64,
    mut rows: Vec<R>,
    key: impl Fn(&R) -> K,
    show: impl FnMut(R) -> T,
) -> Page<T> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(|last| cursor(list, key(last)));
    Page { items: rows.into_iter().map(show).collect(), next_cursor }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_goes_round_and_fits_only_its_own_list() {
        let text = cursor("events", 42);
        assert_eq!(after::<i64>("events", Some(&text)).unwrap(), Some(42));
        assert!(after::<i64>("tokens", Some(&text)).is_err());
        assert!(after::<i64>("events", Some("%%%")).is_err());
        assert_eq!(after::<i64>("events", None).unwrap(), None);
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        let full = page("n", 2, vec![1, 2, 3], |n| *n, |n| n);
        assert_eq!((full.items.len(), full.next_cursor.is_some()), (2, true));
        let last = page("n", 2, vec![1, 2], |n| *n, |n| n);
        assert_eq!((last.items.len(), last.next_cursor.is_some()), (2, false));
    }

    #[test]
    fn limits_are_between_one_and_five_hundred() {
        assert_eq!(limit(None).unwrap(), 100);
        assert!(limit(Some(0)).is_err() && limit(Some(501)).is_err() && limit(Some(500)).is_ok());
    }
}
