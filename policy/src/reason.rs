//! Why a device gets the certificate profile that it gets, or none: stable codes, each with the rule it rests on.
//!
//! The codes are part of the REST API: one is never renamed or given another meaning. `docs/acme-decision-reasons.md`
//! is [`markdown`] of this table; a test compares them.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// One row of the table of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The stable code.
    pub code: ReasonCode,
    /// The rule, in a sentence.
    pub sentence: &'static str,
    /// Where the rule stands: Apple's page or schema key, or our own document.
    pub source: &'static str,
    /// What an operator can do about it.
    pub remedy: &'static str,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal: $sentence:literal, $source:literal, $remedy:literal;)+) => {
        /// The stable code of a reason. The text of a code is its name in snake case.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum ReasonCode {
            $($(#[doc = $doc])+ #[serde(rename = $code)] $name),+
        }

        impl ReasonCode {
            /// The code as text.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code),+ }
            }

            /// Reads the text that [`Self::as_str`] gives.
            pub fn from_text(text: &str) -> Option<Self> {
                match text { $($code => Some(Self::$name),)+ _ => None }
            }

            /// The rule in a sentence, its source and a remedy.
            pub fn reason(self) -> Reason {
                match self {
                    $(Self::$name => Reason { code: self, sentence: $sentence, source: $source, remedy: $remedy }),+
                }
            }
        }

        /// Every reason, in the order of the documentation.
        pub fn all() -> Vec<Reason> {
            [$(ReasonCode::$name),+].into_iter().map(ReasonCode::reason).collect()
        }
    };
}

reasons! {
    /// T1.
    PayloadNeedsNewerOs = "payload_needs_newer_os":
        "The ACME payload is supported from iOS and iPadOS 16.0, macOS 13.1, tvOS 16.0, visionOS 1.0 and watchOS 9.0.",
        "com.apple.security.acme, payload.supportedOS.*.introduced",
        "Update the device's operating system.";
    /// T8, asked and not answered.
    OsVersionUnknown = "os_version_unknown":
        "The device did not say its OS version, and without it no rule of the payload can be checked.",
        "acme.md T8",
        "Check that the enrollment profile's AccessRights allow device information.";
    /// An OS that nobody knows.
    PlatformUnknown = "platform_unknown":
        "The device's model says nothing of its operating system, and its OS version alone does not prove that it knows the ACME payload.",
        "soc-rules.md step 6",
        "Look at the device's ProductName; a newer Assay may know it.";
    /// T2.
    UserChannelMacOnly = "user_channel_mac_only":
        "The ACME payload is allowed on the user channel of a Mac only.",
        "com.apple.security.acme, payload.supportedOS.macOS.userchannel",
        "Use the policy on the device channel.";
    /// T2, Shared iPad.
    SharedIpadUserChannel = "shared_ipad_user_channel":
        "On a Shared iPad the ACME payload is allowed on the device channel only.",
        "com.apple.security.acme, payload.supportedOS.iOS.sharedipad.userchannel",
        "Use the policy on the device channel.";
    /// The policy is not for this channel.
    ChannelNotWanted = "channel_not_wanted":
        "The policy is not meant for this channel.",
        "ACME policy, channel",
        "Set the policy's channel to device, user or both.";
    /// T3.
    UserEnrollmentPlatform = "user_enrollment_platform":
        "In User Enrollment the ACME payload is allowed on iOS, iPadOS, macOS and visionOS only.",
        "com.apple.security.acme, payload.supportedOS.*.userenrollment",
        "Enroll the device by another way.";
    /// T4.
    HardwareBoundNeedsMacos14 = "hardware_bound_needs_macos_14":
        "HardwareBound may be true from macOS 14; older versions need it to be false, and so Attest.",
        "com.apple.security.acme, HardwareBound and Attest",
        "Update the Mac to macOS 14 or later.";
    /// T5.
    HardwareBoundNeedsT2OrAppleSilicon = "hardware_bound_needs_t2_or_apple_silicon":
        "On a Mac without Apple silicon or a T2 chip, HardwareBound and Attest must be false.",
        "com.apple.security.acme, HardwareBound; note \"ACME attestation hardware support\", row Must be false",
        "Accept unattested keys for such Macs in a policy of their own, or leave them out of the scope.";
    /// Virtual machines and developer kits.
    VirtualMachine = "virtual_machine":
        "A virtual Mac or developer kit is given neither HardwareBound nor Attest, whatever it says of its silicon.",
        "soc-rules.md step 2 (no sentence of Apple's; open question Q3)",
        "Accept unattested keys in a policy for virtual machines.";
    /// Q3.
    UserChannelHardwareBoundOff = "user_channel_hardware_bound_off":
        "On the user channel of a Mac, HardwareBound and Attest are used only where the policy switches them on.",
        "ACME policy, user_channel_hardware_bound (open question Q3)",
        "Set user_channel_hardware_bound, or use the device channel.";
    /// Apple's row "Ignored".
    AttestIgnoredBySilicon = "attest_ignored_by_silicon":
        "The chip (A10X and earlier, T2, S3 and earlier) ignores Attest, and the ACME server receives no attestation.",
        "com.apple.security.acme, note \"ACME attestation hardware support\", row Ignored",
        "Accept unattested keys for such devices in a policy of their own, or leave them out of the scope.";
    /// C4.
    AttestNeedsIpados161 = "attest_needs_ipados_16_1":
        "Attestation is available from iPadOS 16.1.",
        "Apple Platform Deployment, Managed Device Attestation",
        "Update the iPad to iPadOS 16.1 or later.";
    /// T6.
    AttestNeedsWatchos10 = "attest_needs_watchos_10":
        "The Attest key exists from watchOS 10.0.",
        "com.apple.security.acme, Attest.supportedOS.watchOS.introduced",
        "Update the watch to watchOS 10 or later.";
    /// soc-rules.md step 6.
    HardwareUnknown = "hardware_unknown":
        "Nobody knows whether this model's chip can attest, and it is not guessed.",
        "soc-rules.md step 6 (open question Q24)",
        "Look at the device's ProductName; a newer Assay may know it.";
    /// soc-rules.md step 7.
    SiliconDisagrees = "silicon_disagrees":
        "IsAppleSilicon and the model contradict each other; the more careful class was taken.",
        "soc-rules.md step 7",
        "Check what the device reports.";
    /// Q1: the policy forbids what it demands.
    AttestNotAsked = "attest_not_asked":
        "The policy asks for no attestation, while its certificate authority accepts attested devices only.",
        "ACME policy, attest and ca_accepts_unattested",
        "Set attest to when_supported or required, or ca_accepts_unattested to true.";
    /// R12.
    MacOnlyKeysLeftOut = "mac_only_keys_left_out":
        "KeyIsExtractable and AllowAllAppsAccess exist on macOS only and are left out.",
        "com.apple.security.acme, KeyIsExtractable.supportedOS and AllowAllAppsAccess.supportedOS",
        "Nothing needs to be done.";
    /// Q4.
    KeySize384 = "key_size_384":
        "Apple's page allows a hardware-bound key of 384 bits; a Mac's Secure Enclave is reported to take only 256.",
        "com.apple.security.acme, KeyType (open question Q4)",
        "Use a key_size of 256 if installations fail.";
    /// TH-40.
    MacUdidNotAttested = "mac_udid_not_attested":
        "On a Mac the attested UDID is the ProvisioningUDID, which differs from {udid} on Apple silicon.",
        "DeviceInformation, DevicePropertiesAttestation; threat TH-40",
        "Use {serial} or {provisioning_udid} in client_identifier.";
    /// A template asks for what this device did not say.
    TemplateValueMissing = "template_value_missing":
        "A template of the policy uses a value that this device has not reported.",
        "ACME policy, templates",
        "Use another variable, or leave the device out of the scope.";
    /// Q30.
    TemplateNotInUserEnrollment = "template_not_in_user_enrollment":
        "In User Enrollment a device tells neither its serial number nor its UDID, so {serial}, {udid} and {provisioning_udid} cannot be used.",
        "DeviceInformation, SerialNumber and UDID, userenrollment.mode forbidden",
        "Use {random} or {enrollment_id}.";
    /// A rendered value breaks R1 to R13.
    PayloadInvalid = "payload_invalid":
        "With this device's values the payload would break one of Apple's rules.",
        "com.apple.security.acme",
        "Read the decision's detail, which names the key, and change the policy.";
    /// T8, at delivery.
    FactsStale = "facts_stale":
        "What is known of the device is older than a day and is asked for again before a profile is sent.",
        "acme.md T8: decide at delivery time",
        "Nothing needs to be done.";
    /// The device said so.
    InstallFailed = "install_failed":
        "The device answered the profile with an error; it is tried again later, a limited number of times.",
        "InstallProfile, ErrorChain",
        "Read the error chain in the decision's detail.";
    /// The command ended without an answer.
    CommandEnded = "command_ended":
        "The command was cancelled, expired or got no report; it is tried again later.",
        "Assay, command queue",
        "Look at the command's state.";
    /// Our own fault.
    ServerFault = "server_fault":
        "What is stored of the policy or the device cannot be read, or the profile cannot be signed.",
        "Assay, server log",
        "Read the server's log at this time; writing the policy anew may help.";
    /// Enough is enough.
    GivenUp = "given_up":
        "The profile failed too often; nothing more is tried until the policy or the device changes.",
        "acme.md section 8: back off, never loop re-installs",
        "Read the error chain in the decision's detail, then write the policy anew.";
    /// The policy is gone.
    PolicyGone = "policy_gone":
        "The policy was deleted or the device was taken out of its scope.",
        "ACME policy",
        "Nothing needs to be done.";
}

impl std::fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The table of reasons as it stands in `docs/acme-decision-reasons.md`.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Reasons of an ACME decision\n\n\
         Generated from `policy/src/reason.rs`. The codes are stable: they are part of the REST API. A reason either \
         closes the gate (no profile is sent) or explains why a weaker form is sent.\n\n\
         | code | rule | source | what to do |\n| --- | --- | --- | --- |\n",
    );
    for reason in all() {
        let Reason { code, sentence, source, remedy } = reason;
        let _ = writeln!(out, "| `{code}` | {sentence} | {source} | {remedy} |");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_snake_case_and_read_back() {
        let mut seen = std::collections::BTreeSet::new();
        for reason in all() {
            let code = reason.code.as_str();
            assert!(seen.insert(code), "{code} twice");
            assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{code}");
            assert_eq!(ReasonCode::from_text(code), Some(reason.code));
            assert_eq!(serde_json::to_value(reason.code).unwrap(), code);
            for text in [reason.sentence, reason.remedy] {
                assert!(text.ends_with('.') && !text.contains('|'), "{code}: {text}");
            }
        }
    }

    #[test]
    fn the_documentation_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/acme-decision-reasons.md");
        if std::env::var_os("ASSAY_BLESS").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            markdown(),
            "ASSAY_BLESS=1 cargo test -p policy reason writes it"
        );
    }
}
