//! Automated Device Enrollment, the server's half of the device's call: who is believed, who is let in, and what is answered.
//!
//! The call proves which device it is (its MachineInfo is signed with its factory certificate), and Apple's list says that it is
//! the organization's. Neither is a permission: a serial number is no secret, and a signed MachineInfo can be recorded. So one of
//! three is asked for besides (TH-50): an operator's approval, a person's sign-in, or an attested key.

use ade::AtTheCall;
use mdm_core::crypto::machine_info::{self, MachineInfo};
use mdm_core::enrollment::{Door, EnrollmentKind};
use mdm_core::hardware::{Claims, OsVersion, Platform, classify};
use mdm_core::ids::Label;
use mdm_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use signin::Person;
use std::time::Duration;
use store::Tx;
use store::events::NewEvent;
use store::issuance::Flow;

use crate::door::{self, CannotUpdate, Require, Settings};
use crate::identity::DeviceFacts;
use crate::offer::{EVENTS, Visitor, offer};
use crate::{Error, Shared};

/// What of a MachineInfo is needed until the end of a web sign-in; kept with the sign-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Caller {
    pub(crate) serial: String,
    udid: String,
    product: String,
    os_version: Option<String>,
    can_update: bool,
}

/// What is answered to a call that is good.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The enrollment profile.
    Profile(Vec<u8>),
    /// The device must update first.
    Update { os_version: String, build_version: Option<String> },
    /// A person has to sign in.
    SignIn,
}

/// Reads and checks a MachineInfo.
pub(crate) fn caller(shared: &Shared, cms: &[u8], now: Timestamp) -> Result<Caller, Error> {
    let info = machine_info::verify(cms, &shared.device_authorities, now)?;
    if let Some(signed_at) = info.signed_at {
        let skew = shared.settings.machine_info_skew;
        if signed_at > now.plus(skew) || signed_at < now.minus(skew) {
            return Err(Error::Stale);
        }
    }
    let MachineInfo { udid: Some(udid), serial: Some(serial), product, os_version, .. } = info else {
        return Err(Error::Unnamed);
    };
    Ok(Caller { serial, udid: udid.into_string(), product, os_version, can_update: info.can_request_software_update })
}

/// Answers a call. `person` is who signed in for it. The caller commits, also after [`Answer::Update`].
pub(crate) async fn answer(
    tx: &mut Tx,
    shared: &Shared,
    caller: &Caller,
    person: Option<&Person>,
    now: Timestamp,
) -> Result<Answer, Error> {
    let settings = door::load(tx, Door::Ade).await?;
    if !settings.enabled {
        return Err(Error::DoorClosed(Door::Ade));
    }
    // One call of a serial number at a time: the count below and the records that it voids belong together.
    store::ade::lock(tx, &caller.serial).await?;
    let listed = ade::at_the_call(tx, &caller.serial).await?.ok_or(Error::NotListed)?;
    if settings.require == Require::Approval && listed.device.approved_at.is_none() {
        return Err(Error::NotApproved);
    }
    let hour_ago = now.minus(Duration::from_hours(1));
    let opened = store::issuance::opened_for_serial(tx, Flow::Ade, &caller.serial, hour_ago).await?;
    if opened >= i64::from(settings.attempts_per_hour) {
        return Err(Error::TooOften);
    }
    if let Some(update) = update(tx, shared, &settings, caller, now).await? {
        return Ok(update);
    }
    let web_sign_in = listed.profile.as_ref().is_some_and(|profile| profile.web_sign_in);
    if person.is_none() && (web_sign_in || settings.asks_for_sign_in(Door::Ade)) {
        return Ok(Answer::SignIn);
    }
    profile(tx, shared, caller, &listed, person, now).await.map(Answer::Profile)
}

async fn profile(
    tx: &mut Tx,
    shared: &Shared,
    caller: &Caller,
    listed: &AtTheCall,
    person: Option<&Person>,
    now: Timestamp,
) -> Result<Vec<u8>, Error> {
    // One challenge for each answer: whoever replays a call gets a profile that the next call makes void, and the other way
    // round, and none of them is good for another serial number (TH-52).
    store::issuance::void_of_serial(tx, Flow::Ade, &caller.serial).await?;
    let shared_ipad = listed.profile.as_ref().is_some_and(|profile| profile.is_multi_user == Some(true));
    let udid = caller.udid.parse().map_err(|_| store::Error::Corrupt("sign_in.subject_of"))?;
    let mac = platform(&caller.product) == Some(Platform::Macos);
    let label = person.and_then(|person| person.label.clone());
    let label = label.or_else(|| listed.device.label.as_deref().and_then(|text| text.parse::<Label>().ok()));
    let visitor = Visitor {
        facts: DeviceFacts {
            product_name: Some(&caller.product),
            os_version: caller.os_version.as_deref(),
            ..DeviceFacts::default()
        },
        expected_serial: Some(&caller.serial),
        // A Mac has two: the one that it is provisioned by need not be the one that it checks in with.
        expected_udid: (!mac).then_some(&udid),
        label: label.as_ref(),
        ..Visitor::new(Flow::Ade, if shared_ipad { EnrollmentKind::SharedIpad } else { EnrollmentKind::Automated })
    };
    let offer = offer(tx, shared, &visitor, now).await?;
    let event = NewEvent {
        at: now,
        kind: "ade.profile_given",
        enrollment: None,
        command: None,
        actor: "device",
        summary: "A device of Automated Device Enrollment was given its enrollment profile.",
        data: &json!({
            "serial_number": caller.serial,
            "product_name": caller.product,
            "os_version": caller.os_version,
            "issuance": offer.issuance,
            "signed_in": person.map(|person| &person.account),
        }),
    };
    store::events::record(tx, &event).await?;
    tracing::info!(issuance.id = %offer.issuance, serial_number = caller.serial, "a device was given its enrollment profile");
    Ok(offer.profile)
}

fn platform(product: &str) -> Option<Platform> {
    classify(&Claims { product_name: Some(product), ..Claims::default() }).platform
}

/// What the minimum version of the door asks of this device.
async fn update(
    tx: &mut Tx,
    shared: &Shared,
    settings: &Settings,
    caller: &Caller,
    now: Timestamp,
) -> Result<Option<Answer>, Error> {
    let Some(minimum) = platform(&caller.product).and_then(|platform| settings.minimum_os.get(&platform)) else {
        return Ok(None);
    };
    let Ok(wanted) = minimum.os_version.parse::<OsVersion>() else { return Ok(None) };
    // A device that does not say its version is older than iOS 17 and macOS 14.
    let version = caller.os_version.as_deref().and_then(|text| text.parse::<OsVersion>().ok());
    if version.is_some_and(|version| version >= wanted) {
        return Ok(None);
    }
    let (kind, summary) = match (caller.can_update, minimum.cannot_update) {
        (true, _) => ("ade.update_required", "A device was told to update its system before it enrolls."),
        (false, CannotUpdate::Refuse) => return Err(Error::TooOld),
        (false, CannotUpdate::LetIn) => (
            "ade.too_old_let_in",
            "A device with a system older than the minimum was let in: it can't be told to update.",
        ),
    };
    let event = NewEvent {
        at: now,
        kind,
        enrollment: None,
        command: None,
        actor: "device",
        summary,
        data: &json!({
            "serial_number": caller.serial,
            "os_version": caller.os_version,
            "minimum": minimum.os_version,
        }),
    };
    // Nothing is opened here that would count: a device that calls again and again must not fill the log of events.
    if shared.turned_away.take(Door::Ade, EVENTS, now) {
        store::events::record(tx, &event).await?;
    }
    let told = Answer::Update { os_version: minimum.os_version.clone(), build_version: minimum.build_version.clone() };
    Ok(caller.can_update.then_some(told))
}

/// Apple's "Error Code Software Update Required" (`softwareupdate.required.yaml`), as JSON.
pub(crate) fn update_required(os_version: &str, build_version: Option<&str>) -> serde_json::Value {
    let mut details = json!({ "OSVersion": os_version });
    if let (Some(build), Some(details)) = (build_version, details.as_object_mut()) {
        details.insert("BuildVersion".to_owned(), build.into());
    }
    json!({
        "code": "com.apple.softwareupdate.required",
        "description": "The organization asks for a newer system before this device enrolls.",
        "message": format!("Please update to version {os_version} to go on."),
        "details": details,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_an_old_system_has_apples_keys() {
        let answer = update_required("18.1", Some("22B83"));
        assert_eq!(answer["code"], "com.apple.softwareupdate.required");
        assert_eq!(answer["details"], json!({ "OSVersion": "18.1", "BuildVersion": "22B83" }));
        assert_eq!(update_required("18.1", None)["details"], json!({ "OSVersion": "18.1" }));
    }
}
