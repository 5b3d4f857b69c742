//! The enrollment profile: the anchors that the device needs, one payload for its identity, and the MDM payload. Nothing else
//! belongs into it.

use mdm_core::ids::IssuanceId;
use mdm_core::profile::acme::AcmePayload;
use mdm_core::profile::certificate_root::CertificateRoot;
use mdm_core::profile::mdm::{MdmPayload, Mode};
use mdm_core::profile::scep::{KeyUsage, ScepPayload};
use mdm_core::profile::{Payload, Profile, Scope};
use mdm_core::random::Random;
use mdm_core::secret::Secret;
use uuid::Uuid;

use crate::{Settings, trust};

/// Where the device gets its identity.
#[derive(Debug, Clone)]
pub enum Identity {
    /// From our SCEP server.
    Scep {
        /// The one-time challenge.
        challenge: Secret<String>,
    },
    /// From an ACME server.
    Acme(Box<AcmePayload>),
}

/// What differs from one enrollment profile to the next.
#[derive(Debug, Clone)]
pub struct Particulars {
    /// The push topic.
    pub topic: String,
    /// The issuance record; with SCEP part of the URL, and the common name that the device asks for. The record decides about
    /// the name in any case (TH-29).
    pub issuance: IssuanceId,
    /// Where the device gets its identity.
    pub identity: Identity,
    /// By which mode the device is managed.
    pub mode: Mode,
    /// `ServerURL`.
    pub server_url: String,
    /// `CheckInURL`.
    pub check_in_url: String,
}

/// Builds an enrollment profile.
pub fn enrollment(settings: &Settings, particulars: Particulars, random: &Random) -> Profile {
    let id = &settings.profile_identifier;
    let organization = &settings.organization;
    let roots: Vec<CertificateRoot> = settings.anchors.iter().map(|a| trust::root(id, a, random)).collect();
    let identity_uuid = random.uuid_v4();
    let identity = identity(settings, particulars.identity, particulars.issuance, identity_uuid);
    let user = matches!(particulars.mode, Mode::User { .. });
    let mdm = MdmPayload {
        identifier: format!("{id}.mdm"),
        uuid: random.uuid_v4(),
        identity: identity_uuid,
        topic: particulars.topic,
        server_url: particulars.server_url,
        check_in_url: particulars.check_in_url,
        sign_message: settings.sign_message,
        use_development_apns: settings.use_development_apns,
        mode: particulars.mode,
        pinning: if settings.pin_anchors { roots.iter().map(|r| r.uuid).collect() } else { Vec::new() },
        pinning_revocation_check: settings.pin_anchors && settings.pin_revocation_required,
    };
    let mut payloads: Vec<Payload> = roots.into_iter().map(Payload::from).collect();
    payloads.push(identity);
    payloads.push(mdm.into());
    Profile {
        identifier: id.clone(),
        uuid: random.uuid_v4(),
        display_name: format!("{organization} device management"),
        organization: Some(organization.clone()),
        description: Some(format!("Lets {organization} manage this device.")),
        // A Mac installs an enrollment for the whole device; in User Enrollment it is the person's.
        scope: (!user).then_some(Scope::System),
        removal_disallowed: false,
        payloads,
    }
}

fn identity(settings: &Settings, identity: Identity, issuance: IssuanceId, uuid: Uuid) -> Payload {
    let organization = &settings.organization;
    // The same identifier for both: a renewal that moves from SCEP to ACME replaces the one by the other.
    let identifier = format!("{}.identity", settings.profile_identifier);
    let display_name = format!("{organization} identity");
    match identity {
        Identity::Acme(payload) => payload.payload(identifier, uuid, Some(display_name)),
        Identity::Scep { challenge } => ScepPayload {
            identifier,
            uuid,
            display_name,
            url: format!("{}/{issuance}", settings.scep_url),
            name: Some(organization.clone()),
            subject: vec![("O".into(), organization.clone()), ("CN".into(), issuance.to_string())],
            challenge,
            key_usage: KeyUsage::SigningAndEncryption,
            retries: 3,
            retry_delay: 10,
            ca_fingerprint: None,
        }
        .into(),
    }
}
