//! What User Enrollment forbids: the device belongs to a person, and the server may neither identify nor take it over.
//!
//! Source: `userenrollment: mode: forbidden` of Apple's `information.device.yaml`, `device.configured.yaml`, `TopLevel.yaml`
//! and `com.apple.mdm.yaml`; the commands that need supervision or an access right that User Enrollment does not have.

use super::Envelope;
use crate::crypto::cms_verify::{Rules, Sha1Rule, verify_attached};
use crate::plist::{self, Dictionary, Limits, Value};

/// Commands that are not for User Enrollment, on any platform.
const COMMANDS: &[&str] = &[
    "AccountConfiguration",
    "ActivationLockBypassCode",
    "ClearActivationLockBypassCode",
    "ClearPasscode",
    "ClearRestrictionsPassword",
    "DeleteUser",
    "DeviceConfigured",
    "DeviceLocation",
    "DisableLostMode",
    "DisableRemoteDesktop",
    "EnableLostMode",
    "EnableRemoteDesktop",
    "EraseDevice",
    "LOMDeviceRequest",
    "LOMSetupRequest",
    "LogOutUser",
    "PlayLostModeSound",
    "RestartDevice",
    "RotateFileVaultKey",
    "ScheduleOSUpdate",
    "SetAutoAdminPassword",
    "SetFirmwarePassword",
    "SetRecoveryLock",
    "ShutDownDevice",
    "UnlockUserAccount",
    "UserConfigured",
    "UserList",
    "VerifyFirmwarePassword",
    "VerifyRecoveryLock",
];

/// `DeviceInformation` queries that are not for User Enrollment.
const QUERIES: &[&str] = &[
    "AccessibilitySettings",
    "AutoSetupAdminAccounts",
    "AwaitingConfiguration",
    "BluetoothMAC",
    "CarrierSettingsVersion",
    "CurrentCarrierNetwork",
    "CurrentMCC",
    "CurrentMNC",
    "DataRoamingEnabled",
    "EACSPreflight",
    "EstimatedResidentUsers",
    "EthernetMAC",
    "ICCID",
    "IMEI",
    "IsActivationLockEnabled",
    "IsActivationLockSupported",
    "IsCloudBackupEnabled",
    "IsDoNotDisturbInEffect",
    "IsMDMLostModeEnabled",
    "IsRoaming",
    "LastCloudBackupDate",
    "MEID",
    "ManagedAppleIDDefaultDomains",
    "MaximumResidentUsers",
    "ModemFirmwareVersion",
    "OSUpdateSettings",
    "OnlineAuthenticationGracePeriod",
    "PINRequiredForDeviceLock",
    "PINRequiredForEraseDevice",
    "PersonalHotspotEnabled",
    "PhoneNumber",
    "ProvisioningUDID",
    "PushToken",
    "QuotaSize",
    "ResidentUsers",
    "SIMCarrierNetwork",
    "SerialNumber",
    "ServiceSubscriptions",
    "SkipLanguageAndLocaleSetupForNewUsers",
    "SoftwareUpdateDeviceID",
    "SoftwareUpdateSettings",
    "SubscriberCarrierNetwork",
    "SubscriberMCC",
    "SubscriberMNC",
    "TemporarySessionOnly",
    "TemporarySessionTimeout",
    "UDID",
    "UserSessionTimeout",
    "VoiceRoamingEnabled",
    "WiFiMAC",
    "iTunesStoreAccountHash",
    "iTunesStoreAccountIsActive",
];

/// Payloads that need a supervised device, or would replace the enrollment itself.
const PAYLOADS: &[&str] = &[
    "com.apple.app.lock",
    "com.apple.homescreenlayout",
    "com.apple.mdm",
    "com.apple.notificationsettings",
    "com.apple.proxy.http.global",
    "com.apple.shareddeviceconfiguration",
];

/// Why a command is not for User Enrollment; `None` where nothing speaks against it.
pub fn forbids(envelope: &Envelope) -> Option<String> {
    let kind = envelope.request_type.as_str();
    if COMMANDS.contains(&kind) {
        return Some(format!("User Enrollment forbids {kind}"));
    }
    match kind {
        "DeviceInformation" => {
            let command = command(envelope)?;
            let asked = command.get("Queries").and_then(Value::as_array)?;
            let forbidden = asked.iter().filter_map(Value::as_string).find(|query| QUERIES.contains(query))?;
            Some(format!("User Enrollment forbids the query {forbidden}"))
        }
        "InstallProfile" => {
            let command = command(envelope)?;
            let profile = profile(command.get("Payload").and_then(Value::as_data)?)?;
            if profile.get("PayloadRemovalDisallowed").and_then(Value::as_boolean) == Some(true) {
                return Some(
                    "User Enrollment forbids PayloadRemovalDisallowed: its profiles can be removed".to_owned(),
                );
            }
            let payloads = profile.get("PayloadContent").and_then(Value::as_array)?;
            let types = payloads.iter().filter_map(|p| p.as_dictionary()?.get("PayloadType")?.as_string());
            let forbidden = types.into_iter().find(|kind| PAYLOADS.contains(kind))?;
            Some(format!("User Enrollment forbids the payload {forbidden}"))
        }
        _ => None,
    }
}

fn command(envelope: &Envelope) -> Option<Dictionary> {
    let whole = plist::decode_dictionary(&envelope.body, Limits::API).ok()?;
    whole.get("Command").and_then(Value::as_dictionary).cloned()
}

/// A profile that can be looked into: plain, or inside a signature. Whether a device believes the signature is its own matter.
fn profile(bytes: &[u8]) -> Option<Dictionary> {
    let signed = || verify_attached(bytes, Rules { sha1: Sha1Rule::Accept }).ok().map(|(_, content)| content);
    let plain = if bytes.first() == Some(&0x30) { signed()? } else { bytes.to_vec() };
    plist::decode_dictionary(&plain, Limits::API).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{
        Command, DeviceConfigured, DeviceInformation, InstallProfile, SecurityInfo, device_information,
    };
    use crate::enrollment::{Channel, EnrollmentKind};

    fn why(command: impl Into<Command>) -> Option<String> {
        forbids(&command.into().envelope("one".parse().unwrap()))
    }

    #[test]
    fn what_we_ask_of_a_user_enrollment_is_allowed() {
        for channel in [Channel::Device, Channel::User] {
            let queries = device_information::queries(EnrollmentKind::User, channel).to_vec();
            assert_eq!(why(DeviceInformation { queries, attestation_nonce: None }), None);
        }
        assert_eq!(why(SecurityInfo), None);
        let profile = InstallProfile {
            payload:
                b"<plist version=\"1.0\"><dict><key>PayloadType</key><string>Configuration</string></dict></plist>"
                    .to_vec(),
        };
        assert_eq!(why(profile), None);
    }

    #[test]
    fn what_apple_forbids_is_named() {
        let all = device_information::queries(EnrollmentKind::Device, Channel::Device).to_vec();
        let asked = why(DeviceInformation { queries: all, attestation_nonce: None });
        assert_eq!(asked.as_deref(), Some("User Enrollment forbids the query SerialNumber"));
        assert!(why(DeviceConfigured).is_some());
        for (inside, word) in [
            ("<key>PayloadRemovalDisallowed</key><true/>", "PayloadRemovalDisallowed"),
            (
                "<key>PayloadContent</key><array><dict><key>PayloadType</key><string>com.apple.app.lock</string></dict></array>",
                "com.apple.app.lock",
            ),
        ] {
            let payload = format!("<plist version=\"1.0\"><dict>{inside}</dict></plist>").into_bytes();
            assert!(why(InstallProfile { payload }).unwrap().contains(word));
        }
    }
}
