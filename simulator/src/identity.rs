//! The identity payload of an enrollment profile, and how the device gets what it names.

use crate::acme_client;
use crate::attestation::Facts;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::hardware::Attestation;
use crate::http::Client;
use crate::scep::{self, Strength};
use crate::signature::Identity;

/// The payload to which `IdentityCertificateUUID` points.
#[derive(Debug, Clone)]
pub enum IdentityPayload {
    /// `com.apple.security.scep`.
    Scep(scep::Request),
    /// `com.apple.security.acme`.
    Acme(acme_client::Request),
}

impl IdentityPayload {
    /// Where the device turns to.
    pub(crate) fn url_mut(&mut self) -> &mut String {
        match self {
            Self::Scep(request) => &mut request.url,
            Self::Acme(request) => &mut request.acme.directory_url,
        }
    }
}

/// Where the device's identity came from, as the device itself knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// By SCEP; the key lies in a keychain.
    Scep,
    /// By ACME.
    Acme {
        /// The key was made in the Secure Enclave.
        hardware_bound: bool,
        /// The silicon attested it.
        attested: bool,
    },
}

impl Device {
    /// Gets a new key and a certificate for it.
    pub(crate) async fn request_identity(
        &self,
        client: &Client,
        payload: &IdentityPayload,
    ) -> Result<(Identity, Source)> {
        match payload {
            IdentityPayload::Scep(request) => {
                let request = scep::Request { key: self.ready_key.clone(), ..request.clone() };
                Ok((scep::enroll(client, &request, Strength::Today).await?, Source::Scep))
            }
            IdentityPayload::Acme(request) => {
                let attests =
                    request.acme.attest == Some(true) && self.record.hardware.attestation == Attestation::Supported;
                let facts = Facts::of(&self.record);
                let attesting = match &self.attestation {
                    Some(authority) if attests => Some((authority, &facts)),
                    None if attests => {
                        return Err(Error::Options("Attest, but nobody attests for this device: attested_by".into()));
                    }
                    _ => None,
                };
                let identity = acme_client::enroll(client, request, attesting).await?;
                Ok((identity, Source::Acme { hardware_bound: request.acme.hardware_bound, attested: attests }))
            }
        }
    }
}
