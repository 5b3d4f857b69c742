//! The identity payload of an enrollment profile, and how the device gets what it names.

use crate::acme;
use crate::acme_client::{self, Attesting};
use crate::attestation::Facts;
use crate::device::Device;
use crate::error::{Error, Result};
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
                let (identity, attested) = self.run_acme(client, request).await?;
                Ok((identity, Source::Acme { hardware_bound: request.acme.hardware_bound, attested }))
            }
        }
    }

    /// Gets a certificate by ACME; true where the key is attested.
    pub(crate) async fn run_acme(&self, client: &Client, request: &acme_client::Request) -> Result<(Identity, bool)> {
        let attests = acme::honoured(&request.acme, &self.record.situation(false)).attested;
        let attesting = match &self.attestation {
            Some(authority) if attests => Some(Attesting {
                authority,
                facts: Facts::of(&self.record),
                fault: self.behaviour.attestation_fault.clone(),
            }),
            None if attests => {
                return Err(Error::Options("Attest, but nobody attests for this device: attested_by".into()));
            }
            _ => None,
        };
        acme_client::enroll(client, request, attesting.as_ref()).await
    }
}
