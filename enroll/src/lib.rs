//! How a device gets in: enrollment links with their pages, the enrollment profile, and who is admitted at `Authenticate`.
//!
//! A link is a one-time, expiring permission (TH-53). Fetching its profile opens an issuance record with a one-time
//! challenge; the certificate issued for it is what `Authenticate` is believed for (TH-02). No authorization here rests on a
//! User-Agent (TH-51).

mod ade;
pub mod admit;
pub mod door;
mod error;
mod external;
pub mod http;
pub mod identity;
pub mod leave;
pub mod link;
pub mod offer;
pub mod page;
pub mod profile;
pub mod quarantine;
pub mod trust;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use issuer::scep::CurrentAuthority;
use mdm_core::certificate::Certificate;
use mdm_core::crypto::machine_info::DeviceAuthorities;
use mdm_core::enrollment::Door;
use mdm_core::random::Random;
use mdm_core::rate::{Buckets, Rate};
use mdm_core::time::{Clock, Timestamp};
use store::Store;
use url::Url;

pub use admit::{Admitted, Arrival, Continues, authenticate};
pub use error::Error;
pub use external::renewing;
pub use http::router;
pub use identity::{ChosenIdentity, DeviceFacts};
pub use offer::{Offer, Visitor, offer, refused};

/// What every enrollment has in common.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How devices reach the server. Links are made of it, and the URLs below usually are.
    pub public_url: Url,
    /// `ServerURL` of the MDM payload; can never change for an enrolled device.
    pub server_url: String,
    /// `CheckInURL` of the MDM payload; can never change for an enrolled device.
    pub check_in_url: String,
    /// The SCEP server's URL, without the issuance record that each profile adds to it.
    pub scep_url: String,
    /// The organization's name, on pages and in profiles.
    pub organization: String,
    /// `PayloadIdentifier` of the enrollment profile; must not change once devices are enrolled.
    pub profile_identifier: String,
    /// CA certificates that devices are given for this server's TLS certificate, those that will take over included.
    pub anchors: Vec<Certificate>,
    /// Let devices accept this server's TLS certificate only under one of `anchors`. Can't be changed for an enrolled device.
    pub pin_anchors: bool,
    /// A pinned chain also needs a positive answer about revocation.
    pub pin_revocation_required: bool,
    /// What kind of trust the server lives on.
    pub trust: trust::Terms,
    /// CMS-sign profiles; false is for old simulators.
    pub sign_profile: bool,
    /// Let devices put an `Mdm-Signature` on each request.
    pub sign_message: bool,
    /// Push by APNs' sandbox.
    pub use_development_apns: bool,
    /// How long a SCEP challenge is good for; at most an hour.
    pub challenge_life: Duration,
    /// How far the signing time of a MachineInfo, where it has one, may be away from now.
    pub machine_info_skew: Duration,
    /// How often one address may ask for pages and profiles.
    pub per_ip: Rate,
}

impl Settings {
    /// 30 requests at once from one address, one more every two seconds.
    pub const DEFAULT_PER_IP: Rate = Rate { burst: 30, per_second: 0.5 };

    /// A device's clock may be a day wrong.
    pub const DEFAULT_MACHINE_INFO_SKEW: Duration = Duration::from_hours(24);

    /// Whether devices need anchors before they can trust this server. Anchors of a public CA are for pins only.
    pub fn gives_anchors(&self) -> bool {
        !self.trust.public && !self.anchors.is_empty()
    }
}

/// What the pages and profiles need.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The database.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// Randomness for identifiers and challenges.
    pub random: Random,
    /// What every enrollment has in common.
    pub settings: Arc<Settings>,
    /// Who signs profiles, as it is now: its certificate is renewed while the server runs.
    pub authority: CurrentAuthority,
    /// How people sign in.
    pub sign_in: signin::Context,
    /// Who certifies devices in the factory.
    pub device_authorities: Arc<DeviceAuthorities>,
    /// Who asked how often.
    pub asked: Arc<Buckets<IpAddr>>,
    /// How often it was written as an event that somebody was turned away; the log has all of them.
    pub turned_away: Arc<Buckets<Door>>,
}

impl Shared {
    /// A profile as it is handed out.
    pub(crate) fn sign(&self, plain: Vec<u8>, now: Timestamp) -> Result<Vec<u8>, Error> {
        if self.settings.sign_profile {
            Ok(self.authority.get().profile_signer().sign(&plain, now)?)
        } else {
            Ok(plain)
        }
    }
}
