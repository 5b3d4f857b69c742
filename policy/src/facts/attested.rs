//! What Apple has attested of a device, as the facts keep it.

use attestation::{Identity, Judged, Verdict};
use mdm_core::crypto::attestation::{Attested, SecureBoot};
use mdm_core::hardware::{self, Claims, Platform};
use mdm_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::FactName;

/// The newest verdict on an attestation, and the values of the newest one that was believed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestedFacts {
    /// `accepted`, `absent`, or the stable word of the refusal.
    pub verdict: String,
    /// Whose the newest attestation is.
    pub identity: Identity,
    /// When it was judged.
    pub judged_at: Timestamp,
    /// When the nonce was sent that the values' attestation carries. None: unknown, and no age is good enough (TH-38).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh_as_of: Option<Timestamp>,
    /// Serial number, where it is this device's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// UDID, where it is this device's; on a Mac its ProvisioningUDID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udid: Option<String>,
    /// Model: software update device ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software_update_device_id: Option<String>,
    /// Version of the operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Version of sepOS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sep_os_version: Option<String>,
    /// Version of the low-level boot loader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llb_version: Option<String>,
    /// System Integrity Protection; Macs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sip_enabled: Option<bool>,
    /// Secure boot; Macs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<SecureBoot>,
    /// Whether any third-party kernel extensions are allowed; Macs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub third_party_kexts: Option<bool>,
}

/// Without serial number and UDID (TH-49).
impl std::fmt::Debug for AttestedFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttestedFacts")
            .field("verdict", &self.verdict)
            .field("identity", &self.identity)
            .field("fresh_as_of", &self.fresh_as_of)
            .finish_non_exhaustive()
    }
}

impl AttestedFacts {
    /// What is known after one more verdict.
    ///
    /// A refusal leaves the values as they were, but says that they are not to be relied on. An answer without an attestation
    /// proves nothing either way and is noted only where nothing is known. One whose freshness is unknown does not take the
    /// place of one whose freshness is known, and an older one not that of a newer one.
    pub(super) fn after(before: Option<Self>, judged: &Judged, now: Timestamp) -> Option<Self> {
        if before.as_ref().is_some_and(|before| before.judged_at > now) {
            return before;
        }
        let verdict = judged.verdict.as_str().to_owned();
        let said =
            Self { verdict, identity: judged.identity, judged_at: now, ..before.clone().unwrap_or_else(Self::nothing) };
        match (judged.verdict, &judged.attested) {
            (Verdict::Absent, _) if before.is_some() => before,
            (Verdict::Accepted, Some(attested)) => {
                let older = before.is_some_and(|before| before.has_values() && judged.fresh_as_of < before.fresh_as_of);
                Some(if older { said } else { said.with(attested, judged.fresh_as_of) })
            }
            _ => Some(said),
        }
    }

    fn nothing() -> Self {
        Self {
            verdict: String::new(),
            identity: Identity::Unknown,
            judged_at: Timestamp(0),
            fresh_as_of: None,
            serial_number: None,
            udid: None,
            software_update_device_id: None,
            os_version: None,
            sep_os_version: None,
            llb_version: None,
            sip_enabled: None,
            secure_boot: None,
            third_party_kexts: None,
        }
    }

    fn has_values(&self) -> bool {
        let blank = Self {
            verdict: self.verdict.clone(),
            identity: self.identity,
            judged_at: self.judged_at,
            ..Self::nothing()
        };
        *self != blank
    }

    fn with(self, attested: &Attested, fresh_as_of: Option<Timestamp>) -> Self {
        // What could not be compared is not known to be this device's.
        let own = |value: &Option<String>| value.clone().filter(|_| self.identity == Identity::Matches);
        Self {
            fresh_as_of,
            serial_number: own(&attested.serial_number),
            udid: own(&attested.udid),
            software_update_device_id: attested.software_update_device_id.clone(),
            os_version: attested.os_version.clone(),
            sep_os_version: attested.sep_os_version.clone(),
            llb_version: attested.llb_version.clone(),
            sip_enabled: attested.sip_enabled,
            secure_boot: attested.secure_boot,
            third_party_kexts: attested.third_party_kexts,
            ..self
        }
    }

    /// Whether the newest attestation was believed and is not another device's.
    pub fn is_believed(&self) -> bool {
        self.verdict == Verdict::Accepted.as_str() && matches!(self.identity, Identity::Matches | Identity::NotAttested)
    }

    /// The operating system that the attested model runs; `None` where no model is attested. Apple names Macs by their boards
    /// (`J413AP`) there and everything else by its `ProductName`: what is of no known kind counts as a Mac, of which more is required.
    pub fn platform(&self) -> Option<Platform> {
        let model = self.software_update_device_id.as_deref()?;
        let claims = Claims { product_name: Some(model), ..Claims::default() };
        Some(hardware::classify(&claims).platform.unwrap_or(Platform::Macos))
    }

    /// The attested text of a fact, where it takes the place of a claim that was made at `claimed_at`.
    pub(super) fn text(&self, name: FactName, claimed_at: Option<Timestamp>) -> Option<&str> {
        if !self.is_believed() {
            return None;
        }
        let is_mac = || self.platform() == Some(Platform::Macos);
        match name {
            FactName::SerialNumber => self.serial_number.as_deref(),
            FactName::Udid => self.udid.as_deref().filter(|_| self.platform().is_some() && !is_mac()),
            FactName::ProvisioningUdid => self.udid.as_deref().filter(|_| is_mac()),
            FactName::ProductName => {
                self.software_update_device_id.as_deref().filter(|id| !is_mac() || hardware::model(id).is_some())
            }
            // It can change: the attested one counts where it is the newer one.
            FactName::OsVersion => {
                let at = self.fresh_as_of?;
                self.os_version.as_deref().filter(|_| claimed_at.is_none_or(|claimed_at| claimed_at < at))
            }
            _ => None,
        }
    }
}
