//! The services of others, as stand-ins on loopback: APNs, Apple's device service, an ACME server, an OpenID Connect
//! provider; and Apple as the maker of the devices, who signs for them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use simulator::acme_ca::{self, AcmeCa};
use simulator::ade_service::{AdeService, Portal};
use simulator::apns::ApnsStandIn;
use simulator::attestation;
use simulator::authority::Authority;
use simulator::device::{Behaviour, Device, Record};
use simulator::http::Trust;
use simulator::machine_info::DeviceCa;
use simulator::oidc::{self, Provider};

use super::{push_section, start_stand_in};

/// Who can sign in at the provider.
pub(super) const PERSON: (&str, &str) = ("ada@pilot.example", "correct horse battery staple");

/// What the provider calls the server.
const CLIENT_ID: &str = "assay";

/// The stand-ins; they stop when dropped.
pub(super) struct Services {
    pub(super) authority: Authority,
    pub(super) apns: Arc<ApnsStandIn>,
    pub(super) ade: AdeService,
    pub(super) portal: Portal,
    /// Issues MDM identities.
    pub(super) acme: AcmeCa,
    /// Issues certificates of policies, and takes devices without attestation too.
    pub(super) office: AcmeCa,
    /// Issues certificates of policies as strictly as step-ca.
    pub(super) factory: AcmeCa,
    provider: Provider,
    device_ca: DeviceCa,
    attestation: attestation::Authority,
}

impl Services {
    /// Starts all of them, for a server that devices reach at `server`.
    pub(super) async fn start(server: SocketAddr) -> Result<Self> {
        let authority = Authority::new("Rehearsal of the services of others")?;
        let attestation = attestation::Authority::new()?;
        let people = oidc::Settings {
            client_id: CLIENT_ID.to_owned(),
            client_secret: None,
            redirect_uri: format!("https://localhost:{}/sign-in/callback", server.port()),
            people: vec![oidc::Account::new(PERSON.0, PERSON.1)],
            algorithm: oidc::Algorithm::Es256,
            claims_in_id_token: true,
            now: None,
        };
        let ade = AdeService::start(&authority).await.context("the stand-in of Apple's device service")?;
        Ok(Self {
            apns: Arc::new(start_stand_in(&authority).await.context("the stand-in of APNs")?),
            portal: ade.add_server("Pilot"),
            ade,
            acme: AcmeCa::start(&authority, acme_ca::Settings::lenient(attestation.root()?)).await?,
            office: AcmeCa::start(&authority, acme_ca::Settings::lenient(attestation.root()?)).await?,
            factory: AcmeCa::start(&authority, acme_ca::Settings::strict(attestation.root()?)).await?,
            provider: Provider::start(&authority, people)
                .await
                .context("the stand-in of an OpenID Connect provider")?,
            device_ca: DeviceCa::legacy()?,
            authority,
            attestation,
        })
    }

    /// The sections of the configuration that lead to them.
    pub(super) fn config(&self, folder: &Path) -> Result<String> {
        let file = |name: &str, pem: String| -> Result<String> {
            let path = folder.join(name);
            std::fs::write(&path, pem).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path.display().to_string())
        };
        let tls = file("services-ca.pem", self.authority.pem()?)?;
        let identities = file("acme-ca.pem", self.acme.issuer_pem()?)?;
        let devices = file("device-ca.pem", self.device_ca.pem()?)?;
        let attested = file("attestation-root.pem", self.attestation.root_pem()?)?;
        Ok(format!(
            "{}\
             [ade]\nurl = \"{}\"\nca_file = {tls:?}\nprivate_addresses = true\n\
             [identity]\nexternal_ca_file = {identities:?}\n\
             [machine_info]\ndevice_ca_files = [{devices:?}]\n\
             [attestation]\ntest_root_files = [{attested:?}]\n\
             [sign_in]\nissuer = \"{}\"\nclient_id = \"{CLIENT_ID}\"\nca_file = {tls:?}\nprivate_addresses = true\nallowed_domains = [\"pilot.example\"]\ninvitations = true\n",
            push_section(folder, &self.apns, &self.authority)?,
            self.ade.url(),
            self.provider.issuer(),
        ))
    }

    /// A device that Apple made: with a certificate of its own, and silicon that is attested where it can be.
    pub(super) fn device(&self, record: Record, trust: &Trust, behaviour: Behaviour) -> Result<Device> {
        let trust = trust.clone().with_pem(self.authority.pem()?.as_bytes())?;
        let device = Device::new(record, trust, behaviour)?;
        Ok(device.built_by(self.device_ca.clone()).attested_by(self.attestation.clone()))
    }
}
