//! apple-oauth2: what the token endpoint gives for a code or a refresh token (RFC 6749, sections 4.1.3, 5 and 6).
//!
//! A code is good once: shown again, it takes back what was given for it (section 4.1.2). So is a refresh token (RFC 9700, section
//! 4.14.2), with one exception: a device that did not hear the answer asks again, and may until the answer has been used.

use std::time::Duration;

use enroll::door::Account;
use mdm_core::enrollment::EnrollmentState;
use mdm_core::ids::EnrollmentId;
use mdm_core::random::Random;
use mdm_core::secret::Secret;
use mdm_core::time::Timestamp;
use serde_json::{Value, json};
use store::Tx;
use store::account_tokens::{self, Given, Row};
use store::events::NewEvent;

use crate::oauth2::{ErrorCode, TokenRequest, proves};
use crate::presented::{UNBOUND_LIFE, hash};
use crate::{Error, Mode};

/// How long a device may ask again with a refresh token whose answer it did not hear.
const AGAIN: Duration = Duration::from_mins(1);

/// What became of a request. In either case the transaction is to be committed.
#[derive(Debug)]
pub(crate) enum Granted {
    /// The answer.
    Tokens(Answer),
    /// It is refused; the token concerned, where there is one.
    Refused(ErrorCode, &'static str, Option<Box<Row>>),
}

/// Section 5.1.
#[derive(Debug)]
pub(crate) struct Answer {
    access: Secret<String>,
    refresh: Secret<String>,
    expires_in: u32,
    scope: String,
}

impl Answer {
    /// The body. A function of its own, so that nothing prints it by accident.
    pub(crate) fn json(&self) -> Value {
        json!({
            "token_type": "Bearer",
            "access_token": self.access.expose(),
            "expires_in": self.expires_in,
            "refresh_token": self.refresh.expose(),
            "scope": self.scope,
        })
    }
}

/// Serves a request to the token endpoint of a mode.
pub(crate) async fn grant(
    tx: &mut Tx,
    random: &Random,
    settings: &Account,
    mode: Mode,
    request: &TokenRequest,
    now: Timestamp,
) -> Result<Granted, Error> {
    let maker = Maker { random, settings, now };
    match request {
        TokenRequest::Code { code, redirect_uri, verifier } => {
            by_code(tx, &maker, mode, code, redirect_uri.as_deref(), verifier.as_ref()).await
        }
        TokenRequest::Refresh { token } => by_refresh(tx, &maker, mode, token).await,
    }
}

struct Maker<'a> {
    random: &'a Random,
    settings: &'a Account,
    now: Timestamp,
}

impl Maker<'_> {
    fn make(&self) -> (Given, Answer) {
        let (access, refresh) = (self.random.token(), self.random.token());
        let expires_in = self.settings.access_token_seconds;
        let given = Given {
            sha256: hash(&access),
            refresh_sha256: hash(&refresh),
            expires_at: self.now.plus(Duration::from_secs(expires_in.into())),
        };
        let scope = self.settings.scope.clone();
        (given, Answer { access: Secret::new(access), refresh: Secret::new(refresh), expires_in, scope })
    }
}

async fn by_code(
    tx: &mut Tx,
    maker: &Maker<'_>,
    mode: Mode,
    code: &Secret<String>,
    redirect_uri: Option<&str>,
    verifier: Option<&Secret<String>>,
) -> Result<Granted, Error> {
    let now = maker.now;
    let refused = |why, row| Ok(Granted::Refused(ErrorCode::InvalidGrant, why, row));
    let hash = hash(code.expose());
    // Once to know whose lock it is, and again under it: whoever shows the code at the same time comes after us, or before.
    if let Some(row) = account_tokens::find_by_code(tx, hash).await? {
        account_tokens::lock(tx, row.id).await?;
    }
    let Some(row) = account_tokens::find_by_code(tx, hash).await? else {
        return refused("code_unknown", None);
    };
    if row.state != "code" {
        take_back(tx, &row, "an authorization code was shown twice: what was given for it is revoked", now).await?;
        return refused("code_replayed", Some(Box::new(row)));
    }
    // Whoever shows it wrongly is not the one whom it was given to: it is worth nothing from now on.
    let wrong = if row.mode != mode.as_str() {
        Some("code_other_mode")
    } else if row.redirect_uri.as_deref() != redirect_uri {
        Some("code_other_redirect")
    } else if !proves(row.code_challenge.as_deref(), verifier) {
        Some("code_verifier")
    } else {
        None
    };
    if let Some(why) = wrong {
        account_tokens::revoke(tx, row.id, now).await?;
        return refused(why, Some(Box::new(row)));
    }
    let (given, answer) = maker.make();
    if account_tokens::redeem(tx, row.id, &given, now).await? {
        return Ok(Granted::Tokens(answer));
    }
    refused("code_expired", Some(Box::new(row)))
}

async fn by_refresh(tx: &mut Tx, maker: &Maker<'_>, mode: Mode, token: &Secret<String>) -> Result<Granted, Error> {
    let now = maker.now;
    let refused = |why, row| Ok(Granted::Refused(ErrorCode::InvalidGrant, why, Some(Box::new(row))));
    let hash = hash(token.expose());
    if let Some(row) = account_tokens::find_by_refresh(tx, hash).await? {
        account_tokens::lock(tx, row.id).await?;
    }
    let Some(row) = account_tokens::find_by_refresh(tx, hash).await? else {
        return Ok(Granted::Refused(ErrorCode::InvalidGrant, "refresh_unknown", None));
    };
    if row.mode != mode.as_str() {
        return refused("refresh_other_mode", row);
    }
    let old = match row.state.as_str() {
        "live" => row.clone(),
        "replaced" => {
            let Some(unheard) = unheard(tx, &row, now).await? else {
                take_back(tx, &row, "a refresh token was shown twice: its tokens are revoked", now).await?;
                return refused("refresh_replayed", row);
            };
            unheard
        }
        _ => return refused("refresh_revoked", row),
    };
    match old.enrollment_id.map(EnrollmentId) {
        None if Timestamp(old.created_at).plus(UNBOUND_LIFE) <= now => return refused("refresh_expired", row),
        None => {}
        Some(id) => {
            let enrollment = store::enrollments::get(tx, id).await?;
            if enrollment.is_none_or(|e| matches!(e.state, EnrollmentState::Unenrolled { .. })) {
                return refused("enrollment_over", row);
            }
        }
    }
    if !account_tokens::replace(tx, old.id, now).await? {
        return refused("refresh_replayed", row);
    }
    let (given, answer) = maker.make();
    let next = Row {
        id: maker.random.uuid_v7(now),
        sha256: given.sha256.to_vec(),
        refresh_sha256: Some(given.refresh_sha256.to_vec()),
        code_sha256: None,
        code_expires_at: None,
        code_challenge: None,
        redirect_uri: None,
        state: "live".to_owned(),
        expires_at: Some(given.expires_at.0),
        revoked_at: None,
        last_used_at: None,
        created_at: now.0,
        ..old
    };
    account_tokens::insert(tx, &next).await?;
    Ok(Granted::Tokens(answer))
}

/// The answer to this refresh token, where the device can't have heard it: it is new, and nobody has shown it.
async fn unheard(tx: &mut Tx, row: &Row, now: Timestamp) -> Result<Option<Row>, Error> {
    let Some(family) = row.sign_in_id else { return Ok(None) };
    let live = account_tokens::live_of(tx, family).await?;
    Ok(live.filter(|next| {
        row.revoked_at == Some(next.created_at)
            && next.last_used_at.is_none()
            && Timestamp(next.created_at).plus(AGAIN) > now
    }))
}

/// Revokes a token with its family, and tells operators.
async fn take_back(tx: &mut Tx, row: &Row, summary: &str, now: Timestamp) -> Result<(), Error> {
    if account_tokens::revoke(tx, row.id, now).await? == 0 {
        return Ok(());
    }
    let data = json!({ "token": row.id, "mode": row.mode, "managed_apple_account": row.managed_apple_account });
    let event = NewEvent {
        at: now,
        kind: "account.token_replayed",
        enrollment: row.enrollment_id.map(EnrollmentId),
        command: None,
        actor: "device",
        summary,
        data: &data,
    };
    Ok(store::events::record(tx, &event).await?)
}
