//! Whether a request of an enrolled device shows the bearer token that account-driven enrollment asks for.
//!
//! Source: Apple, "Ongoing authentication" of account-driven enrollment: iPhone, iPad and Apple Vision Pro show it with every
//! request, a Mac only on the user channel. 401 with a challenge makes the device refresh the token, or ask the person to sign in.
//! To a device that is not asked for a token 401 would mean the end of its management, so nothing but a token that is missing,
//! revoked, over or another's leads to it, and only where an enrollment is known to have had one (ADR 0004).

use std::time::Duration;

use enroll::door;
use mdm_core::enrollment::Channel;
use mdm_core::hardware::{Claims, Platform, classify};
use mdm_core::time::Timestamp;
use serde_json::json;
use store::Tx;
use store::account_tokens::{self, Row};
use store::enrollments::Enrollment;
use store::events::NewEvent;
use url::Url;

use crate::challenge::challenge;
use crate::presented::{self, Problem};
use crate::{Error, Mode};

/// What judging needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How devices reach the server.
    pub public_url: Url,
}

/// What is to be done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bearer {
    /// This enrollment, or this channel of it, shows no token.
    NotAsked,
    /// The token is this enrollment's.
    Good,
    /// 401 with this challenge, and nothing else: the token is the problem.
    Challenge {
        /// The value of `WWW-Authenticate`.
        www_authenticate: String,
        /// A stable word, for the log and for events.
        why: &'static str,
    },
}

/// How often a use is written.
const USE_INTERVAL: Duration = Duration::from_hours(1);

/// Judges the value of `Authorization` in a request whose identity certificate is accepted already. `speaker` is the channel that
/// speaks. A token of the same person and mode that is no enrollment's yet, as it comes of signing in again, becomes this one's:
/// hence `tx` must be a write transaction.
pub async fn judge(
    tx: &mut Tx,
    settings: &Settings,
    speaker: &Enrollment,
    authorization: Option<&str>,
    now: Timestamp,
) -> Result<Bearer, Error> {
    let Some(mode) = Mode::of(speaker.door).filter(|_| shows_token(speaker)) else {
        return Ok(Bearer::NotAsked);
    };
    let device = speaker.parent.unwrap_or(speaker.id);
    let problem = match presented::look(tx, mode, authorization, now).await? {
        Ok(row) => match whose(&row, speaker) {
            Ok(Whose::Ours) => {
                account_tokens::used(tx, row.id, now, now.minus(USE_INTERVAL)).await?;
                return Ok(Bearer::Good);
            }
            Ok(Whose::Nobodys) => {
                if account_tokens::bind(tx, row.id, device, now).await? {
                    account_tokens::used(tx, row.id, now, now).await?;
                    signed_in_again(tx, &row, speaker, now).await?;
                    return Ok(Bearer::Good);
                }
                Problem::OtherEnrollment
            }
            Err(problem) => problem,
        },
        Err(problem) => problem,
    };
    let certain = matches!(problem, Problem::Revoked | Problem::Expired);
    if !certain && !account_tokens::was_bound(tx, device).await? {
        // There is no token that the device could show. That is a fault of ours, or of a restored backup.
        tracing::warn!(enrollment.id = %device, "an account-driven enrollment has no token: none is asked for");
        return Ok(Bearer::NotAsked);
    }
    let account = door::load(tx, mode.door()).await?.account;
    Ok(Bearer::Challenge { www_authenticate: challenge(&settings.public_url, mode, &account), why: problem.code() })
}

/// Whether this channel shows a token. Of a device whose kind is not known none is asked (open question Q12).
fn shows_token(speaker: &Enrollment) -> bool {
    if speaker.channel == Channel::User {
        return true;
    }
    let claims = Claims {
        product_name: speaker.product_name.as_deref(),
        is_apple_silicon: None,
        model: speaker.model.as_deref(),
        model_name: speaker.model_name.as_deref(),
    };
    matches!(classify(&claims).platform, Some(Platform::Ios | Platform::Ipados | Platform::Visionos))
}

enum Whose {
    Ours,
    Nobodys,
}

fn whose(row: &Row, speaker: &Enrollment) -> Result<Whose, Problem> {
    let device = speaker.parent.unwrap_or(speaker.id);
    match row.enrollment_id {
        Some(id) if id == device.0 => Ok(Whose::Ours),
        Some(_) => Err(Problem::OtherEnrollment),
        None => match &speaker.managed_apple_account {
            Some(account) if account.eq_ignore_ascii_case(&row.managed_apple_account) => Ok(Whose::Nobodys),
            _ => Err(Problem::OtherAccount),
        },
    }
}

async fn signed_in_again(tx: &mut Tx, row: &Row, speaker: &Enrollment, now: Timestamp) -> Result<(), Error> {
    let event = NewEvent {
        at: now,
        kind: "account.signed_in_again",
        enrollment: Some(speaker.id),
        command: None,
        actor: "device",
        summary: "The person signed in again; the enrollment goes on with a new token",
        data: &json!({ "token": row.id, "mode": row.mode, "managed_apple_account": row.managed_apple_account }),
    };
    Ok(store::events::record(tx, &event).await?)
}
