//! The server's own CA, where it has one: the page with its fingerprint, and the profile that makes a device trust it before
//! it enrolls.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mdm_core::certificate::Certificate;
use mdm_core::profile::certificate_root::CertificateRoot;
use mdm_core::profile::{Profile, Scope};
use mdm_core::random::Random;
use store::Tx;

use crate::http::{download, failed};
use crate::{Error, Settings, Shared, page};

/// JSON: SHA-256 of each anchor, in the order of the settings.
pub fn anchors_json(settings: &Settings) -> String {
    let anchors: Vec<String> = settings.anchors.iter().map(|a| a.fingerprint().to_string()).collect();
    serde_json::to_string(&anchors).expect("texts are JSON")
}

/// Whether one more device may enroll.
#[expect(clippy::unused_async, reason = "a limit for trial servers counts the enrollments")]
pub async fn room(_tx: &mut Tx, _settings: &Settings) -> Result<(), Error> {
    Ok(())
}

pub(crate) async fn show_trust(State(shared): State<Shared>) -> Response {
    if shared.settings.anchors.is_empty() {
        return (StatusCode::NOT_FOUND, page::no_trust(&shared.settings)).into_response();
    }
    page::trust(&shared.settings).into_response()
}

pub(crate) async fn trust_profile(State(shared): State<Shared>) -> Response {
    if shared.settings.anchors.is_empty() {
        return (StatusCode::NOT_FOUND, page::no_trust(&shared.settings)).into_response();
    }
    let plain = profile(&shared.settings, &shared.random).encode();
    match shared.sign(plain, shared.clock.now()) {
        Ok(bytes) => download(bytes, "trust.mobileconfig"),
        Err(e) => failed(&shared, &e),
    }
}

/// The profile that makes a device trust this server's certificate before it enrolls.
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
