//! Automated Device Enrollment: Apple's device service (`mdmenrollment.apple.com`), its devices and its profiles.
//!
//! An organization has servers in Apple Business Manager or Apple School Manager; each has a token ([`servers`]). A loop
//! visits each server ([`run_once`]): it reads the list of devices with Apple's cursor, defines at Apple the profiles that an
//! operator wrote ([`profiles`], [`Definition`]), and gives each device the one that is wished for it. What is wished and what
//! was done are rows (`store::ade`); the loop computes from them what is left to do, so that a crash or a refusal costs one
//! visit and no device is forgotten.

mod account_driven;
mod assign;
mod definition;
mod error;
mod health;
mod oauth;
pub mod profiles;
pub mod servers;
mod service;
mod sync;
mod token;
mod visit;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use mdm_core::certificate::Certificate;
use mdm_core::crypto::seal::Sealer;
use mdm_core::ids::Fingerprint;
use mdm_core::random::Random;
use mdm_core::time::Clock;
use store::{Store, Tx};
use url::Url;

pub use account_driven::{Discovery, discovery, forget_discovery, put_discovery};
pub use definition::{Definition, FieldError, InvalidDefinition};
pub use error::Error;
pub use health::{Health, warnings};
pub use visit::run_once;

/// Apple's device service.
pub const BASE_URL: &str = "https://mdmenrollment.apple.com";
/// `X-Server-Protocol-Version`, as today's clients of Apple's service send it.
pub const PROTOCOL_VERSION: u32 = 7;

/// What this crate works with.
#[derive(Debug, Clone)]
pub struct Context {
    /// The database.
    pub store: Store,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// Seals keys and tokens.
    pub sealer: Sealer,
    /// Sends requests to Apple.
    pub client: outbound::Client,
    /// How it works.
    pub settings: Arc<Settings>,
}

/// How the service is spoken to, and what the profiles at Apple say about this server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The device service: [`BASE_URL`].
    pub base_url: Url,
    /// `X-Server-Protocol-Version`: [`PROTOCOL_VERSION`].
    pub protocol_version: u32,
    /// How long after a visit the next one is due.
    pub every: Duration,
    /// `url` of each profile: where devices post their `MachineInfo`.
    pub url: Url,
    /// `configuration_web_url` of profiles with a web sign-in.
    pub web_url: Url,
    /// `anchor_certs`: the certificate authorities that devices need for this server; empty where its certificate is public.
    pub anchors: Vec<Certificate>,
}

/// What is known when a device of Automated Device Enrollment calls.
#[derive(Debug, Clone)]
pub struct AtTheCall {
    /// Its row.
    pub device: store::ade::Device,
    /// The profile that it is to have at Apple, if any.
    pub profile: Option<Definition>,
}

/// The device with this serial number and its profile; `None` where no server lists it, and then it gets nothing (TH-50).
pub async fn at_the_call(tx: &mut Tx, serial_number: &str) -> Result<Option<AtTheCall>, Error> {
    let Some(device) = store::ade::device(tx, serial_number).await? else { return Ok(None) };
    let server = store::ade::servers::get(tx, device.server_id).await?;
    let profile = match device.profile_id.or(server.and_then(|server| server.default_profile_id)) {
        Some(id) => store::ade::profiles::get(tx, id).await?,
        None => None,
    };
    let profile = profile.map(|profile| Definition::from_stored(&profile.body)).transpose()?;
    Ok(Some(AtTheCall { device, profile }))
}

/// A definition at Apple whose anchors are not the present ones, with the devices that have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleAnchors {
    /// The server's name.
    pub server: String,
    /// The profile's name.
    pub profile: String,
    /// How many devices have it.
    pub devices: i64,
}

/// The definitions that devices have and whose `anchor_certs` are not `current`, in whatever order.
pub async fn stale_anchors(tx: &mut Tx, current: &[Fingerprint]) -> Result<Vec<StaleAnchors>, Error> {
    let current = definition::anchor_list(current);
    let carried = store::ade::profiles::carried(tx).await?;
    let stale = carried.into_iter().filter(|row| row.anchors != current);
    Ok(stale.map(|row| StaleAnchors { server: row.server, profile: row.profile, devices: row.devices }).collect())
}
