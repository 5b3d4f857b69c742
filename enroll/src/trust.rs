//! How a device comes to trust this server where the certificate is not of a public CA: the page with the fingerprint, the
//! profile that makes a device trust the CA before it enrolls, and what Apple Configurator asks for.

mod page;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mdm_core::certificate::Certificate;
use mdm_core::enrollment::Door;
use mdm_core::profile::certificate_root::CertificateRoot;
use mdm_core::profile::{Profile, Scope};
use mdm_core::random::Random;
use serde::Serialize;
use store::Tx;

use crate::http::{download, failed};
use crate::{Error, Settings, Shared};

/// Most devices of a pilot.
pub const PILOT_DEVICES: i64 = 25;

/// What kind of trust the server lives on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// The TLS certificate is of a public CA: devices need nothing to trust it.
    pub public: bool,
    /// A trial, with a banner on every page, few devices and no account-driven enrollment.
    pub pilot: bool,
}

/// JSON: SHA-256 of each anchor, in the order of the settings.
pub fn anchors_json(settings: &Settings) -> String {
    let anchors: Vec<_> = settings.anchors.iter().map(Certificate::fingerprint).collect();
    store::anchors::write(&anchors)
}

/// Refuses one more device where the server is a pilot that is full, or where the door is not for a pilot.
pub async fn room(tx: &mut Tx, settings: &Settings, door: Door) -> Result<(), Error> {
    if matches!(door, Door::Byod | Door::Adde) {
        account_driven(settings)?;
    }
    if settings.trust.pilot {
        let live = store::anchors::live(tx).await?;
        if live >= PILOT_DEVICES {
            return Err(Error::PilotFull(live));
        }
    }
    Ok(())
}

/// Refuses account-driven enrollment where the server is a pilot: people would type their password where nobody vouches for
/// the server.
pub fn account_driven(settings: &Settings) -> Result<(), Error> {
    if settings.trust.pilot { Err(Error::PilotAccount) } else { Ok(()) }
}

pub(crate) async fn show_trust(State(shared): State<Shared>) -> Response {
    if shared.settings.gives_anchors() {
        page::trust(&shared.settings).into_response()
    } else {
        (StatusCode::NOT_FOUND, page::no_trust(&shared.settings)).into_response()
    }
}

pub(crate) async fn trust_profile(State(shared): State<Shared>) -> Response {
    if !shared.settings.gives_anchors() {
        return (StatusCode::NOT_FOUND, page::no_trust(&shared.settings)).into_response();
    }
    let plain = profile(&shared.settings, &shared.random).encode();
    match shared.sign(plain, shared.clock.now()) {
        Ok(bytes) => download(bytes, "trust.mobileconfig"),
        Err(e) => failed(&shared, &e),
    }
}

/// What Apple Configurator asks a server for (Apple, "Providing information about your device management service").
#[derive(Debug, Serialize)]
struct ServiceConfig {
    dep_enrollment_url: String,
    /// There even where no anchors are needed; what is there is an empty array then.
    dep_anchor_certs_url: String,
    /// Only where it leads to a profile with something in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    trust_profile_url: Option<String>,
}

pub(crate) async fn service_config(State(shared): State<Shared>) -> Response {
    let settings = &shared.settings;
    let url = |path: &str| settings.public_url.join(path).map(String::from).unwrap_or_default();
    apple_json(ServiceConfig {
        dep_enrollment_url: url("/ade/enroll"),
        dep_anchor_certs_url: url("/trust/anchors"),
        trust_profile_url: settings.gives_anchors().then(|| url("/trust/profile")),
    })
}

/// The anchors as `anchor_certs` of a profile for Automated Device Enrollment has them.
pub(crate) async fn anchor_certificates(State(shared): State<Shared>) -> Response {
    apple_json(anchor_certs(&shared.settings))
}

/// `anchor_certs`: each anchor's DER in base64; none where the certificate is of a public CA.
pub fn anchor_certs(settings: &Settings) -> Vec<String> {
    let needed: &[Certificate] = if settings.gives_anchors() { &settings.anchors } else { &[] };
    needed.iter().map(|anchor| STANDARD.encode(anchor.der())).collect()
}

/// JSON with the Content-Type that Apple's page asks for.
fn apple_json(body: impl Serialize) -> Response {
    ([(header::CONTENT_TYPE, "application/json; charset=UTF8")], Json(body)).into_response()
}

/// The profile that makes a device trust this server's certificate before it enrolls. It has nothing but root certificates,
/// as Apple Configurator demands of it.
pub fn profile(settings: &Settings, random: &Random) -> Profile {
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

pub(crate) fn root(profile_identifier: &str, anchor: &Certificate, random: &Random) -> CertificateRoot {
    // By its fingerprint, so that a profile of the same identifier replaces each anchor by itself.
    let fingerprint = anchor.fingerprint().to_string();
    CertificateRoot {
        identifier: format!("{profile_identifier}.root.{}", fingerprint.get(..16).unwrap_or_default()),
        uuid: random.uuid_v4(),
        display_name: anchor.common_name().unwrap_or_else(|| "Certificate authority".to_owned()),
        der: anchor.der().to_vec(),
    }
}
