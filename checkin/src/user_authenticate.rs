//! `UserAuthenticate`: a network user logs in on a Mac; shall the server manage that user?
//!
//! Source: Apple, "UserAuthenticate". The first message asks, the second answers the digest challenge (RFC 2617). Refused by
//! default: with 410 the Mac asks no more in that login session. User Enrollment and Shared iPad know no such users.

use std::time::Duration;

use axum::response::Response;
use mdm_core::checkin::{UserAuthenticate, auth_token_answer, digest_challenge_answer};
use mdm_core::crypto::digest_access::{DigestResponse, challenge};
use mdm_core::enrollment::{DeviceKey, UserKey};
use mdm_core::ids::{EnrollmentId, Fingerprint, UserId};
use mdm_core::rate::Rate;
use mdm_core::secret::Secret;
use mdm_core::time::Timestamp;
use serde_json::json;
use store::events::NewEvent;
use store::{Tx, network_users};

use crate::Door;
use crate::authorize::Authorized;
use crate::reply::{self, DeviceError};

/// What becomes of network users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkUsers {
    /// They are not managed.
    #[default]
    Refuse,
    /// They are managed without proving a password to the server: the Mac has checked it against its directory.
    WithoutPassword,
    /// They prove a password that an operator has put into the list of network users.
    Digest,
}

/// How long a challenge may be answered: as long as a person stands before a login window.
const NONCE_LIFE: Duration = Duration::from_mins(5);

/// How often one Mac may answer; beyond that the answer counts as wrong.
const ANSWERS: Rate = Rate { burst: 10, per_second: 1.0 / 60.0 };

/// The context that a network user's HA1 is sealed for.
pub(crate) fn context(short_name: &str) -> String {
    format!("network_user.digest_sealed:{short_name}")
}

/// Answers one `UserAuthenticate`.
pub(crate) async fn answer(
    door: &Door,
    tx: &mut Tx,
    authorized: &Authorized,
    message: &UserAuthenticate,
    now: Timestamp,
) -> Result<Response, DeviceError> {
    let device = authorized.live()?;
    let (DeviceKey::Udid(_), Some(UserKey::UserId(user))) = (&message.sender.device, &message.sender.user) else {
        return Err(DeviceError::UserNotManaged);
    };
    let answer = match door.settings.network_users {
        NetworkUsers::Refuse => return Err(DeviceError::UserNotManaged),
        NetworkUsers::WithoutPassword if message.digest_response.is_none() => digest_challenge_answer(""),
        // Nothing was asked, so nothing can be wrong.
        NetworkUsers::WithoutPassword => auth_token_answer(""),
        NetworkUsers::Digest => match &message.digest_response {
            None => {
                let nonce = door.random.token();
                let sha256 = Fingerprint::of(nonce.as_bytes()).0;
                network_users::challenge(tx, device.id, user, &sha256, now.plus(NONCE_LIFE), now).await?;
                digest_challenge_answer(&challenge(&door.settings.realm, &nonce))
            }
            Some(response) => auth_token_answer(&token(door, tx, device.id, user, response, now).await?),
        },
    };
    Ok(reply::plist(answer))
}

/// The token that a right answer earns; empty for a wrong one, as Apple asks.
async fn token(
    door: &Door,
    tx: &mut Tx,
    device: EnrollmentId,
    user: &UserId,
    response: &Secret<String>,
    now: Timestamp,
) -> Result<String, DeviceError> {
    let proven = match DigestResponse::parse(response.expose()) {
        Some(response) if door.answers.take(device, ANSWERS, now) => {
            proven(door, tx, device, user, &response, now).await?
        }
        _ => false,
    };
    metrics::counter!("user_authentications_total", "result" => if proven { "right" } else { "wrong" }).increment(1);
    let summary = if proven { "A network user logged in" } else { "A network user was not let in" };
    let event = NewEvent {
        at: now,
        kind: if proven { "user.authenticated" } else { "user.refused" },
        enrollment: Some(device),
        command: None,
        actor: "device",
        summary,
        data: &json!({ "user_id": user.as_str() }),
    };
    store::events::record(tx, &event).await?;
    if !proven {
        return Ok(String::new());
    }
    let token = door.random.token();
    network_users::set_token(tx, device, user, &Fingerprint::of(token.as_bytes()).0).await?;
    Ok(token)
}

async fn proven(
    door: &Door,
    tx: &mut Tx,
    device: EnrollmentId,
    user: &UserId,
    response: &DigestResponse,
    now: Timestamp,
) -> Result<bool, DeviceError> {
    let nonce = Fingerprint::of(response.nonce().as_bytes()).0;
    if !network_users::consume(tx, device, user, &nonce, now).await? {
        return Ok(false);
    }
    let Some(known) = network_users::get(tx, response.username()).await? else { return Ok(false) };
    let ha1 = door.sealer.open(&context(&known.short_name), &known.digest_sealed)?;
    let Ok(ha1) = String::from_utf8(ha1.expose().clone()) else { return Ok(false) };
    Ok(response.proves(&Secret::new(ha1), &door.settings.realm))
}

/// A message on a user channel that carries an `AuthToken` must carry that of the last login.
pub(crate) async fn check_token(
    tx: &mut Tx,
    device: EnrollmentId,
    user: Option<&UserKey>,
    token: Option<&str>,
) -> Result<(), DeviceError> {
    let (Some(UserKey::UserId(user)), Some(token)) = (user, token.filter(|token| !token.is_empty())) else {
        return Ok(());
    };
    let known = network_users::token(tx, device, user).await?;
    if known.is_some_and(|sha256| sha256 == Fingerprint::of(token.as_bytes()).0) {
        return Ok(());
    }
    Err(DeviceError::Denied("the AuthToken is not that of the user's last login"))
}
