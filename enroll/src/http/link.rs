//! The pages of an enrollment link, and its profile.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mdm_core::enrollment::Door;
use mdm_core::ids::{IssuanceId, Label, LinkId, Udid};
use mdm_core::time::Timestamp;
use serde_json::json;
use signin::{Begin, Person, Purpose};
use store::Tx;
use store::events::NewEvent;
use store::issuance::Flow;
use store::links::Row;

use super::{PROFILE_TYPE, download, failed, see_other};
use crate::link::{self, Standing};
use crate::offer::{Visitor, offer, refused};
use crate::{Error, Shared, door, page};

pub(super) async fn show_link(State(shared): State<Shared>, Path(code): Path<String>) -> Response {
    match look(&shared, &code).await {
        Ok((_, settings)) if !settings.enabled => closed(&shared),
        Ok((Some((row, Standing::Ready | Standing::Again)), settings)) => {
            let url = link::url(&shared.settings.public_url, &code);
            let sign_in = settings.sign_in || row.sign_in;
            page::link(&shared.settings, &row, &format!("/enroll/{code}"), &url, sign_in).into_response()
        }
        Ok((found, _)) => gone(&shared, found.map(|(_, standing)| standing)),
        Err(e) => failed(&shared, &e),
    }
}

fn closed(shared: &Shared) -> Response {
    (StatusCode::FORBIDDEN, page::closed(&shared.settings)).into_response()
}

type Found = (Option<(Row, Standing)>, door::Settings);

async fn look(shared: &Shared, code: &str) -> Result<Found, Error> {
    let mut tx = shared.store.read().await?;
    let found = link::look(&mut tx, code, shared.clock.now()).await?;
    Ok((found, door::load(&mut tx, Door::Link).await?))
}

pub(super) async fn head_profile(State(shared): State<Shared>, Path(code): Path<String>) -> Response {
    match look(&shared, &code).await {
        Ok((_, settings)) if !settings.enabled => closed(&shared),
        Ok((Some((_, Standing::Ready | Standing::Again)), _)) => [(header::CONTENT_TYPE, PROFILE_TYPE)].into_response(),
        Ok((found, _)) => gone(&shared, found.map(|(_, standing)| standing)),
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
    let code = link::code_hash(&code);
    answer(&shared, store::retry(|| issue_profile(&shared, Key::Code(code))).await).await
}

async fn answer(shared: &Shared, fetched: Result<Fetched, Error>) -> Response {
    match fetched {
        Ok(Fetched::Profile(bytes)) => download(bytes, "enroll.mobileconfig"),
        Ok(Fetched::Gone(standing)) => gone(shared, standing),
        Err(Error::NotSignedIn) => (StatusCode::FORBIDDEN, page::not_signed_in(&shared.settings)).into_response(),
        Err(e) if e.refusal().is_some() => {
            refused(shared, Door::Link, None, &e).await;
            closed(shared)
        }
        Err(e) => failed(shared, &e),
    }
}

/// `GET /enroll/{code}/sign-in`: leads to the sign-in; uses nothing up.
pub(super) async fn sign_in(State(shared): State<Shared>, Path(code): Path<String>, headers: HeaderMap) -> Response {
    if is_preview(&headers) {
        return (StatusCode::FORBIDDEN, page::preview(&shared.settings)).into_response();
    }
    let row = match look(&shared, &code).await {
        Ok((_, settings)) if !settings.enabled => return closed(&shared),
        Ok((Some((row, Standing::Ready | Standing::Again)), _)) => row,
        Ok((found, _)) => return gone(&shared, found.map(|(_, standing)| standing)),
        Err(e) => return failed(&shared, &e),
    };
    let begun = store::retry(|| async {
        let begin = Begin {
            purpose: Purpose::Link,
            subject_of: json!({ "link": row.id }),
            login_hint: row.managed_apple_account.as_deref(),
        };
        let mut tx = shared.store.begin().await?;
        let begun = signin::begin(&mut tx, &shared.sign_in, &begin, shared.clock.now()).await?;
        tx.commit().await?;
        Ok::<_, Error>(begun)
    });
    match begun.await {
        Ok(begun) => see_other(&begun.location, &begun.cookie),
        Err(e) => failed(&shared, &e),
    }
}

/// `GET /enroll/signed-in`: the browser comes back and is given the profile.
pub(super) async fn signed_in(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    if is_preview(&headers) {
        return (StatusCode::FORBIDDEN, page::preview(&shared.settings)).into_response();
    }
    answer(&shared, store::retry(|| issue_profile(&shared, Key::SignedIn(&headers))).await).await
}

/// A browser or a mail scanner that loads ahead says so; it must not use the link up.
fn is_preview(headers: &HeaderMap) -> bool {
    let names = ["sec-purpose", "purpose", "x-purpose", "x-moz"];
    names.iter().filter_map(|name| headers.get(*name)).any(|value| {
        let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
        ["prefetch", "preview", "prerender"].iter().any(|word| value.contains(word))
    })
}

/// What somebody has who wants a profile.
#[derive(Clone, Copy)]
enum Key<'a> {
    /// The hash of a link's code.
    Code([u8; 32]),
    /// The cookie of a sign-in for a link.
    SignedIn(&'a HeaderMap),
}

/// What became of a wish for a profile.
enum Fetched {
    Profile(Vec<u8>),
    /// There is no such link (`None`), or it is over.
    Gone(Option<Standing>),
}

/// Takes one use of the link and builds its profile, in one transaction; where it fails, neither the link nor the sign-in is
/// used up.
async fn issue_profile(shared: &Shared, key: Key<'_>) -> Result<Fetched, Error> {
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let (row, person) = match key {
        Key::Code(code) => (store::links::find(&mut tx, code).await?, None),
        Key::SignedIn(headers) => {
            let person = signin::take(&mut tx, &shared.sign_in, headers, Purpose::Link, now).await?;
            let person = person.ok_or(Error::NotSignedIn)?;
            let id = person.subject_of.get("link").and_then(|id| id.as_str()?.parse().ok());
            let id = LinkId(id.ok_or(store::Error::Corrupt("sign_in.subject_of"))?);
            (store::links::get(&mut tx, id).await?, Some(person))
        }
    };
    let Some(row) = row else { return Ok(Fetched::Gone(None)) };
    if person.is_none() && (row.sign_in || door::load(&mut tx, Door::Link).await?.sign_in) {
        return Err(Error::NotSignedIn);
    }
    let (row, standing) = match link::take(&mut tx, LinkId(row.id), now).await? {
        Some((row, standing @ (Standing::Ready | Standing::Again))) => (row, standing),
        found => return Ok(Fetched::Gone(found.map(|(_, standing)| standing))),
    };
    // What was checked when the link was made is checked again by its type when it is read.
    let corrupt = || store::Error::Corrupt("enrollment_link");
    let udid = row.expected_udid.as_deref().map(str::parse::<Udid>).transpose().map_err(|_| corrupt())?;
    let label = row.label.as_deref().map(str::parse::<Label>).transpose().map_err(|_| corrupt())?;
    let label = label.or_else(|| person.as_ref().and_then(|person| person.label.clone()));
    let visitor = Visitor {
        expected_serial: row.expected_serial.as_deref(),
        expected_udid: udid.as_ref(),
        managed_apple_account: row.managed_apple_account.as_deref(),
        link: Some(LinkId(row.id)),
        label: label.as_ref(),
        ..Visitor::new(Flow::Link, link::enrollment_kind(&row))
    };
    let offer = offer(&mut tx, shared, &visitor, now).await?;
    record(&mut tx, &row, standing, offer.issuance, person.as_ref(), now).await?;
    tx.commit().await?;
    tracing::info!(link.id = %LinkId(row.id), issuance.id = %offer.issuance, "an enrollment profile was fetched");
    Ok(Fetched::Profile(offer.profile))
}

async fn record(
    tx: &mut Tx,
    row: &Row,
    standing: Standing,
    id: IssuanceId,
    person: Option<&Person>,
    now: Timestamp,
) -> Result<(), Error> {
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
        data: &json!({
            "link": LinkId(row.id),
            "issuance": id,
            "again": again,
            "signed_in": person.map(|person| &person.account),
        }),
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
