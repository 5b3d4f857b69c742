//! What a request says beside its body, and the bearer token of account-driven enrollments in it.
//!
//! Source: Apple, "Implementing the Simple Authentication User-Enrollment Flow": every request carries `Authorization: Bearer`,
//! on macOS those of user channels. An enrollment that came in by any other door has no token, and is never asked for one.

use std::net::{IpAddr, SocketAddr};

use account::bearer::Bearer;
use axum::extract::ConnectInfo;
use http::header;
use http::request::Parts;
use mdm_core::enrollment::{Door as Entrance, UserKey};
use mdm_core::time::Timestamp;
use store::Tx;
use store::enrollments::{self, Enrollment, Glance};

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
                Err(DeviceError::SignInAgain { enrollment: speaker.id, www_authenticate, why })
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
