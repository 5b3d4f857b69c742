//! The pages of an enrollment link, and its profile.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mdm_core::enrollment::Door;
use mdm_core::ids::{IssuanceId, Label, LinkId, Udid};
use mdm_core::time::Timestamp;
use serde_json::json;
use store::Tx;
use store::events::NewEvent;
use store::issuance::Flow;
use store::links::Row;

use super::{PROFILE_TYPE, download, failed};
use crate::link::{self, Standing};
use crate::offer::{Visitor, offer, refused};
use crate::{Error, Shared, page};

pub(super) async fn show_link(State(shared): State<Shared>, Path(code): Path<String>) -> Response {
    match look(&shared, &code).await {
        Ok(Some((row, Standing::Ready | Standing::Again))) => {
            let url = link::url(&shared.settings.public_url, &code);
            page::link(&shared.settings, &row, &format!("/enroll/{code}/profile"), &url).into_response()
        }
        Ok(found) => gone(&shared, found.map(|(_, standing)| standing)),
        Err(e) => failed(&shared, &e),
    }
}

async fn look(shared: &Shared, code: &str) -> Result<Option<(Row, Standing)>, Error> {
    let mut tx = shared.store.read().await?;
    link::look(&mut tx, code, shared.clock.now()).await
}

pub(super) async fn head_profile(State(shared): State<Shared>, Path(code): Path<String>) -> Response {
    match look(&shared, &code).await {
        Ok(Some((_, Standing::Ready | Standing::Again))) => [(header::CONTENT_TYPE, PROFILE_TYPE)].into_response(),
        Ok(found) => gone(&shared, found.map(|(_, standing)| standing)),
        Err(e) => failed(&shared, &e),
    }
}

pub(super) async fn fetch_profile(
    State(shared): State<Shared>,
    Path(code): Path<String>,
    headers: HeaderMap,
) -> Response {
    if is_preview(&headers) {
        return (StatusCode::FORBIDDEN, page::preview(&shared.settings)).into_response();
    }
    match store::retry(|| issue_profile(&shared, &code)).await {
        Ok(Fetched::Profile(bytes)) => download(bytes, "enroll.mobileconfig"),
        Ok(Fetched::Gone(standing)) => gone(&shared, standing),
        Err(e) if e.refusal().is_some() => {
            refused(&shared, Door::Link, None, &e).await;
            (StatusCode::FORBIDDEN, page::closed(&shared.settings)).into_response()
        }
        Err(e) => failed(&shared, &e),
    }
}

/// A browser or a mail scanner that loads ahead says so; it must not use the link up.
fn is_preview(headers: &HeaderMap) -> bool {
    let names = ["sec-purpose", "purpose", "x-purpose", "x-moz"];
    names.iter().filter_map(|name| headers.get(*name)).any(|value| {
        let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
        ["prefetch", "preview", "prerender"].iter().any(|word| value.contains(word))
    })
}

/// What became of a wish for a profile.
enum Fetched {
    Profile(Vec<u8>),
    /// There is no such link (`None`), or it is over.
    Gone(Option<Standing>),
}

/// Takes one use of the link and builds its profile, in one transaction.
async fn issue_profile(shared: &Shared, code: &str) -> Result<Fetched, Error> {
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let (row, standing) = match link::take(&mut tx, code, now).await? {
        Some((row, standing @ (Standing::Ready | Standing::Again))) => (row, standing),
        found => return Ok(Fetched::Gone(found.map(|(_, standing)| standing))),
    };
    // What was checked when the link was made is checked again by its type when it is read.
    let corrupt = || store::Error::Corrupt("enrollment_link");
    let udid = row.expected_udid.as_deref().map(str::parse::<Udid>).transpose().map_err(|_| corrupt())?;
    let label = row.label.as_deref().map(str::parse::<Label>).transpose().map_err(|_| corrupt())?;
    let visitor = Visitor {
        expected_serial: row.expected_serial.as_deref(),
        expected_udid: udid.as_ref(),
        managed_apple_account: row.managed_apple_account.as_deref(),
        link: Some(LinkId(row.id)),
        label: label.as_ref(),
        ..Visitor::new(Flow::Link, link::enrollment_kind(&row))
    };
    let offer = offer(&mut tx, shared, &visitor, now).await?;
    record(&mut tx, &row, standing, offer.issuance, now).await?;
    tx.commit().await?;
    tracing::info!(link.id = %LinkId(row.id), issuance.id = %offer.issuance, "an enrollment profile was fetched");
    Ok(Fetched::Profile(offer.profile))
}

async fn record(tx: &mut Tx, row: &Row, standing: Standing, id: IssuanceId, now: Timestamp) -> Result<(), Error> {
    let again = standing == Standing::Again;
    let event = NewEvent {
        at: now,
        kind: "link.fetched",
        enrollment: None,
        command: None,
        actor: "device",
        summary: if again {
            "The profile of an enrollment link was fetched once more; the earlier challenge is void."
        } else {
            "The profile of an enrollment link was fetched."
        },
        data: &json!({ "link": LinkId(row.id), "issuance": id, "again": again }),
    };
    Ok(store::events::record(tx, &event).await?)
}

fn gone(shared: &Shared, standing: Option<Standing>) -> Response {
    let status = if standing.is_some() { StatusCode::GONE } else { StatusCode::NOT_FOUND };
    (status, page::gone(&shared.settings, standing)).into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn what_loads_ahead_is_recognized() {
        let with = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            headers
        };
        assert!(is_preview(&with("sec-purpose", "prefetch;prerender")));
        assert!(is_preview(&with("purpose", "Prefetch")));
        assert!(is_preview(&with("x-purpose", "preview")));
        assert!(!is_preview(&with("user-agent", "Profile Preview")));
        assert!(!is_preview(&HeaderMap::new()));
    }
}
