//! Push certificates.

pub(crate) mod list;
pub(crate) mod put;

use push::cert::PushCertInfo;
use serde::Serialize;
use utoipa::ToSchema;

use crate::when::When;

/// A push certificate, without its key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PushCert {
    /// Its topic.
    #[schema(example = "com.apple.mgmt.External.0b6e…")]
    topic: String,
    /// Its subject.
    subject: String,
    /// Its issuer.
    issuer: String,
    /// Serial number, hexadecimal.
    serial: String,
    /// SHA-256 of its DER, hexadecimal.
    sha256: String,
    /// When it begins.
    not_before: When,
    /// When it ends. Renew it before, with the same Apple Account.
    not_after: When,
    /// When it was uploaded.
    uploaded_at: When,
    /// When APNs refused it; pushes of this topic rest until a new one is uploaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_at: Option<When>,
    /// Why APNs refused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_why: Option<String>,
}

impl From<PushCertInfo> for PushCert {
    fn from(info: PushCertInfo) -> Self {
        Self {
            topic: info.topic,
            subject: info.subject,
            issuer: info.issuer,
            serial: info.serial,
            sha256: info.sha256,
            not_before: info.not_before.into(),
            not_after: info.not_after.into(),
            uploaded_at: info.uploaded_at.into(),
            stopped_at: info.stopped_at.map(When),
            stopped_why: info.stopped_why,
        }
    }
}
