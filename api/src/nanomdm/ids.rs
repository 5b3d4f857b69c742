//! Enrollment ids as NanoMDM writes them: `UDID`, `UDID:UserID`, `UDID:UserShortName` (Shared iPad), `EnrollmentID`,
//! `EnrollmentID:EnrollmentUserID`.

use mdm_core::enrollment::{Channel, DeviceKey, EnrollmentKind, EnrollmentState, UserKey};
use store::Tx;
use store::enrollments::Enrollment;

use crate::problem::Problem;

/// What an id stands for.
#[derive(Debug)]
pub(super) enum Found {
    /// An enrollment that is not over, and whether it is enrolled.
    Live(Box<Enrollment>),
    /// An enrollment that is over.
    Over,
    /// Nothing that was ever enrolled here.
    Nothing,
}

/// The ids of a path: separated by commas, each once, in order.
pub(super) fn split(path: &str) -> Vec<&str> {
    let mut ids: Vec<&str> = Vec::new();
    for id in path.split(',').filter(|id| !id.is_empty()) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}

/// Looks an id up. A device's present enrollment is meant where it has had several.
pub(super) async fn find(tx: &mut Tx, id: &str) -> Result<Found, Problem> {
    let (device, user) = id.split_once(':').map_or((id, None), |(device, user)| (device, Some(user)));
    let keys = [device.parse().ok().map(DeviceKey::Udid), device.parse().ok().map(DeviceKey::EnrollmentId)];
    for key in keys.iter().flatten() {
        if let Some(found) = store::enrollments::live_device(tx, key).await? {
            return match user {
                None => Ok(Found::Live(Box::new(found))),
                Some(user) => find_user(tx, &found, user).await,
            };
        }
    }
    for key in keys.iter().flatten() {
        if store::enrollments::newest_device(tx, key).await?.is_some() {
            return Ok(Found::Over);
        }
    }
    Ok(Found::Nothing)
}

async fn find_user(tx: &mut Tx, device: &Enrollment, user: &str) -> Result<Found, Problem> {
    let keys = [user.parse().ok().map(UserKey::UserId), user.parse().ok().map(UserKey::SharedIpad)];
    for key in keys.iter().flatten() {
        if let Some(found) = store::enrollments::live_user(tx, device.id, key).await? {
            return Ok(Found::Live(Box::new(found)));
        }
    }
    Ok(Found::Nothing)
}

/// Why this id takes no commands, if it does not.
pub(super) fn refused(found: &Found) -> Option<&'static str> {
    match found {
        Found::Live(e) if matches!(e.state, EnrollmentState::Enrolled { .. }) => None,
        Found::Live(_) => Some("enrollment is not enabled: it has sent no TokenUpdate yet"),
        Found::Over => Some("enrollment is not enabled: the device has checked out"),
        Found::Nothing => Some("no such enrollment"),
    }
}

/// An enrollment's id and type as NanoMDM writes them; `device` is the parent of a user channel.
pub(super) fn names(enrollment: &Enrollment, device: Option<&Enrollment>) -> Option<(String, &'static str)> {
    let device_key = device.unwrap_or(enrollment).device_key.as_ref()?;
    let (device_id, is_udid) = match device_key {
        DeviceKey::Udid(udid) => (udid.as_str(), true),
        DeviceKey::EnrollmentId(id) => (id.as_str(), false),
    };
    let kind = match (enrollment.channel, is_udid) {
        (Channel::Device, true) => return Some((device_id.to_owned(), "Device")),
        (Channel::Device, false) => return Some((device_id.to_owned(), "User Enrollment (Device)")),
        (Channel::User, _) if enrollment.kind == EnrollmentKind::SharedIpad => "Shared iPad",
        (Channel::User, true) => "User",
        (Channel::User, false) => "User Enrollment",
    };
    let user = match enrollment.user_key.as_ref()? {
        UserKey::UserId(id) => id.as_str(),
        UserKey::SharedIpad(name) => name.as_str(),
    };
    Some((format!("{device_id}:{user}"), kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_split_at_commas_and_counted_once() {
        assert_eq!(split("a,b:c,,a"), ["a", "b:c"]);
        assert!(split("").is_empty());
    }
}
