//! What a request says beside its body, and the bearer token of account-driven enrollments in it.
//!
//! Source: Apple, "Implementing the Simple Authentication User-Enrollment Flow": every request carries `Authorization: Bearer`,
//! on macOS those of user channels. An enrollment that came in by any other door has no token, and is never asked for one.

use std::net::{IpAddr, SocketAddr};

use account::bearer::Bearer;
use axum::extract::ConnectInfo;
use http::header;
use http::request::Parts;
use mdm_core::enrollment::{Door as Entrance, EnrollmentState, UserKey};
use mdm_core::ids::EnrollmentId;
use mdm_core::rate::Rate;
use mdm_core::time::Timestamp;
use store::Tx;
use store::enrollments::{self, Enrollment, Glance};
use store::events::NewEvent;

use crate::Door;
use crate::reply::DeviceError;

/// What a request says beside its body and its identity.
#[derive(Default)]
pub(crate) struct Head {
    /// The client, as a trusted proxy names it.
    pub(crate) address: Option<IpAddr>,
    /// `Authorization`.
    authorization: Option<String>,
}

impl Head {
    pub(crate) fn of(parts: &Parts) -> Self {
        let mut given = parts.headers.get_all(header::AUTHORIZATION).iter();
        let authorization = match (given.next(), given.next()) {
            (Some(one), None) => one.to_str().ok().map(str::to_owned),
            _ => None,
        };
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|client| client.0.ip());
        Self { address, authorization }
    }

    /// Refuses a request whose enrollment came in by an account and whose token is not good. The transaction is to be given up.
    pub(crate) async fn check(
        &self,
        door: &Door,
        tx: &mut Tx,
        speaker: &Enrollment,
        now: Timestamp,
    ) -> Result<(), DeviceError> {
        if !is_account_driven(speaker.door) {
            return Ok(());
        }
        match account::bearer::judge(tx, &door.bearer, speaker, self.authorization.as_deref(), now).await? {
            Bearer::NotAsked | Bearer::Good => Ok(()),
            Bearer::Challenge { www_authenticate, why } => {
                // Of an enrollment that begins with this very message nothing stays.
                let begun = !matches!(speaker.state, EnrollmentState::Authenticated { at } if at == now);
                Err(DeviceError::SignInAgain { enrollment: begun.then_some(speaker.id), www_authenticate, why })
            }
        }
    }

    /// The same, for the user of this device whom a message names.
    pub(crate) async fn check_user(
        &self,
        door: &Door,
        tx: &mut Tx,
        device: &Enrollment,
        user: Option<&UserKey>,
        now: Timestamp,
    ) -> Result<(), DeviceError> {
        if !is_account_driven(device.door) {
            return Ok(());
        }
        let user = match user {
            Some(user) => enrollments::live_user(tx, device.id, user).await?,
            None => None,
        };
        self.check(door, tx, user.as_ref().unwrap_or(device), now).await
    }

    /// The same, for whom a poll speaks for.
    pub(crate) async fn check_glance(
        &self,
        door: &Door,
        tx: &mut Tx,
        glance: &Glance,
        now: Timestamp,
    ) -> Result<(), DeviceError> {
        if !is_account_driven(glance.door) {
            return Ok(());
        }
        let speaker = enrollments::get(tx, glance.id).await?.ok_or(store::Error::Corrupt("enrollment"))?;
        self.check(door, tx, &speaker, now).await
    }
}

/// Whether a person's account is what let an enrollment in.
pub(crate) fn is_account_driven(entrance: Entrance) -> bool {
    matches!(entrance, Entrance::Byod | Entrance::Adde)
}

/// How often an operator is told that one enrollment was asked to sign in again: its device asks again and again until then.
const TOLD: Rate = Rate { burst: 1, per_second: 1.0 / 3600.0 };

/// Writes that a person was asked to sign in again, in a transaction of its own: that of the message was given up.
pub(crate) async fn record(door: &Door, enrollment: Option<EnrollmentId>, why: &'static str) {
    let now = door.clock.now();
    // Those that have not begun share one measure.
    if !door.challenged.take(enrollment.unwrap_or(EnrollmentId(uuid::Uuid::nil())), TOLD, now) {
        return;
    }
    let written = async {
        let mut tx = door.store.begin().await?;
        let event = NewEvent {
            at: now,
            kind: "account.sign_in_again",
            enrollment,
            command: None,
            actor: "server",
            summary: "The enrollment's bearer token is not good: its person is asked to sign in again",
            data: &serde_json::json!({ "why": why }),
        };
        store::events::record(&mut tx, &event).await?;
        tx.commit().await
    };
    if let Err(error) = written.await {
        tracing::warn!(%error, "the sign-in that was asked for could not be written to the event log");
    }
}
