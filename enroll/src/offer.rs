//! The one function that decides on an identity and builds an enrollment profile. Links, Automated Device Enrollment,
//! account-driven enrollment and renewal all call it, so that no way leads around a door's settings (TH-48).

use mdm_core::enrollment::{Door, EnrollmentKind};
use mdm_core::ids::{EnrollmentId, IssuanceId, Label, LinkId, Udid};
use mdm_core::profile::acme::{AcmeKeys, AcmePayload, SubjectAltName};
use mdm_core::profile::mdm::Mode;
use mdm_core::rate::Rate;
use mdm_core::time::Timestamp;
use policy::facts::FactName;
use policy::gate::Open;
use policy::reason::ReasonCode;
use serde_json::json;
use store::Tx;
use store::enrollments::Enrollment;
use store::events::NewEvent;
use store::issuance::{Details, Flow, Purpose};
use url::Url;
use uuid::Uuid;

use crate::door::{self, ClientIdentifier};
use crate::identity::{self, ChosenIdentity, Device, DeviceFacts, Form};
use crate::profile::{self, Identity, Particulars};
use crate::{Error, Shared, trust};

/// Who asks for an enrollment profile. The door, and the mode that the profile names, follow from `flow`.
#[derive(Debug, Clone, Copy)]
pub struct Visitor<'a> {
    /// By which flow; also whom the issuance record is for (TH-54).
    pub flow: Flow,
    /// Which kind of enrollment it leads to. Not read for a renewal: there it is the enrollment's.
    pub kind: EnrollmentKind,
    /// What is known of the device. Not read for a renewal.
    pub facts: DeviceFacts<'a>,
    /// Only this serial number may use the profile.
    pub expected_serial: Option<&'a str>,
    /// Only this UDID may use it.
    pub expected_udid: Option<&'a Udid>,
    /// `AssignedManagedAppleID`; a must for account-driven enrollment and for User Enrollment.
    pub managed_apple_account: Option<&'a str>,
    /// The link that was opened.
    pub link: Option<LinkId>,
    /// The bearer token that the profile is fetched with. Older profiles fetched with it are void.
    pub account_token: Option<Uuid>,
    /// The enrollment whose identity is renewed ([`Flow::Renewal`]), or that may be replaced.
    pub enrollment: Option<EnrollmentId>,
    /// Put on the enrollment that comes of it; the door's own label is put on as well.
    pub label: Option<&'a Label>,
}

impl Visitor<'_> {
    /// Somebody of whom nothing is known.
    pub fn new(flow: Flow, kind: EnrollmentKind) -> Self {
        Self {
            flow,
            kind,
            facts: DeviceFacts::default(),
            expected_serial: None,
            expected_udid: None,
            managed_apple_account: None,
            link: None,
            account_token: None,
            enrollment: None,
            label: None,
        }
    }
}

/// An enrollment profile, ready to be handed out.
#[derive(Debug)]
pub struct Offer {
    /// The profile: signed, or as it is where the server signs none. It holds a one-time secret.
    pub profile: Vec<u8>,
    /// The record that its identity certificate is issued for.
    pub issuance: IssuanceId,
    /// Which identity, and why.
    pub identity: ChosenIdentity,
}

/// What of the old enrollment a renewal must not change.
struct Renewed {
    enrollment: Enrollment,
    facts: policy::facts::Facts,
    udid: Option<Udid>,
}

/// Decides on the identity, opens the issuance record and builds the profile. The caller commits, then hands out the profile;
/// after an error it commits nothing, and calls [`refused`].
///
/// # Panics
/// Never: a choice can always be written as JSON.
pub async fn offer(tx: &mut Tx, shared: &Shared, visitor: &Visitor<'_>, now: Timestamp) -> Result<Offer, Error> {
    let renewed = renewed(tx, visitor).await?;
    let door = match (&renewed, visitor.flow) {
        (Some(renewed), _) => renewed.enrollment.door,
        (None, Flow::Link) => Door::Link,
        (None, Flow::Ade) => Door::Ade,
        (None, Flow::Byod) => Door::Byod,
        (None, Flow::Adde) => Door::Adde,
        (None, Flow::Renewal | Flow::Import) => return Err(Error::Visitor("a renewal names its enrollment")),
    };
    let settings = door::load(tx, door).await?;
    if renewed.is_none() {
        if !settings.enabled {
            return Err(Error::DoorClosed(door));
        }
        trust::room(tx, &shared.settings, door).await?;
    }
    let device = device(visitor, renewed.as_ref());
    let choice = identity::choose(&settings, &device).map_err(|refused| Error::IdentityRefused(door, refused.0))?;
    let account = match &renewed {
        Some(renewed) => renewed.enrollment.managed_apple_account.as_deref(),
        None => visitor.managed_apple_account,
    };
    let mode = mode(door, device.kind, account)?;
    let topic = match renewed.as_ref().and_then(|r| r.enrollment.topic.clone()) {
        Some(topic) => topic,
        None => newest_topic(tx, now).await?,
    };

    if let Some(token) = visitor.account_token {
        store::issuance::void_of_account_token(tx, token).await?;
    }
    let reason = serde_json::to_string(&choice.identity).expect("a choice is JSON");
    let anchors = trust::anchors_json(&shared.settings);
    let wanted = issuer::issuance::OpenIssuance {
        flow: visitor.flow,
        purpose: if renewed.is_some() { Purpose::Renewal } else { Purpose::Enrollment },
        kind: device.kind,
        enrollment_id: visitor.enrollment,
        link_id: visitor.link,
        expected_serial: visitor.expected_serial,
        expected_udid: visitor.expected_udid,
        label: visitor.label,
        ttl: shared.settings.challenge_life,
        details: Details {
            acme: None,
            identity_reason: Some(&reason),
            account_token: visitor.account_token,
            managed_apple_account: account,
            anchors: Some(&anchors),
        },
    };
    let (issuance, payload) = match &choice.form {
        Form::Scep => {
            let (id, challenge) = issuer::issuance::open(tx, &shared.random, now, &wanted).await?;
            (id, Identity::Scep { challenge })
        }
        Form::Acme(open) => {
            let acme = settings.identity.acme.as_ref().ok_or(Error::Visitor("the door has no ACME server"))?;
            let name = client_identifier(acme, &device, shared)?;
            let payload = acme_payload(shared, acme, open, &name)
                .ok_or(Error::IdentityRefused(door, ReasonCode::PayloadInvalid))?;
            let id = issuer::issuance::open_acme(tx, &shared.random, now, &wanted, &name).await?;
            (id, Identity::Acme(Box::new(payload)))
        }
    };
    let (server_url, check_in_url) = urls(shared, renewed.as_ref());
    let particulars = Particulars { topic, issuance, identity: payload, mode, server_url, check_in_url };
    let plain = profile::enrollment(&shared.settings, particulars, &shared.random).encode();
    let profile = shared.sign(plain, now)?;
    tell(tx, visitor, door, issuance, &choice.identity, now).await?;
    Ok(Offer { profile, issuance, identity: choice.identity })
}

async fn renewed(tx: &mut Tx, visitor: &Visitor<'_>) -> Result<Option<Renewed>, Error> {
    let (Flow::Renewal, Some(id)) = (visitor.flow, visitor.enrollment) else { return Ok(None) };
    let missing = Error::Visitor("a renewal names an enrollment that exists");
    let enrollment = store::enrollments::get(tx, id).await?.ok_or(missing)?;
    let facts = policy::facts_of(tx, &enrollment).await?;
    let udid = match &enrollment.device_key {
        Some(mdm_core::enrollment::DeviceKey::Udid(udid)) => Some(udid.clone()),
        _ => None,
    };
    Ok(Some(Renewed { enrollment, facts, udid }))
}

/// The device as the choice of its identity looks at it.
fn device<'a>(visitor: &Visitor<'a>, renewed: Option<&'a Renewed>) -> Device<'a> {
    let Some(Renewed { enrollment, facts, udid }) = renewed else {
        return Device {
            kind: visitor.kind,
            facts: visitor.facts,
            serial: visitor.expected_serial,
            udid: visitor.expected_udid,
        };
    };
    let known = |fact, column: &'a Option<String>| facts.text(fact).or(column.as_deref());
    Device {
        kind: enrollment.kind,
        facts: DeviceFacts {
            product_name: known(FactName::ProductName, &enrollment.product_name),
            os_version: known(FactName::OsVersion, &enrollment.os_version),
            model: known(FactName::Model, &enrollment.model),
            model_name: known(FactName::ModelName, &enrollment.model_name),
            is_apple_silicon: facts.flag(FactName::IsAppleSilicon),
        },
        serial: enrollment.serial_number.as_deref(),
        udid: udid.as_ref(),
    }
}

/// By which mode the profile manages the device.
fn mode(door: Door, kind: EnrollmentKind, account: Option<&str>) -> Result<Mode, Error> {
    let account = || {
        let missing = Error::Visitor("this kind of enrollment needs a Managed Apple Account");
        Ok::<_, Error>(account.ok_or(missing)?.to_owned())
    };
    match (door, kind) {
        (Door::Byod, _) | (_, EnrollmentKind::User) => Ok(Mode::User { managed_apple_id: account()? }),
        (Door::Adde, _) => Ok(Mode::AccountDevice { managed_apple_id: account()? }),
        (Door::Link | Door::Ade | Door::Import, _) => Ok(Mode::Device),
    }
}

/// The push topic of new enrollments: of the certificate that was uploaded last and still works.
async fn newest_topic(tx: &mut Tx, now: Timestamp) -> Result<String, Error> {
    let certs = store::push::certs(tx).await?;
    let usable = certs.into_iter().filter(|c| c.stopped_at.is_none() && c.not_after > now.0);
    usable.max_by_key(|c| c.uploaded_at).map(|c| c.topic).ok_or(Error::NoPushCertificate)
}

fn client_identifier(acme: &door::Acme, device: &Device<'_>, shared: &Shared) -> Result<String, Error> {
    let missing = Error::Visitor("the device's name is not known");
    match acme.client_identifier {
        ClientIdentifier::Random => Ok(shared.random.token()),
        ClientIdentifier::Serial => device.serial.map(str::to_owned).ok_or(missing),
        ClientIdentifier::Udid => device.udid.map(|udid| udid.as_str().to_owned()).ok_or(missing),
    }
}

/// The payload in the form that the gate allows. Its common name is `ClientIdentifier`, because ACME servers that check an
/// attestation accept no other.
fn acme_payload(shared: &Shared, acme: &door::Acme, open: &Open, client_identifier: &str) -> Option<AcmePayload> {
    const CLIENT_AUTH: &str = "1.3.6.1.5.5.7.3.2";
    let pair = |kind: &str, value: &str| vec![vec![kind.to_owned(), value.to_owned()]];
    let keys = AcmeKeys {
        directory_url: acme.directory_url.clone(),
        client_identifier: client_identifier.to_owned(),
        key_type: acme.key_type.clone(),
        key_size: acme.key_size,
        hardware_bound: open.hardware_bound,
        subject: vec![pair("O", &shared.settings.organization), pair("CN", client_identifier)],
        subject_alt_name: SubjectAltName::default(),
        usage_flags: Some(1),
        extended_key_usage: vec![CLIENT_AUTH.to_owned()],
        attest: open.attest,
        mac: open.mac,
    };
    AcmePayload::new(keys, open.platform).ok()
}

/// `ServerURL` and `CheckInURL`: an update of the profile may not change them, whatever the server is called today.
fn urls(shared: &Shared, renewed: Option<&Renewed>) -> (String, String) {
    let settings = &shared.settings;
    let own = || (settings.server_url.clone(), settings.check_in_url.clone());
    let Some(old) = renewed.and_then(|r| r.enrollment.server_url.clone()).filter(|url| *url != settings.server_url)
    else {
        return own();
    };
    let moved = Url::parse(&old).ok().zip(Url::parse(&settings.check_in_url).ok());
    match moved {
        Some((mut url, check_in)) => {
            url.set_path(check_in.path());
            (old, url.into())
        }
        None => own(),
    }
}

async fn tell(
    tx: &mut Tx,
    visitor: &Visitor<'_>,
    door: Door,
    issuance: IssuanceId,
    chosen: &ChosenIdentity,
    now: Timestamp,
) -> Result<(), Error> {
    let source = chosen.source.as_str();
    let notes: Vec<&str> = chosen.notes.iter().map(|code| code.as_str()).collect();
    let why = notes.join(" ");
    tracing::info!(issuance.id = %issuance, door = %door, identity = source, why, "an identity was chosen");
    let summary = match (chosen.preferred, chosen.would) {
        (true, _) => "The identity for an enrollment profile was chosen.",
        (false, None) => "The device cannot have the identity that the door prefers; it was given the other one.",
        (false, Some(_)) => {
            "The device would have been refused; the door only reports, so it was given the other identity."
        }
    };
    let event = NewEvent {
        at: now,
        kind: if chosen.preferred { "identity.chosen" } else { "identity.fell_back" },
        enrollment: visitor.enrollment,
        command: None,
        actor: "server",
        summary,
        data: &json!({
            "door": door.as_str(),
            "flow": visitor.flow.as_str(),
            "issuance": issuance,
            "serial_number": visitor.expected_serial,
            "identity": chosen,
        }),
    };
    Ok(store::events::record(tx, &event).await?)
}

/// How often it is written as an event, at each door: the log has them all, the database must not be filled by strangers.
pub(crate) const EVENTS: Rate = Rate { burst: 60, per_second: 0.1 };

/// Says in the log and in an event that somebody was turned away; in a transaction of its own, because the visitor's was
/// given up. Does nothing for an error of ours.
pub async fn refused(shared: &Shared, door: Door, serial_number: Option<&str>, error: &Error) {
    let Some(reason) = error.refusal() else { return };
    let why = error.to_string();
    tracing::warn!(door = %door, reason, why, serial_number, "no enrollment profile was given out");
    if !shared.turned_away.take(door, EVENTS, shared.clock.now()) {
        return;
    }
    let event = NewEvent {
        at: shared.clock.now(),
        kind: "enrollment.turned_away",
        enrollment: None,
        command: None,
        actor: "device",
        summary: "Somebody asked for an enrollment profile and was turned away.",
        data: &json!({ "door": door.as_str(), "reason": reason, "why": why, "serial_number": serial_number }),
    };
    store::events::record_alone(&shared.store, &event).await;
}
