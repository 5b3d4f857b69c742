//! One enrollment as the decision sees it: its facts and the values of its templates.

use mdm_core::command::device_information::Answers;
use mdm_core::enrollment::{Channel, DeviceKey};
use mdm_core::hardware::{Hardware, OsVersion};
use mdm_core::time::Timestamp;
use store::Tx;
use store::enrollments::Enrollment;

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

/// Takes in an answer to `DeviceInformation`.
pub(crate) fn learn_answers(facts: &mut Facts, answers: Answers, at: Timestamp) {
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
    learn(FactName::SerialNumber, answers.serial_number.map(FactValue::Text));
    learn(FactName::Udid, answers.udid.map(FactValue::Text));
    learn(FactName::ProvisioningUdid, answers.provisioning_udid.map(FactValue::Text));
    learn(FactName::IsAppleSilicon, answers.is_apple_silicon.map(FactValue::Flag));
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

/// What is believed of a device, as its user channel sees it: what the user channel said itself counts too.
pub(crate) fn of_user(mut device: Facts, own: Facts) -> Facts {
    let asked_at = own.asked_at;
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
