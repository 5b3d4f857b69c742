//! The ACME policy as people write it: every key of Apple's payload, and what goes with the certificate.
//!
//! This is the form of the API, of TOML files and of the stored revisions. [`crate::AcmePolicy`] is what has been checked.

use mdm_core::enrollment::{Channel, EnrollmentKind};
use mdm_core::hardware::Platform;
use serde::{Deserialize, Serialize};

use crate::companion::Companion;
use crate::gate::Wish;
use crate::require::Requirements;
use crate::ring::Plan;

/// The channels that a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PolicyChannel {
    /// The device channel.
    #[default]
    Device,
    /// The user channel of Macs.
    User,
    /// Both, each with a profile of its own.
    Both,
}

impl PolicyChannel {
    /// Is the policy for this channel?
    pub fn includes(self, channel: Channel) -> bool {
        match self {
            Self::Device => channel == Channel::Device,
            Self::User => channel == Channel::User,
            Self::Both => true,
        }
    }
}

/// What becomes of the profile of a device that leaves the scope, or when the policy is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenUnassigned {
    /// It is taken off the device, and the certificate and its key with it.
    #[default]
    Remove,
    /// It stays on the device as it is; Assay looks after it no longer and renews nothing.
    Keep,
}

/// How the profile is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// `PayloadRemovalDisallowed`: a person cannot remove the profile. Written where Apple's page knows the key: on Macs and on
    /// supervised iPhones, iPads and Apple TVs, never in User Enrollment.
    #[serde(default)]
    pub disallowed: bool,
    /// What becomes of the profile when the device is no longer in the scope.
    #[serde(default)]
    pub when_unassigned: WhenUnassigned,
}

impl Removal {
    /// Nothing was said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `PayloadRemovalDisallowed` is written for this device. iPhones, iPads and Apple TVs must be supervised for it,
    /// and Automated Device Enrollment is what proves that they are ("TopLevel", PayloadRemovalDisallowed, supportedOS).
    pub fn is_disallowed_on(&self, platform: Option<Platform>, kind: EnrollmentKind) -> bool {
        let known = match platform {
            Some(Platform::Macos) => kind != EnrollmentKind::User,
            Some(Platform::Ios | Platform::Ipados | Platform::Tvos) => {
                matches!(kind, EnrollmentKind::Automated | EnrollmentKind::SharedIpad)
            }
            Some(Platform::Visionos | Platform::Watchos) | None => false,
        };
        self.disallowed && known
    }
}

/// `SubjectAltName` of a policy: each a template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AlternativeNames {
    /// `rfc822Name`.
    #[serde(rename = "rfc822Name", default, skip_serializing_if = "Option::is_none")]
    pub rfc822_name: Option<String>,
    /// `dNSName`.
    #[serde(rename = "dNSName", default, skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<String>,
    /// `uniformResourceIdentifier`.
    #[serde(rename = "uniformResourceIdentifier", default, skip_serializing_if = "Option::is_none")]
    pub uniform_resource_identifier: Option<String>,
    /// `ntPrincipalName`.
    #[serde(rename = "ntPrincipalName", default, skip_serializing_if = "Option::is_none")]
    pub nt_principal_name: Option<String>,
}

/// A policy as the API carries it. What is left out has the default given here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the payload or a switch of the policy")]
pub struct PolicyDocument {
    /// Its name: 1 to 64 letters, digits, `.`, `_` or `-`, starting with a letter or a digit.
    pub name: String,
    /// For people; never sent to a device.
    #[serde(default)]
    pub notes: String,
    /// What a person reads on the device (`PayloadDisplayName`); the policy's name where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// `PayloadOrganization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// The operating systems that it is for: `iOS`, `iPadOS`, `macOS`, `tvOS`, `visionOS`, `watchOS`; none: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub platforms: Vec<Platform>,
    /// The channels that it is for.
    #[serde(default)]
    pub channel: PolicyChannel,
    /// The certificate authority, by its name in Assay. Either this or `directory_url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<String>,
    /// `DirectoryURL` of an ACME server of which Assay knows nothing else: https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory_url: Option<String>,
    /// PEM certificates that may sign what the server behind `directory_url` issues. Without them a certificate proves nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<String>,
    /// `ClientIdentifier`, a template.
    pub client_identifier: String,
    /// `KeyType`: `RSA` or `ECSECPrimeRandom`.
    #[serde(default = "default_key_type")]
    pub key_type: String,
    /// `KeySize`.
    #[serde(default = "default_key_size")]
    pub key_size: u32,
    /// `HardwareBound`.
    #[serde(default = "default_wish")]
    pub hardware_bound: Wish,
    /// `Attest`.
    #[serde(default = "default_wish")]
    pub attest: Wish,
    /// `Subject`: RDNs of pairs of type and template, such as `[[["CN", "{serial}"]]]`.
    pub subject: Vec<Vec<Vec<String>>>,
    /// `SubjectAltName`: templates.
    #[serde(default)]
    pub subject_alt_name: AlternativeNames,
    /// `UsageFlags`: 1 digital signature, 4 encryption, 5 both; left out where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_flags: Option<u32>,
    /// `ExtendedKeyUsage`: dotted object identifiers.
    #[serde(default)]
    pub extended_key_usage: Vec<String>,
    /// `KeyIsExtractable`: Macs only, and only for keys that are not hardware-bound.
    #[serde(default)]
    pub key_is_extractable: bool,
    /// `AllowAllAppsAccess`: Macs only.
    #[serde(default)]
    pub allow_all_apps_access: bool,
    /// The ACME server behind `directory_url` issues to devices that give no attestation. False: such devices are refused, with
    /// the reason. Of a named `certificate_authority` this is told there, and not here.
    #[serde(default)]
    pub ca_accepts_unattested: bool,
    /// Use `HardwareBound` and `Attest` on the user channel of Macs too.
    #[serde(default)]
    pub user_channel_hardware_bound: bool,
    /// Payloads that travel in the same profile and use the identity: certificates, Wi-Fi, VPN, or any other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub companions: Vec<Companion>,
    /// Whose signature the profile carries: a name from the server's `profile_signing.identities`; the server's own where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_identity: Option<String>,
    /// How the profile is removed.
    #[serde(default, skip_serializing_if = "Removal::is_default")]
    pub removal: Removal,
    /// What an attestation of the device must have shown.
    #[serde(default, skip_serializing_if = "Requirements::is_empty")]
    pub require: Requirements,
    /// At which share of its life a certificate is renewed, in percent: 10 to 90.
    #[serde(default = "default_renew_at_percent")]
    pub renew_at_percent: u8,
    /// The steps by which a new revision reaches its devices; none: all at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Plan>,
}

fn default_renew_at_percent() -> u8 {
    66
}

fn default_key_type() -> String {
    "ECSECPrimeRandom".to_owned()
}

fn default_key_size() -> u32 {
    256
}

fn default_wish() -> Wish {
    Wish::WhenSupported
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removal_is_disallowed_only_where_apples_page_knows_the_key() {
        use EnrollmentKind as K;
        let removal = Removal { disallowed: true, when_unassigned: WhenUnassigned::Remove };
        for (platform, kind, written) in [
            (Some(Platform::Macos), K::Device, true),
            (Some(Platform::Macos), K::User, false),
            (Some(Platform::Ios), K::Device, false),
            (Some(Platform::Ios), K::Automated, true),
            (Some(Platform::Ipados), K::SharedIpad, true),
            (Some(Platform::Tvos), K::Automated, true),
            (Some(Platform::Visionos), K::Automated, false),
            (Some(Platform::Watchos), K::Automated, false),
            (None, K::Automated, false),
        ] {
            assert_eq!(removal.is_disallowed_on(platform, kind), written, "{platform:?} {kind:?}");
            assert!(!Removal::default().is_disallowed_on(platform, kind));
        }
    }
}
