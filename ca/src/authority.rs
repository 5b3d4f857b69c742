//! An authority as a policy uses it, and what it is known to refuse.
//!
//! Sources: smallstep/certificates, acme/challenge.go (`apple`: the attested serial number or UDID must equal the identifier) and
//! acme/order.go (the common name must be empty or the identifier); docs/certificate-authorities.md.

use mdm_core::enrollment::EnrollmentKind;
use mdm_core::hardware::Platform;

use crate::document::{Document, Kind};
use crate::identifier::{self, Match, Names};

/// Which rules an authority has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adapter {
    /// RFC 8555 with `device-attest-01`, and what the operator says of it.
    Generic,
    /// step-ca's ACME provisioner with `device-attest-01`.
    StepCa,
}

/// What an authority wants `ClientIdentifier` to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdentifierRule {
    /// Whatever the policy gives.
    Any,
    /// The serial number or the UDID that the attestation carries.
    Attested,
}

/// What an authority wants the common name to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommonNameRule {
    /// Whatever the policy gives.
    Any,
    /// Left out, or the same as `ClientIdentifier`.
    Identifier,
}

/// An authority, as a policy uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its name; none where the policy gives a bare `DirectoryURL`.
    pub name: Option<String>,
    /// Its row; none where the policy gives a bare `DirectoryURL`.
    pub id: Option<uuid::Uuid>,
    /// Its rules.
    pub adapter: Adapter,
    /// `DirectoryURL`.
    pub directory_url: String,
    /// It issues to devices that give no attestation (Q1). False by default.
    pub accepts_unattested: bool,
    /// What it wants `ClientIdentifier` to be.
    pub identifier: IdentifierRule,
    /// What it wants the common name to be.
    pub common_name: CommonNameRule,
    /// It verifies attestations itself; otherwise Assay does, and wants to be shown them.
    pub verifies_attestation: bool,
    /// DER of the certificates that may sign what it issues; a certificate by another issuer proves nothing. Empty: unknown.
    pub issuers: Vec<Vec<u8>>,
}

/// What a device would ask for.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// `ClientIdentifier`.
    pub client_identifier: &'a str,
    /// Common names in `Subject`.
    pub common_names: &'a [&'a str],
    /// `Attest` is true.
    pub attested: bool,
    /// How the device was enrolled.
    pub kind: EnrollmentKind,
    /// Its operating system.
    pub platform: Option<Platform>,
    /// `SerialNumber`.
    pub serial_number: Option<&'a str>,
    /// `UDID`.
    pub udid: Option<&'a str>,
    /// `ProvisioningUDID`: what an attestation of a Mac calls its UDID.
    pub provisioning_udid: Option<&'a str>,
}

impl<'a> Asking<'a> {
    fn names(&self) -> Names<'a> {
        Names {
            platform: self.platform,
            serial_number: self.serial_number,
            udid: self.udid,
            provisioning_udid: self.provisioning_udid,
        }
    }
}

/// Why an authority would refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It takes only devices that are attested.
    Unattested,
    /// The identifier cannot stand in an order (TH-44).
    IdentifierMalformed,
    /// The identifier must be the attested serial number or UDID.
    IdentifierNotAttested,
    /// On a Mac the attested UDID is the `ProvisioningUDID`.
    MacUdid,
    /// In User Enrollment an attestation names no device.
    UserEnrollment,
    /// The common name must be empty or the identifier.
    CommonName,
}

impl Authority {
    /// An authority of which only its address is known.
    pub fn bare(directory_url: &str, accepts_unattested: bool, issuers: Vec<Vec<u8>>) -> Self {
        Self {
            name: None,
            id: None,
            adapter: Adapter::Generic,
            directory_url: directory_url.to_owned(),
            accepts_unattested,
            identifier: IdentifierRule::Any,
            common_name: CommonNameRule::Any,
            verifies_attestation: false,
            issuers,
        }
    }

    /// The authority of a checked document.
    pub fn of(id: uuid::Uuid, name: &str, document: &Document) -> Self {
        let step_ca = document.kind == Kind::StepCa;
        Self {
            name: Some(name.to_owned()),
            id: Some(id),
            adapter: if step_ca { Adapter::StepCa } else { Adapter::Generic },
            directory_url: document.directory_url.clone(),
            accepts_unattested: document.accepts_unattested && !step_ca,
            identifier: if step_ca { IdentifierRule::Attested } else { document.identifier },
            common_name: if step_ca { CommonNameRule::Identifier } else { document.common_name },
            verifies_attestation: step_ca || document.verifies_attestation,
            issuers: document.issuer_certificates(),
        }
    }

    /// Why it would refuse this device; none where nothing is known against it.
    pub fn refuses(&self, asking: &Asking<'_>) -> Option<Refusal> {
        if !identifier::is_well_formed(asking.client_identifier) {
            return Some(Refusal::IdentifierMalformed);
        }
        if !asking.attested && !self.accepts_unattested {
            return Some(Refusal::Unattested);
        }
        // A device that shows no attestation shows no names either: then the identifier is all there is.
        if self.identifier == IdentifierRule::Attested && asking.attested {
            if asking.kind == EnrollmentKind::User {
                return Some(Refusal::UserEnrollment);
            }
            match asking.names().find(asking.client_identifier) {
                Match::Attested => {}
                Match::MacUdid => return Some(Refusal::MacUdid),
                Match::None => return Some(Refusal::IdentifierNotAttested),
            }
        }
        let fits = |name: &&str| name.is_empty() || *name == asking.client_identifier;
        if self.common_name == CommonNameRule::Identifier && !asking.common_names.iter().all(fits) {
            return Some(Refusal::CommonName);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PHONE: Asking<'static> = Asking {
        client_identifier: "C02",
        common_names: &["C02"],
        attested: true,
        kind: EnrollmentKind::Device,
        platform: Some(Platform::Ios),
        serial_number: Some("C02"),
        udid: Some("U"),
        provisioning_udid: None,
    };

    fn step_ca() -> Authority {
        Authority {
            adapter: Adapter::StepCa,
            identifier: IdentifierRule::Attested,
            common_name: CommonNameRule::Identifier,
            verifies_attestation: true,
            ..Authority::bare("https://ca.example/acme/mdm/directory", false, vec![])
        }
    }

    #[test]
    fn what_step_ca_refuses() {
        let ca = step_ca();
        assert_eq!(ca.refuses(&PHONE), None);
        assert_eq!(ca.refuses(&Asking { common_names: &[], ..PHONE }), None);
        assert_eq!(ca.refuses(&Asking { client_identifier: "U", common_names: &["U"], ..PHONE }), None);
        assert_eq!(ca.refuses(&Asking { attested: false, ..PHONE }), Some(Refusal::Unattested));
        let one_time = Asking { client_identifier: "random", common_names: &[], ..PHONE };
        assert_eq!(ca.refuses(&one_time), Some(Refusal::IdentifierNotAttested));
        assert_eq!(ca.refuses(&Asking { common_names: &["device"], ..PHONE }), Some(Refusal::CommonName));
        assert_eq!(ca.refuses(&Asking { common_names: &["C02", "x"], ..PHONE }), Some(Refusal::CommonName));
        assert_eq!(ca.refuses(&Asking { client_identifier: "c02", ..PHONE }), Some(Refusal::IdentifierNotAttested));
        assert_eq!(ca.refuses(&Asking { client_identifier: "a/b", ..PHONE }), Some(Refusal::IdentifierMalformed));
    }

    #[test]
    fn th_40_step_ca_compares_a_mac_with_its_provisioning_udid() {
        let mac = Asking {
            platform: Some(Platform::Macos),
            provisioning_udid: Some("P"),
            client_identifier: "U",
            common_names: &[],
            ..PHONE
        };
        assert_eq!(step_ca().refuses(&mac), Some(Refusal::MacUdid));
        assert_eq!(step_ca().refuses(&Asking { client_identifier: "P", ..mac }), None);
    }

    #[test]
    fn th_41_step_ca_refuses_user_enrollment_whatever_it_asks_with() {
        for client_identifier in ["C02", "U", "random"] {
            let user = Asking { kind: EnrollmentKind::User, client_identifier, common_names: &[], ..PHONE };
            assert_eq!(step_ca().refuses(&user), Some(Refusal::UserEnrollment));
        }
    }

    #[test]
    fn a_generic_authority_refuses_what_the_operator_says_of_it() {
        let free = Authority::bare("https://ca.example", false, vec![]);
        let one_time = Asking { client_identifier: "random", common_names: &["x"], ..PHONE };
        assert_eq!(free.refuses(&one_time), None);
        let unattested = Asking { attested: false, ..one_time };
        assert_eq!(free.refuses(&unattested), Some(Refusal::Unattested));
        let open = Authority { accepts_unattested: true, ..free.clone() };
        assert_eq!(open.refuses(&unattested), None);
        let strict = Authority { identifier: IdentifierRule::Attested, ..open.clone() };
        assert_eq!(strict.refuses(&one_time), Some(Refusal::IdentifierNotAttested));
        assert_eq!(strict.refuses(&unattested), None, "nothing is shown that it could be compared with");
        let named = Authority { common_name: CommonNameRule::Identifier, ..open };
        assert_eq!(named.refuses(&one_time), Some(Refusal::CommonName));
    }

    proptest! {
        #[test]
        fn step_ca_takes_only_attested_devices_by_a_name_that_apple_attests(
            identifier in prop::sample::select(vec!["C02", "U", "P", "random", "", "C02 "]),
            attested: bool, mac: bool, user: bool, serial in prop::option::of(Just("C02")), udid in prop::option::of(Just("U")),
            provisioning in prop::option::of(Just("P")),
        ) {
            let asking = Asking {
                client_identifier: identifier, common_names: &[], attested,
                kind: if user { EnrollmentKind::User } else { EnrollmentKind::Device },
                platform: Some(if mac { Platform::Macos } else { Platform::Ios }),
                serial_number: serial, udid, provisioning_udid: provisioning,
            };
            if step_ca().refuses(&asking).is_none() {
                prop_assert!(attested && !user);
                let udid = if mac { provisioning } else { udid };
                prop_assert!(Some(identifier) == serial || Some(identifier) == udid);
            }
        }
    }
}
