//! One enrollment as the decision sees it: its facts and the values of its templates.

use mdm_core::command::device_information::Answers;
use mdm_core::enrollment::{Channel, DeviceKey, EnrollmentKind};
use mdm_core::hardware::{Hardware, OsVersion};
use mdm_core::time::Timestamp;
use store::Tx;
use store::enrollments::Enrollment;
use store::events::{self, NewEvent};

use crate::decision::Target;
use crate::error::{Result, corrupt};
use crate::facts::{FactName, FactValue, Facts, Source};
use crate::gate;
use crate::template::{Values, Variable};

/// The device's word in `Authenticate`.
pub(crate) fn from_authenticate(enrollment: &Enrollment) -> Facts {
    let at = enrollment.enrolled_at.unwrap_or(enrollment.created_at);
    let mut facts = Facts::default();
    let mut learn = |name, text: &Option<String>| {
        if let Some(text) = text {
            facts.learn(name, FactValue::Text(text.clone()), Source::Authenticate, at);
        }
    };
    learn(FactName::ProductName, &enrollment.product_name);
    learn(FactName::OsVersion, &enrollment.os_version);
    learn(FactName::BuildVersion, &enrollment.build_version);
    learn(FactName::Model, &enrollment.model);
    learn(FactName::ModelName, &enrollment.model_name);
    learn(FactName::DeviceName, &enrollment.device_name);
    learn(FactName::SerialNumber, &enrollment.serial_number);
    if let Some(DeviceKey::Udid(udid)) = &enrollment.device_key {
        facts.learn(FactName::Udid, FactValue::Text(udid.to_string()), Source::Authenticate, at);
    }
    facts
}

/// What identifies a device.
const IDENTIFIERS: [FactName; 3] = [FactName::SerialNumber, FactName::Udid, FactName::ProvisioningUdid];

/// Takes in an answer to `DeviceInformation`. What it says otherwise of what identifies the device is an event, once.
pub(crate) async fn learn_answers(
    tx: &mut Tx,
    enrollment: &Enrollment,
    facts: &mut Facts,
    answers: Answers,
    now: Timestamp,
) -> Result<()> {
    let differ = take_in(enrollment, facts, answers, now);
    if differ.is_empty() {
        return Ok(());
    }
    tracing::warn!(enrollment.id = %enrollment.id, "a device says that it is another one than has enrolled");
    let event = NewEvent {
        at: now,
        kind: "facts.identity_differs",
        enrollment: Some(enrollment.id),
        command: None,
        actor: "device",
        summary: "The device claims another identity than it enrolled with; the claim is not used",
        data: &serde_json::json!({ "facts": differ }),
    };
    Ok(events::record(tx, &event).await?)
}

/// Takes in an answer; gives what it says otherwise of what identifies the device, for the first time.
fn take_in(enrollment: &Enrollment, facts: &mut Facts, answers: Answers, at: Timestamp) -> Vec<FactName> {
    let claims = [&answers.serial_number, &answers.udid, &answers.provisioning_udid];
    let differ = identify(enrollment, facts, claims, at);
    let mut learn = |name, value: Option<FactValue>| {
        if let Some(value) = value {
            facts.learn(name, value, Source::DeviceInformation, at);
        }
    };
    learn(FactName::ProductName, answers.product_name.map(FactValue::Text));
    learn(FactName::OsVersion, answers.os_version.map(FactValue::Text));
    learn(FactName::BuildVersion, answers.build_version.map(FactValue::Text));
    learn(FactName::Model, answers.model.map(FactValue::Text));
    learn(FactName::ModelName, answers.model_name.map(FactValue::Text));
    learn(FactName::IsAppleSilicon, answers.is_apple_silicon.map(FactValue::Flag));
    differ
}

/// Serial number and UDID are fixed by `Authenticate`, whose word was compared with what the enrollment profile was issued for; of
/// what it does not say, the first claim counts. A user channel and User Enrollment name no device.
fn identify(enrollment: &Enrollment, facts: &mut Facts, claims: [&Option<String>; 3], at: Timestamp) -> Vec<FactName> {
    let mut differ = Vec::new();
    if enrollment.channel == Channel::User || enrollment.kind == EnrollmentKind::User {
        return differ;
    }
    let mut enrolled = from_authenticate(enrollment);
    for (name, claim) in IDENTIFIERS.into_iter().zip(claims) {
        if let Some(fixed) = enrolled.known.remove(&name) {
            facts.known.insert(name, fixed);
        }
        let Some(claim) = claim.as_deref().filter(|claim| !claim.is_empty()) else { continue };
        if !facts.learn_once(name, claim, Source::DeviceInformation, at) && facts.differs.insert(name) {
            differ.push(name);
        }
    }
    differ
}

/// The stored facts of one enrollment alone.
pub(crate) async fn stored(tx: &mut Tx, enrollment: &Enrollment) -> Result<Facts> {
    match store::facts::get(tx, enrollment.id).await? {
        Some(body) => serde_json::from_str(&body).map_err(|_| corrupt("facts")),
        None => Ok(from_authenticate(enrollment)),
    }
}

pub(crate) async fn save(tx: &mut Tx, enrollment: &Enrollment, facts: &Facts, now: Timestamp) -> Result<()> {
    let body = serde_json::to_string(facts).map_err(|_| corrupt("facts"))?;
    store::facts::put(tx, enrollment.id, &body, now).await?;
    Ok(())
}

/// What is believed of the device behind an enrollment. A user channel knows what its device channel knows; whether it
/// was asked is its own affair.
pub async fn facts_of(tx: &mut Tx, enrollment: &Enrollment) -> Result<Facts> {
    let own = stored(tx, enrollment).await?;
    match device_of(tx, enrollment).await? {
        None => Ok(own),
        Some(device) => Ok(of_user(stored(tx, &device).await?, own)),
    }
}

/// The facts in a stored document. Where it cannot be read, what `Authenticate` said: one bad row holds up nobody else.
pub(crate) fn read(body: Option<&str>, enrollment: &Enrollment) -> Facts {
    let Some(body) = body else { return from_authenticate(enrollment) };
    serde_json::from_str(body).unwrap_or_else(|_| {
        tracing::error!(enrollment.id = %enrollment.id, "the stored facts of an enrollment cannot be read");
        from_authenticate(enrollment)
    })
}

/// What is believed of a device, as its user channel sees it: what the user channel said itself counts too, but not who it is.
pub(crate) fn of_user(mut device: Facts, mut own: Facts) -> Facts {
    let asked_at = own.asked_at;
    own.known.retain(|name, _| !IDENTIFIERS.contains(name));
    device.merge(own);
    Facts { asked_at, ..device }
}

/// The device channel of a user channel.
async fn device_of(tx: &mut Tx, enrollment: &Enrollment) -> Result<Option<Enrollment>> {
    match enrollment.parent {
        Some(parent) if enrollment.channel == Channel::User => Ok(store::enrollments::get(tx, parent).await?),
        _ => Ok(None),
    }
}

/// What a device is, by its facts.
pub(crate) fn device(enrollment: &Enrollment, facts: &Facts, now: Timestamp) -> (Hardware, Option<OsVersion>) {
    let values = Values::default();
    let target = Target { kind: enrollment.kind, channel: enrollment.channel, facts, values: &values, now };
    let gate_facts = target.gate_facts();
    (gate::hardware(&gate_facts), gate_facts.os_version)
}

/// The values of templates, from the facts and the enrollment itself.
pub fn values(enrollment: &Enrollment, facts: &Facts, random: &str) -> Values {
    let mut values = Values::default();
    let facts_of = [
        (Variable::Serial, FactName::SerialNumber),
        (Variable::Udid, FactName::Udid),
        (Variable::ProvisioningUdid, FactName::ProvisioningUdid),
        (Variable::ProductName, FactName::ProductName),
        (Variable::Model, FactName::Model),
        (Variable::ModelName, FactName::ModelName),
        (Variable::DeviceName, FactName::DeviceName),
        (Variable::OsVersion, FactName::OsVersion),
    ];
    for (variable, fact) in facts_of {
        values.set(variable, facts.text(fact));
    }
    values.set(Variable::EnrollmentId, Some(&enrollment.id.to_string()));
    values.set(Variable::Random, Some(random));
    values.set(Variable::UserShortName, enrollment.user_short_name.as_deref());
    values.set(Variable::UserLongName, enrollment.user_long_name.as_deref());
    values
}
