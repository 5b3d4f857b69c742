//! Tokens that a device hands over or asks for: the bootstrap token (Apple, `SetBootstrapToken`, `GetBootstrapToken`) and
//! service tokens (`GetToken`).

use axum::response::Response;
use mdm_core::checkin::{GetToken, SetBootstrapToken, bootstrap_token_answer};
use mdm_core::enrollment::EnrollmentKind;
use mdm_core::ids::EnrollmentId;
use store::Tx;

use crate::Door;
use crate::authorize::Authorized;
use crate::checkin::is_stale;
use crate::identity::Identity;
use crate::reply::{self, DeviceError};

fn context(id: EnrollmentId) -> String {
    format!("enrollment.bootstrap_token_sealed:{id}")
}

/// Keeps the device's bootstrap token, sealed, or forgets it where the message has none.
pub(crate) async fn set_bootstrap_token(
    door: &Door,
    tx: &mut Tx,
    identity: &Identity,
    authorized: &Authorized,
    message: &SetBootstrapToken,
) -> Result<(), DeviceError> {
    let device = authorized.live()?;
    if device.kind == EnrollmentKind::User {
        return Err(DeviceError::Refused("User Enrollment has no bootstrap token".to_owned()));
    }
    let (_, stored_at) = store::enrollments::bootstrap_token(tx, device.id).await?;
    if is_stale(identity.signed_at, stored_at) {
        tracing::info!(enrollment.id = %device.id, "an older SetBootstrapToken than the stored one changes nothing");
        return Ok(());
    }
    let sealed = message
        .bootstrap_token
        .as_ref()
        .map(|token| door.sealer.seal(&context(device.id), token.expose(), &door.random));
    let signed_at = identity.signed_at.or(stored_at);
    store::enrollments::set_bootstrap_token(tx, device.id, sealed.as_deref(), signed_at).await?;
    Ok(())
}

/// Gives the device its bootstrap token back. One of an earlier enrollment stays in the archive (TH-10).
pub(crate) async fn get_bootstrap_token(
    door: &Door,
    tx: &mut Tx,
    authorized: &Authorized,
) -> Result<Response, DeviceError> {
    let device = authorized.live()?;
    let (sealed, _) = store::enrollments::bootstrap_token(tx, device.id).await?;
    let token = match sealed {
        Some(sealed) => Some(door.sealer.open(&context(device.id), &sealed)?),
        None => None,
    };
    Ok(reply::plist(bootstrap_token_answer(token.as_ref())))
}

/// No service that gives tokens is configured: Apple asks for 400 where the type is not known.
pub(crate) fn no_service(message: &GetToken) -> DeviceError {
    let kind: String = message.token_service_type.chars().take(64).collect();
    DeviceError::Refused(format!("no token service {kind:?}"))
}
