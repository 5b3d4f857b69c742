//! The check-in messages (Apple, "Check-in"): one message, one transaction.

use axum::response::Response;
use mdm_core::checkin::{Authenticate, CheckOut, Message, TokenUpdate};
use mdm_core::enrollment::{EnrollmentEvent, EnrollmentKind, EnrollmentState, UserKey};
use mdm_core::ids::{EnrollmentId, Fingerprint};
use mdm_core::time::Timestamp;
use store::Tx;
use store::enrollments::{self, Enrollment, Tokens};

use crate::authorize::{Authorized, authorize, event, record_refusal};
use crate::bearer::Head;
use crate::identity::Identity;
use crate::reply::{self, DeviceError};
use crate::{Door, declarative, quarantine, set_up, tokens, unenroll, user_authenticate};

/// User channels of one device: more than any Shared iPad has users, fewer than would hurt.
const MOST_USERS: usize = 1000;

/// Answers one check-in message.
pub(crate) async fn receive(
    door: &Door,
    head: &Head,
    identity: &Identity,
    message: &Message,
    raw: &[u8],
) -> Result<Response, DeviceError> {
    let kind = message.message_type();
    metrics::counter!("check_in_messages_total", "message_type" => kind).increment(1);
    let result = store::retry(|| handle(door, head, identity, message, raw)).await;
    let result = unenroll::told(door, identity, message.sender(), result).await;
    if let Err(error) = &result {
        record_refusal(door, identity, kind, error).await;
        if let (DeviceError::Enroll(enroll::Error::Refused(refusal)), Message::Authenticate(message)) = (error, message)
            && refusal.is_quarantine()
        {
            quarantine::keep(door, head, identity, message, raw, *refusal).await;
        }
    }
    result
}

async fn handle(
    door: &Door,
    head: &Head,
    identity: &Identity,
    message: &Message,
    raw: &[u8],
) -> Result<Response, DeviceError> {
    let now = door.clock.now();
    let mut tx = door.store.begin().await?;
    if let Message::Authenticate(message) = message {
        authenticate(door, &mut tx, head, identity, message, raw, now).await?;
        tx.commit().await?;
        return Ok(reply::empty());
    }
    let authorized = authorize(door, &mut tx, identity, message.sender(), now).await?;
    // One that leaves by itself need not be told to.
    if authorized.device.unenroll_requested_at.is_some() && !matches!(message, Message::CheckOut(_)) {
        return Err(DeviceError::Unenroll);
    }
    door.seen.note(authorized.device.id, now);
    // A device that leaves may do so without a token, and a user channel that begins with this message is looked at once it is there.
    if !matches!(message, Message::CheckOut(_) | Message::TokenUpdate(_)) {
        head.check_user(door, &mut tx, &authorized.device, message.sender().user.as_ref(), now).await?;
    }
    let user = message.sender().user.as_ref();
    user_authenticate::check_token(&mut tx, authorized.device.id, user, message.auth_token()).await?;
    let response = match message {
        Message::Authenticate(_) => reply::empty(),
        Message::TokenUpdate(message) => {
            token_update(
                door,
                &mut tx,
                head,
                &authorized,
                &Update { message, raw, signed_at: identity.signed_at },
                now,
            )
            .await?;
            reply::empty()
        }
        Message::CheckOut(message) => {
            check_out(&mut tx, identity, &authorized, message, now).await?;
            reply::empty()
        }
        Message::UserAuthenticate(message) => {
            user_authenticate::answer(door, &mut tx, &authorized, message, now).await?
        }
        Message::SetBootstrapToken(message) => {
            tokens::set_bootstrap_token(door, &mut tx, identity, &authorized, message).await?;
            reply::empty()
        }
        Message::GetBootstrapToken(_) => tokens::get_bootstrap_token(door, &mut tx, &authorized).await?,
        Message::DeclarativeManagement(message) => {
            authorized.speaker(&mut tx, message.sender.user.as_ref()).await?;
            declarative::answer(message)?
        }
        Message::GetToken(message) => {
            authorized.live()?;
            return Err(tokens::no_service(message));
        }
    };
    tx.commit().await?;
    Ok(response)
}

async fn authenticate(
    door: &Door,
    tx: &mut Tx,
    head: &Head,
    identity: &Identity,
    message: &Authenticate,
    raw: &[u8],
    now: Timestamp,
) -> Result<(), DeviceError> {
    if !message.topic.starts_with("com.apple.mgmt.") {
        return Err(DeviceError::Refused("the Topic does not begin with com.apple.mgmt.".to_owned()));
    }
    let admitted = enroll::authenticate(tx, &door.random, &arrival(door, identity, message, raw), now).await?;
    if matches!(admitted.continues, enroll::Continues::New | enroll::Continues::Again) {
        policy::unenrolled(tx, admitted.enrollment, now).await?;
        store::network_users::forget(tx, admitted.enrollment).await?;
    }
    let enrollment = enrollments::get(tx, admitted.enrollment).await?.ok_or(store::Error::Corrupt("enrollment"))?;
    head.check(door, tx, &enrollment, now).await?;
    tracing::info!(enrollment.id = %admitted.enrollment, continues = admitted.continues.as_str(), "Authenticate admitted");
    Ok(())
}

/// An `Authenticate` as admission looks at it.
pub(crate) fn arrival<'a>(
    door: &'a Door,
    identity: &'a Identity,
    message: &'a Authenticate,
    raw: &'a [u8],
) -> enroll::Arrival<'a> {
    enroll::Arrival {
        certificate: &identity.certificate,
        by_subject: door.settings.external_by_subject,
        external_issuer: external_issuer(door, identity),
        server_url: door.settings.server_url.as_deref(),
        message,
        raw,
    }
}

/// The external CA that itself signed the identity.
pub(crate) fn external_issuer(door: &Door, identity: &Identity) -> Option<Fingerprint> {
    let issuer = door.trust.issuer_of(&identity.certificate)?.fingerprint();
    door.settings.external_issuers.contains(&issuer).then_some(issuer)
}

/// Whether a signed message is older than the one whose effect is stored: a repeat out of order, or a replay (TH-17, RG-24).
/// One of the same time is processed: it is the same message.
pub(crate) fn is_stale(signed_at: Option<Timestamp>, stored: Option<Timestamp>) -> bool {
    matches!((signed_at, stored), (Some(this), Some(stored)) if this < stored)
}

fn ignore_stale(enrollment: EnrollmentId, message_type: &'static str) {
    metrics::counter!("stale_messages_total", "message_type" => message_type).increment(1);
    tracing::info!(enrollment.id = %enrollment, message_type, "an older message than the stored one changes nothing");
}

/// A `TokenUpdate` as it came.
struct Update<'a> {
    message: &'a TokenUpdate,
    raw: &'a [u8],
    signed_at: Option<Timestamp>,
}

async fn token_update(
    door: &Door,
    tx: &mut Tx,
    head: &Head,
    authorized: &Authorized,
    update: &Update<'_>,
    now: Timestamp,
) -> Result<(), DeviceError> {
    let Update { message, raw, signed_at } = *update;
    let device = authorized.live()?;
    let speaker = match &message.sender.user {
        None => device.clone(),
        Some(user) => user_channel(door, tx, device, user, now).await?,
    };
    head.check(door, tx, &speaker, now).await?;
    if device.topic.as_deref() != Some(message.topic.as_str()) {
        return Err(DeviceError::Refused("the Topic is not that of the enrollment".to_owned()));
    }
    if is_stale(signed_at, speaker.token_signed_at) {
        ignore_stale(speaker.id, "TokenUpdate");
        return Ok(());
    }
    let state = transition(&speaker, EnrollmentEvent::TokenUpdate, now)?;
    let seal = |column: &str, plain: &[u8]| {
        door.sealer.seal(&format!("enrollment.{column}:{}", speaker.id), plain, &door.random)
    };
    let unlock_token = message.unlock_token.as_ref().map(|token| seal("unlock_token_sealed", token.expose()));
    let tokens = Tokens {
        topic: &message.topic,
        push_token: &message.token,
        push_magic: &message.push_magic,
        signed_at: signed_at.or(speaker.token_signed_at),
        awaiting_configuration: message.awaiting_configuration.unwrap_or(false),
        unlock_token_sealed: unlock_token.as_deref(),
        raw_sealed: &seal("token_update_sealed", raw),
        user_short_name: message.user_short_name.as_deref(),
        user_long_name: message.user_long_name.as_deref(),
    };
    enrollments::token_update(tx, speaker.id, state, &tokens, now).await?;
    store::push::revived(tx, speaker.id, now).await?;
    tx.wake(store::Wake::Push);
    if message.sender.user.is_none() {
        // The new identity has proved itself: those that it took the place of are not accepted any more.
        renewal::identity_seen(tx, device.id, &authorized.identity, now).await?;
    }
    let enrolled = enrollments::get(tx, speaker.id).await?.ok_or(store::Error::Corrupt("enrollment"))?;
    if matches!(speaker.state, EnrollmentState::Authenticated { .. }) {
        policy::enrolled(tx, &door.policy, &enrolled, now).await?;
        event(tx, Some(speaker.id), "enrollment.enrolled", "The enrollment can be reached by push", now).await?;
        tracing::info!(enrollment.id = %speaker.id, channel = %speaker.channel, "enrolled");
    }
    set_up::told(tx, &door.commands, &enrolled, now).await?;
    Ok(())
}

/// The enrollment of a user on this device, made where it is the first time that the user is heard of.
async fn user_channel(
    door: &Door,
    tx: &mut Tx,
    device: &Enrollment,
    user: &UserKey,
    now: Timestamp,
) -> Result<Enrollment, DeviceError> {
    if let Some(known) = enrollments::live_user(tx, device.id, user).await? {
        return Ok(known);
    }
    if !matches!(device.state, EnrollmentState::Enrolled { .. }) {
        return Err(DeviceError::Refused("a user channel needs an enrolled device channel".to_owned()));
    }
    if enrollments::users_of(tx, device.id).await?.len() >= MOST_USERS {
        return Err(DeviceError::Refused("the device has too many user channels".to_owned()));
    }
    let kind = match user {
        UserKey::SharedIpad(_) => EnrollmentKind::SharedIpad,
        UserKey::UserId(_) => device.kind,
    };
    let id = EnrollmentId(door.random.uuid_v7(now));
    enrollments::insert_user(tx, id, device.id, kind, user, now).await?;
    enrollments::get(tx, id).await?.ok_or_else(|| store::Error::Corrupt("enrollment").into())
}

async fn check_out(
    tx: &mut Tx,
    identity: &Identity,
    authorized: &Authorized,
    message: &CheckOut,
    now: Timestamp,
) -> Result<(), DeviceError> {
    let device = &authorized.device;
    let ended = match &message.sender.user {
        None => device.clone(),
        // Of a user who is not known there is nothing to end.
        Some(user) => match enrollments::live_user(tx, device.id, user).await? {
            Some(user) => user,
            None => return Ok(()),
        },
    };
    if is_stale(identity.signed_at, ended.token_signed_at) {
        ignore_stale(ended.id, "CheckOut");
        return Ok(());
    }
    if matches!(ended.state, EnrollmentState::Unenrolled { .. }) {
        return Ok(());
    }
    enroll::leave::end(tx, &ended, EnrollmentEvent::CheckOut, now).await?;
    event(tx, Some(ended.id), "enrollment.checked_out", "The device removed its enrollment profile", now).await?;
    tracing::info!(enrollment.id = %ended.id, "checked out");
    Ok(())
}

fn transition(enrollment: &Enrollment, event: EnrollmentEvent, now: Timestamp) -> Result<EnrollmentState, DeviceError> {
    enrollment.state.on(event, now).map_err(|refused| DeviceError::Refused(refused.to_string()))
}
