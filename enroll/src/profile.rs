//! The enrollment profile: the anchors that the device needs, one SCEP payload for its identity, and the MDM payload.
//! Nothing else belongs into it.

use mdm_core::certificate::Certificate;
use mdm_core::ids::IssuanceId;
use mdm_core::profile::certificate_root::CertificateRoot;
use mdm_core::profile::mdm::{MdmPayload, Mode};
use mdm_core::profile::scep::{KeyUsage, ScepPayload};
use mdm_core::profile::{Payload, Profile, Scope};
use mdm_core::random::Random;
use mdm_core::secret::Secret;

use crate::Settings;

/// What differs from one enrollment profile to the next.
#[derive(Debug, Clone)]
pub struct Particulars {
    /// The push topic.
    pub topic: String,
    /// The one-time SCEP challenge.
    pub challenge: Secret<String>,
    /// The issuance record; part of the SCEP URL, and the common name that the device asks for. The record decides about the
    /// name in any case (TH-29).
    pub issuance: IssuanceId,
    /// Device enrollment or User Enrollment.
    pub mode: Mode,
}

/// Builds an enrollment profile.
pub fn enrollment(settings: &Settings, particulars: Particulars, random: &Random) -> Profile {
    let id = &settings.profile_identifier;
    let organization = &settings.organization;
    let roots: Vec<CertificateRoot> = settings.anchors.iter().map(|a| root(id, a, random)).collect();
    let identity = ScepPayload {
        identifier: format!("{id}.identity"),
        uuid: random.uuid_v4(),
        display_name: format!("{organization} identity"),
        url: format!("{}/{}", settings.scep_url, particulars.issuance),
        name: Some(organization.clone()),
        subject: vec![("O".into(), organization.clone()), ("CN".into(), particulars.issuance.to_string())],
        challenge: particulars.challenge,
        key_usage: KeyUsage::SigningAndEncryption,
        retries: 3,
        retry_delay: 10,
        ca_fingerprint: None,
    };
    let user = matches!(particulars.mode, Mode::User { .. });
    let mdm = MdmPayload {
        identifier: format!("{id}.mdm"),
        uuid: random.uuid_v4(),
        identity: identity.uuid,
        topic: particulars.topic,
        server_url: settings.server_url.clone(),
        check_in_url: settings.check_in_url.clone(),
        sign_message: settings.sign_message,
        use_development_apns: settings.use_development_apns,
        mode: particulars.mode,
        pinning: if settings.pin_anchors { roots.iter().map(|r| r.uuid).collect() } else { Vec::new() },
    };
    let mut payloads: Vec<Payload> = roots.into_iter().map(Payload::from).collect();
    payloads.push(identity.into());
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

/// The profile that makes a device trust this server's certificate before it enrolls.
pub fn trust(settings: &Settings, random: &Random) -> Profile {
    let id = format!("{}.trust", settings.profile_identifier);
    let payloads = settings.anchors.iter().map(|a| root(&id, a, random).into()).collect();
    Profile {
        uuid: random.uuid_v4(),
        display_name: format!("{} certificate authority", settings.organization),
        organization: Some(settings.organization.clone()),
        description: Some("Lets this device recognize the organization's own servers.".to_owned()),
        scope: Some(Scope::System),
        removal_disallowed: false,
        identifier: id,
        payloads,
    }
}

fn root(profile_identifier: &str, anchor: &Certificate, random: &Random) -> CertificateRoot {
    // By its fingerprint, so that a profile of the same identifier replaces each anchor by itself.
    let fingerprint = anchor.fingerprint().to_string();
    CertificateRoot {
        identifier: format!("{profile_identifier}.root.{}", fingerprint.get(..16).unwrap_or_default()),
        uuid: random.uuid_v4(),
        display_name: anchor.common_name().unwrap_or_else(|| "Certificate authority".to_owned()),
        der: anchor.der().to_vec(),
    }
}
