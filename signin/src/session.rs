//! One sign-in from its first page to its end: the row, the cookie that it belongs to, the state that it waits for.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use mdm_core::ids::Label;
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use store::sign_ins::Row;
use store::{Store, Tx};
use uuid::Uuid;

use crate::{Begin, Begun, Context, Error, Person, Purpose, Refusal};

/// The session cookie. Browsers take a name that begins so only over TLS, for this host alone and for all paths, so no
/// other host can set it.
const COOKIE: &str = "__Host-assay-sign-in";

/// How often a way to sign in may be tried in one sign-in; after that a new one must be begun.
const MOST_TRIES: i64 = 10;

/// For how long after its end a sign-in's row is kept, for whoever looks into what happened.
const KEPT: Duration = Duration::from_hours(24);

/// How many rows are deleted in one transaction.
const BATCH: i64 = 1_000;

/// What only the server knows of a sign-in.
#[derive(Serialize, Deserialize)]
pub(crate) struct Secrets {
    /// `nonce`, which comes back in the ID token.
    pub(crate) nonce: String,
    /// The PKCE verifier (RFC 7636).
    pub(crate) verifier: String,
    /// The account that the person named on the device.
    pub(crate) login_hint: Option<String>,
}

impl Secrets {
    fn new(login_hint: Option<String>, random: &Random) -> Self {
        Self { nonce: random.token(), verifier: random.token(), login_hint }
    }

    fn seal(&self, ctx: &Context, id: Uuid) -> Vec<u8> {
        let plain = serde_json::to_vec(self).expect("three texts are JSON");
        ctx.sealer.seal(&place(id), &plain, &ctx.random)
    }

    /// Opens what the row holds.
    pub(crate) fn open(ctx: &Context, row: &Row) -> Result<Self, Error> {
        let plain = ctx.sealer.open(&place(row.id), &row.secrets_sealed)?;
        serde_json::from_slice(plain.expose()).map_err(|_| corrupt())
    }
}

fn place(id: Uuid) -> String {
    format!("sign_in.secrets_sealed:{id}")
}

pub(crate) fn corrupt() -> Error {
    store::Error::Corrupt("sign_in").into()
}

/// Begins a sign-in. The caller commits, then answers with a redirect to [`Begun::location`] and sets [`Begun::cookie`].
/// That answer should be to a GET: out of a form, browsers do not follow redirects to another host than the page allows.
pub async fn begin(tx: &mut Tx, ctx: &Context, begin: &Begin<'_>, now: Timestamp) -> Result<Begun, Error> {
    if !ctx.is_configured_for(begin.purpose) {
        return Err(Error::NotConfigured);
    }
    let id = ctx.random.uuid_v7(now);
    let browser = ctx.random.token();
    let row = Row {
        id,
        purpose: begin.purpose.as_str().to_owned(),
        subject_of: begin.subject_of.to_string(),
        // Nobody knows this one: the state is made when the browser goes to the provider.
        state_sha256: ctx.random.bytes::<32>().to_vec(),
        browser_sha256: sha256(&browser).to_vec(),
        secrets_sealed: Secrets::new(begin.login_hint.map(str::to_owned), &ctx.random).seal(ctx, id),
        attempts: 0,
        expires_at: now.plus(ctx.settings.life).0,
        signed_in_at: None,
        person: None,
        label: None,
        invitation_id: None,
        finished_at: None,
        created_at: now.0,
    };
    store::sign_ins::insert(tx, &row).await?;
    let way = if ctx.takes_codes(begin.purpose) { "code" } else { "provider" };
    let location = ctx.settings.page(&format!("sign-in/{way}/{id}")).into();
    let seconds = ctx.settings.life.as_secs();
    let value = format!("{COOKIE}={}.{browser}", id.simple());
    Ok(Begun { location, cookie: format!("{value}; Path=/; Max-Age={seconds}; HttpOnly; Secure; SameSite=Lax") })
}

/// `Set-Cookie` that makes the browser forget its sign-in.
pub fn forget() -> String {
    format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax")
}

/// Takes the person who signed in with this browser for this purpose, and ends the sign-in: it works once. `None` where
/// nobody did, it was for another purpose, it is over, or it was taken before.
pub async fn take(
    tx: &mut Tx,
    _ctx: &Context,
    headers: &HeaderMap,
    purpose: Purpose,
    now: Timestamp,
) -> Result<Option<Person>, Error> {
    let Some(row) = own(tx, headers).await? else { return Ok(None) };
    if row.purpose != purpose.as_str() || !store::sign_ins::finish(tx, row.id, now).await? {
        return Ok(None);
    }
    let label = row.label.as_deref().map(str::parse::<Label>).transpose().map_err(|_| corrupt())?;
    let subject_of: Value = serde_json::from_str(&row.subject_of).map_err(|_| corrupt())?;
    let account = row.person.ok_or_else(corrupt)?;
    Ok(Some(Person { sign_in: row.id, account, label, subject_of }))
}

/// The sign-in that this browser's cookie belongs to, however it stands.
pub(crate) async fn own(tx: &mut Tx, headers: &HeaderMap) -> Result<Option<Row>, Error> {
    let Some((id, browser)) = cookie(headers) else { return Ok(None) };
    let row = store::sign_ins::get(tx, id).await?;
    Ok(row.filter(|row| row.browser_sha256 == sha256(browser)))
}

/// The same, where somebody can still sign in to it.
pub(crate) async fn open(tx: &mut Tx, id: Uuid, headers: &HeaderMap, now: Timestamp) -> Result<Row, Error> {
    let row = own(tx, headers).await?.filter(|row| row.id == id).ok_or(Refusal::OtherBrowser)?;
    if row.signed_in_at.is_some() || row.finished_at.is_some() || row.expires_at <= now.0 {
        return Err(Refusal::Over.into());
    }
    Ok(row)
}

/// Counts one try.
pub(crate) async fn attempt(tx: &mut Tx, row: &Row, now: Timestamp) -> Result<(), Error> {
    let counted = store::sign_ins::attempt(tx, row.id, MOST_TRIES, now).await?;
    if counted { Ok(()) } else { Err(Refusal::TooMany.into()) }
}

/// Makes a state and secrets for one visit to the provider; what was made for an earlier visit is worth nothing then.
pub(crate) async fn visit(tx: &mut Tx, ctx: &Context, row: &Row) -> Result<(String, Secrets), Error> {
    let secrets = Secrets::new(Secrets::open(ctx, row)?.login_hint, &ctx.random);
    let state = ctx.random.token();
    let sealed = secrets.seal(ctx, row.id);
    let replaced = store::sign_ins::replace_state(tx, row.id, &row.state_sha256, sha256(&state), &sealed).await?;
    if replaced { Ok((state, secrets)) } else { Err(Refusal::UnknownState.into()) }
}

/// The sign-in that waits for this state in this browser. The state is used up by it: a replay finds nothing.
pub(crate) async fn returned(
    tx: &mut Tx,
    ctx: &Context,
    state: &str,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<(Row, Secrets), Error> {
    let row = store::sign_ins::find(tx, sha256(state)).await?.ok_or(Refusal::UnknownState)?;
    let row = open(tx, row.id, headers, now).await?;
    let secrets = Secrets::open(ctx, &row)?;
    let empty = Secrets::new(secrets.login_hint.clone(), &ctx.random).seal(ctx, row.id);
    let nobody_knows = ctx.random.bytes();
    if !store::sign_ins::replace_state(tx, row.id, &row.state_sha256, nobody_knows, &empty).await? {
        return Err(Refusal::UnknownState.into());
    }
    Ok((row, secrets))
}

/// Deletes sign-ins that ended a day ago; says how many.
pub async fn clean_up(store: &Store, now: Timestamp) -> Result<u64, Error> {
    let mut deleted = 0;
    loop {
        let once = || async {
            let mut tx = store.begin().await?;
            let rows = store::sign_ins::delete_ended(&mut tx, now.minus(KEPT), BATCH).await?;
            tx.commit().await?;
            Ok::<_, Error>(rows)
        };
        let rows = store::retry(once).await?;
        deleted += rows;
        if rows < BATCH.unsigned_abs() {
            return Ok(deleted);
        }
    }
}

fn cookie(headers: &HeaderMap) -> Option<(Uuid, &str)> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == COOKIE)?;
    let (id, browser) = value.split_once('.')?;
    Some((id.parse().ok()?, browser))
}

fn sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_cookie_is_found_among_others() {
        let id = Uuid::from_u128(7);
        let mut headers = HeaderMap::new();
        assert!(cookie(&headers).is_none());
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; assay-sign-in=x.y"));
        assert!(cookie(&headers).is_none());
        let ours = HeaderValue::from_str(&format!("c=d; {COOKIE}={}.secret", id.simple())).unwrap();
        headers.append(header::COOKIE, ours);
        assert_eq!(cookie(&headers), Some((id, "secret")));
    }
}
