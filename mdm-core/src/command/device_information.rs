//! `DeviceInformation`: what the device is, and Apple's attestation of it. Source: `information.device.yaml`.

use serde::{Deserialize, Serialize};

use crate::enrollment::{Channel, EnrollmentKind};
use crate::plist::fields::Fields;
use crate::plist::{Dictionary, Value};

/// The command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInformation {
    /// `Queries`.
    pub queries: Vec<&'static str>,
    /// `DeviceAttestationNonce`: at most 32 bytes. A new one asks for a new attestation, which Apple makes at most once
    /// in 7 days; otherwise the device answers with the one it has.
    pub attestation_nonce: Option<Vec<u8>>,
}

impl DeviceInformation {
    pub(super) const REQUEST_TYPE: &str = "DeviceInformation";

    pub(super) fn write(&self, command: &mut Dictionary) {
        let queries = self.queries.iter().map(|q| Value::from(*q)).collect();
        command.insert("Queries".into(), Value::Array(queries));
        if let Some(nonce) = &self.attestation_nonce {
            command.insert("DeviceAttestationNonce".into(), Value::Data(nonce.clone()));
        }
    }
}

/// The query whose answer is Apple's attestation.
pub const DEVICE_PROPERTIES_ATTESTATION: &str = "DevicePropertiesAttestation";

/// Everything that is of use for the decision about an ACME payload, all in one command: a device leaves out what it
/// does not know. `DevicePropertiesAttestation` is last and only wanted together with a nonce.
const DEVICE: &[&str] = &[
    "ProductName",
    "OSVersion",
    "BuildVersion",
    "SupplementalOSVersionExtra",
    "IsAppleSilicon",
    "Model",
    "ModelName",
    "SerialNumber",
    "UDID",
    "ProvisioningUDID",
    "IsSupervised",
    "IsMultiUser",
    "AwaitingConfiguration",
    DEVICE_PROPERTIES_ATTESTATION,
];

/// The same without what User Enrollment forbids.
const USER_ENROLLMENT: &[&str] = &[
    "ProductName",
    "OSVersion",
    "BuildVersion",
    "SupplementalOSVersionExtra",
    "IsAppleSilicon",
    "Model",
    "ModelName",
    "IsSupervised",
    "IsMultiUser",
    DEVICE_PROPERTIES_ATTESTATION,
];

/// On a user channel: what the device is, nothing that identifies it. The device channel has the rest.
const USER_CHANNEL: &[&str] = &[
    "ProductName",
    "OSVersion",
    "BuildVersion",
    "SupplementalOSVersionExtra",
    "IsAppleSilicon",
    "Model",
    "ModelName",
    "IsSupervised",
    "IsMultiUser",
];

/// What may be asked of this kind of enrollment on this channel.
pub fn queries(kind: EnrollmentKind, channel: Channel) -> &'static [&'static str] {
    match (channel, kind) {
        (Channel::User, _) => USER_CHANNEL,
        (Channel::Device, EnrollmentKind::User) => USER_ENROLLMENT,
        (Channel::Device, EnrollmentKind::Device | EnrollmentKind::Automated | EnrollmentKind::SharedIpad) => DEVICE,
    }
}

/// What the answer says; what the device left out, or gave in another type, is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// `ProductName`, such as `iPhone17,2`.
    pub product_name: Option<String>,
    /// `OSVersion`.
    pub os_version: Option<String>,
    /// `BuildVersion`.
    pub build_version: Option<String>,
    /// `SupplementalOSVersionExtra`, such as `(a)`.
    pub supplemental_os_version_extra: Option<String>,
    /// `IsAppleSilicon`; Macs only.
    pub is_apple_silicon: Option<bool>,
    /// `Model`: a part number on iOS, the product's identifier on macOS.
    pub model: Option<String>,
    /// `ModelName`.
    pub model_name: Option<String>,
    /// `SerialNumber`.
    pub serial_number: Option<String>,
    /// `UDID`.
    pub udid: Option<String>,
    /// `ProvisioningUDID`: what attestations of a Mac call the UDID.
    pub provisioning_udid: Option<String>,
    /// `IsSupervised`.
    pub is_supervised: Option<bool>,
    /// `IsMultiUser`: a Shared iPad.
    pub is_multi_user: Option<bool>,
    /// `AwaitingConfiguration`.
    pub awaiting_configuration: Option<bool>,
    /// `DevicePropertiesAttestation`: DER certificates, leaf first; not checked.
    pub device_properties_attestation: Option<Vec<Vec<u8>>>,
}

/// Reads the answer; `None` where the report holds none.
pub fn answer(body: &Dictionary) -> Option<Answers> {
    let mut f = Fields::new(body.get("QueryResponses")?.as_dictionary()?.clone());
    let attestation = f.array(DEVICE_PROPERTIES_ATTESTATION).ok().flatten();
    let mut string = |key| f.string(key).ok().flatten();
    Some(Answers {
        product_name: string("ProductName"),
        os_version: string("OSVersion"),
        build_version: string("BuildVersion"),
        supplemental_os_version_extra: string("SupplementalOSVersionExtra"),
        model: string("Model"),
        model_name: string("ModelName"),
        serial_number: string("SerialNumber"),
        udid: string("UDID"),
        provisioning_udid: string("ProvisioningUDID"),
        is_apple_silicon: f.boolean("IsAppleSilicon").ok().flatten(),
        is_supervised: f.boolean("IsSupervised").ok().flatten(),
        is_multi_user: f.boolean("IsMultiUser").ok().flatten(),
        awaiting_configuration: f.boolean("AwaitingConfiguration").ok().flatten(),
        // One item of another type makes the chain worthless, so then there is none.
        device_properties_attestation: attestation
            .and_then(|chain| chain.into_iter().map(Value::into_data).collect::<Option<Vec<_>>>())
            .filter(|chain| !chain.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plist::{Limits, decode_dictionary};

    #[test]
    fn the_stored_answer_is_read() {
        let bytes = include_bytes!("../../tests/golden/report_device_information.plist");
        let body = decode_dictionary(bytes, Limits::REPORT).unwrap();
        let answers = answer(&body).unwrap();
        assert_eq!(answers.product_name.as_deref(), Some("iPhone17,2"));
        assert_eq!(answers.is_supervised, Some(false));
        assert_eq!(answers.is_apple_silicon, None);
        assert_eq!(answers.device_properties_attestation, Some(vec![vec![0, 1, 2], vec![3, 4, 5]]));
        assert_eq!(answer(&Dictionary::new()), None);
    }

    #[test]
    fn what_is_of_another_type_counts_as_not_said() {
        let mut responses = Dictionary::new();
        responses.insert("ProductName".into(), 7.into());
        responses.insert("IsSupervised".into(), "yes".into());
        responses.insert("OSVersion".into(), "".into());
        let chain = vec![Value::Data(vec![1]), Value::from("x")];
        responses.insert(DEVICE_PROPERTIES_ATTESTATION.into(), Value::Array(chain));
        let mut body = Dictionary::new();
        body.insert("QueryResponses".into(), Value::Dictionary(responses));
        assert_eq!(answer(&body), Some(Answers::default()));
    }

    #[test]
    fn user_enrollment_is_never_asked_what_it_forbids() {
        for channel in [Channel::Device, Channel::User] {
            for forbidden in ["SerialNumber", "UDID", "ProvisioningUDID", "AwaitingConfiguration"] {
                assert!(!queries(EnrollmentKind::User, channel).contains(&forbidden), "{forbidden}");
            }
        }
        assert!(queries(EnrollmentKind::User, Channel::Device).contains(&DEVICE_PROPERTIES_ATTESTATION));
        assert!(queries(EnrollmentKind::Automated, Channel::Device).contains(&"AwaitingConfiguration"));
    }
}
