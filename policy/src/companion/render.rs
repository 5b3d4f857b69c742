//! Companions as payloads of the profile of one device.

use mdm_core::enrollment::{Channel, EnrollmentKind};
use mdm_core::hardware::{OsVersion, Platform};
use mdm_core::profile::Payload;
use mdm_core::profile::certificate_pkcs1::CertificatePkcs1;
use mdm_core::profile::certificate_root::CertificateRoot;
use mdm_core::profile::vpn::{Authentication, SecurityAssociation, VpnIkev2};
use mdm_core::profile::wifi::WifiEapTls;
use uuid::Uuid;

use super::{Common, IDENTITY, VpnAuthentication, VpnCompanion, WifiCompanion, raw};
use crate::acme::{AcmePolicy, Unfit};
use crate::reason::ReasonCode;
use crate::template::{Template, Values, Variable};

/// A companion that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ready {
    name: String,
    display_name: String,
    platforms: Vec<Platform>,
    optional: bool,
    body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    Certificate { der: Vec<u8>, root: bool },
    Wifi { companion: Box<WifiCompanion>, user_name: Option<Template>, outer_identity: Option<Template> },
    Vpn { companion: Box<VpnCompanion>, local_identifier: Template, certificate_type: Option<&'static str> },
    Raw { payload_type: String, keys: raw::Node },
}

/// The device that a profile is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Its operating system.
    pub platform: Option<Platform>,
    /// Its version.
    pub os_version: Option<OsVersion>,
    /// How it was enrolled.
    pub kind: EnrollmentKind,
    /// The channel that the profile goes out on.
    pub channel: Channel,
}

/// What payloads are called in one profile.
pub struct Names<'a> {
    /// `PayloadIdentifier` of the profile; those of its payloads begin with it.
    pub identifier: &'a str,
    /// `PayloadUUID` of the payload of this name: of a companion, or of the identity under [`IDENTITY`].
    pub uuid_of: &'a dyn Fn(&str) -> Uuid,
}

impl Ready {
    pub(super) fn new(common: Common<'_>, body: Body) -> Self {
        Self {
            name: common.name.to_owned(),
            display_name: common.display_name.unwrap_or(common.name).to_owned(),
            platforms: common.platforms.to_vec(),
            optional: common.optional,
            body,
        }
    }

    /// Whether the policy wants it on this device.
    fn is_for(&self, device: &Device) -> bool {
        self.platforms.is_empty() || device.platform.is_some_and(|platform| self.platforms.contains(&platform))
    }

    /// Why Apple allows this payload no such device; `com.apple.vpn.managed`, `payload.supportedOS`.
    fn forbidden(&self, device: &Device) -> Option<&'static str> {
        if !matches!(self.body, Body::Vpn { .. }) {
            return None;
        }
        match device.platform {
            _ if device.kind == EnrollmentKind::User => Some("VPN payloads are forbidden in User Enrollment"),
            Some(Platform::Watchos) => Some("watchOS has no VPN payload"),
            Some(Platform::Tvos) if device.os_version.is_none_or(|os| os < OsVersion::new(17, 0)) => {
                Some("Apple TV has VPN payloads from tvOS 17")
            }
            None => Some("nobody knows which operating system this is"),
            Some(_) => None,
        }
    }

    fn payload(&self, device: &Device, values: &Values, names: &Names<'_>) -> Result<Payload, Variable> {
        let identifier = format!("{}.{}", names.identifier, self.name);
        let (uuid, identity) = ((names.uuid_of)(&self.name), (names.uuid_of)(IDENTITY));
        let display_name = self.display_name.clone();
        let fill = |template: &Option<Template>| template.as_ref().map(|t| t.render(values)).transpose();
        Ok(match &self.body {
            Body::Certificate { der, root: true } => {
                CertificateRoot { identifier, uuid, display_name, der: der.clone() }.into()
            }
            Body::Certificate { der, root: false } => {
                CertificatePkcs1 { identifier, uuid, display_name, der: der.clone() }.into()
            }
            Body::Wifi { companion: c, user_name, outer_identity } => WifiEapTls {
                identifier,
                uuid,
                display_name,
                ssid: c.ssid.clone(),
                hidden: c.hidden,
                auto_join: c.auto_join,
                encryption_type: c.encryption_type.clone(),
                identity,
                user_name: fill(user_name)?,
                outer_identity: fill(outer_identity)?,
                anchors: c.trusted_certificates.iter().map(|name| (names.uuid_of)(name)).collect(),
                server_names: c.trusted_server_names.clone(),
                tls_minimum_version: c.tls_minimum_version.clone(),
                tls_maximum_version: c.tls_maximum_version.clone(),
                // "SetupModes" is a key of macOS only.
                setup_modes: match device.platform {
                    Some(Platform::Macos) => c.setup_modes.clone(),
                    _ => Vec::new(),
                },
            }
            .into(),
            Body::Vpn { companion: c, local_identifier, certificate_type } => VpnIkev2 {
                identifier,
                uuid,
                display_name,
                remote_address: c.remote_address.clone(),
                remote_identifier: c.remote_identifier.clone(),
                local_identifier: local_identifier.render(values)?,
                authentication: match c.authentication {
                    VpnAuthentication::Certificate => Authentication::Certificate,
                    VpnAuthentication::EapTls => Authentication::EapTls,
                },
                identity,
                certificate_type: *certificate_type,
                server_issuer: c.server_certificate_issuer_common_name.clone(),
                server_name: c.server_certificate_common_name.clone(),
                on_demand: c.on_demand,
                perfect_forward_secrecy: c.perfect_forward_secrecy,
                revocation_check: c.certificate_revocation_check,
                ike: c.ike_security_association.as_ref().map(association),
                child: c.child_security_association.as_ref().map(association),
            }
            .into(),
            Body::Raw { payload_type, keys } => Payload {
                payload_type: payload_type.clone(),
                identifier,
                uuid,
                display_name: Some(display_name),
                keys: raw::render(keys, values, names.uuid_of)?,
            },
        })
    }
}

fn association(a: &super::SecurityAssociation) -> SecurityAssociation {
    SecurityAssociation {
        encryption: a.encryption_algorithm.clone(),
        integrity: a.integrity_algorithm.clone(),
        group: a.diffie_hellman_group,
        lifetime_minutes: a.lifetime_minutes,
    }
}

/// The companions of a policy for one device, in their order, without those that the policy does not want there and the optional ones
/// that Apple does not allow there.
///
/// `values` are the device's; the identity's `PayloadUUID` is added here.
pub fn payloads(
    policy: &AcmePolicy,
    device: &Device,
    values: &Values,
    names: &Names<'_>,
) -> Result<Vec<Payload>, Unfit> {
    let companions = policy.companions();
    if companions.is_empty() {
        return Ok(Vec::new());
    }
    let mut values = values.clone();
    let identity = mdm_core::profile::uuid_text((names.uuid_of)(IDENTITY));
    values.set(Variable::IdentityUuid, Some(&identity));
    let mut out = Vec::new();
    for companion in companions.iter().filter(|c| c.is_for(device)) {
        match companion.forbidden(device) {
            Some(_) if companion.optional => {}
            Some(why) => {
                let detail = format!("{}: {why}", companion.name);
                return Err(Unfit { reason: ReasonCode::CompanionNotSupported, detail });
            }
            None => out.push(companion.payload(device, &values, names).map_err(|variable| {
                let hidden = device.kind == EnrollmentKind::User && variable.is_hidden_in_user_enrollment();
                let reason =
                    if hidden { ReasonCode::TemplateNotInUserEnrollment } else { ReasonCode::TemplateValueMissing };
                Unfit { reason, detail: format!("{}: this device has no value for {variable}", companion.name) }
            })?),
        }
    }
    Ok(out)
}

/// Why a device cannot have the companions of a policy, before anything is sent.
pub fn unfit(policy: &AcmePolicy, device: &Device, values: &Values) -> Option<Unfit> {
    let names = Names { identifier: "", uuid_of: &|_| Uuid::nil() };
    payloads(policy, device, values, &names).err()
}

/// Whether an optional companion is missing on this device.
pub fn left_out(policy: &AcmePolicy, device: &Device) -> bool {
    policy.companions().iter().any(|c| c.is_for(device) && c.optional && c.forbidden(device).is_some())
}
