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
    /// The policy is not for this operating system.
    PlatformNotWanted = "platform_not_wanted":
        "The policy is not meant for this operating system.",
        "ACME policy, platforms",
        "Add the operating system to the policy's platforms, or leave the device out of the scope.";
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
    /// TH-43.
    ClientIdentifierNoSecret = "client_identifier_no_secret":
        "Without an attestation ClientIdentifier is all that tells the device from others, and one without {random} can be known by others.",
        "docs/certificate-authorities.md; threat TH-43",
        "Use {random} in client_identifier: a webhook of Assay says no to any other without an attestation.";
    /// Q1, of a named authority.
    CaUnattested = "ca_unattested":
        "The certificate authority issues to attested devices only, and this device gives no attestation.",
        "certificate authority, accepts_unattested (open question Q1)",
        "Leave such devices out of the scope, or use an authority that accepts them.";
    /// TH-44.
    CaIdentifierMalformed = "ca_identifier_malformed":
        "With this device's values ClientIdentifier cannot stand in an ACME order as a permanent-identifier.",
        "draft-ietf-acme-device-attest, permanent-identifier; threat TH-44",
        "Use {serial}, {udid}, {provisioning_udid} or {random} in client_identifier.";
    /// step-ca compares it with the attestation.
    CaIdentifierNotAttested = "ca_identifier_not_attested":
        "The certificate authority wants ClientIdentifier to be the serial number or the UDID that the attestation carries.",
        "step-ca, device-attest-01 with the format apple",
        "Use {serial} in client_identifier.";
    /// TH-40, with an authority that compares.
    CaMacUdid = "ca_mac_udid":
        "The certificate authority compares ClientIdentifier with the attested UDID, which on a Mac is the ProvisioningUDID and not the UDID.",
        "step-ca, device-attest-01 with the format apple; threat TH-40",
        "Use {serial} or {provisioning_udid} in client_identifier.";
    /// Q30.
    CaUserEnrollment = "ca_user_enrollment":
        "In User Enrollment an attestation carries neither serial number nor UDID, so this certificate authority refuses it.",
        "step-ca, device-attest-01 with the format apple (open question Q30)",
        "Use an authority that checks key and freshness instead, or leave such enrollments out of the scope.";
    /// step-ca's rule for the request.
    CaCommonName = "ca_common_name":
        "The certificate authority wants the common name to be left out or the same as ClientIdentifier.",
        "step-ca, ACME orders with a permanent-identifier",
        "Leave CN out of subject, or give it the template of client_identifier.";
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
    /// A payload beside the identity.
    CompanionNotSupported = "companion_not_supported":
        "Apple does not allow a companion of the policy on this device, and a profile with it would fail as a whole.",
        "com.apple.vpn.managed, payload.supportedOS",
        "Make the companion optional, name its platforms, or use a policy without it for such devices.";
    /// A payload beside the identity that the policy can do without.
    CompanionLeftOut = "companion_left_out":
        "Apple does not allow an optional companion of the policy on this device; the profile comes without it.",
        "com.apple.vpn.managed, payload.supportedOS",
        "Nothing needs to be done.";
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
    /// The device would not say.
    CertificateListRefused = "certificate_list_refused":
        "The device answered the question for its certificates with an error; it is asked again later.",
        "CertificateList, ErrorChain",
        "Check that the enrollment profile's AccessRights allow inspecting the certificates.";
    /// It was there, and is no more.
    CertificateGone = "certificate_gone":
        "The certificate was seen on the device before and is there no more; the profile is installed again.",
        "CertificateList; docs/proof.md",
        "Find out who took it off.";
    /// Not its turn yet.
    RolloutHeld = "rollout_held":
        "The rollout of this revision has not come to the device, or was stopped before.",
        "ACME policy, rollout",
        "Wait, or resume the rollout.";
    /// Enough is enough.
    GivenUp = "given_up":
        "The profile failed too often; nothing more is tried until the policy or the device changes.",
        "acme.md section 8: back off, never loop re-installs",
        "Read the error chain in the decision's detail, then write the policy anew.";
    /// Proof: nothing new.
    CertificateNotListed = "certificate_not_listed":
        "The device has acknowledged the profile, and its CertificateList shows no identity that could have come by it.",
        "CertificateList, IsIdentity; docs/proof.md",
        "Wait for the next list; look at the certificate authority's log for an order of this device.";
    /// Proof: nobody to compare with.
    IssuersUnknown = "issuers_unknown":
        "Assay knows no certificate that may sign what this authority issues, so a certificate proves nothing.",
        "docs/proof.md",
        "Give the issuers of the certificate authority, or those of the policy where it names a bare directory_url.";
    /// Proof: the wrong issuer.
    CertificateIssuerUnknown = "certificate_issuer_unknown":
        "The device shows an identity with the right names, and none of the authority's issuers signed it.",
        "docs/proof.md",
        "Compare the issuer of the certificate with the issuers of the certificate authority: an intermediate may be missing.";
    /// Proof: the names.
    CertificateNamesDiffer = "certificate_names_differ":
        "The device shows a new certificate of the authority whose subject and names are not those that were asked for.",
        "com.apple.security.acme, Subject and SubjectAltName: the ACME server may override or ignore them; docs/proof.md",
        "Write the policy's subject as the certificate authority's template issues it.";
    /// Proof: the key.
    CertificateKeyDiffers = "certificate_key_differs":
        "The device shows a certificate for a key of another kind, or for another key than the authority asked about.",
        "com.apple.security.acme, KeyType and KeySize; docs/proof.md",
        "Read the decision's detail; look at the certificate authority's log.";
    /// Proof: too old, or over.
    CertificateNotFresh = "certificate_not_fresh":
        "The device shows a fitting certificate that is older than the delivery of the profile, or has ended.",
        "docs/proof.md",
        "Set the authority's clock, or let it date certificates back by less than five minutes; with its webhook this is no matter.";
    /// TH-42.
    CertificateOfAnother = "certificate_of_another":
        "The device shows a certificate whose key belongs to another enrollment.",
        "threat TH-42; docs/proof.md",
        "Treat both devices as compromised until it is explained: a key that was made on one device cannot be on another.";
    /// TH-38, TH-41: a requirement, and hardware that cannot meet it.
    AttestationUnsupported = "attestation_unsupported":
        "The policy requires what only an attestation shows, and this device's chip or OS gives none.",
        "DeviceInformation, note \"DeviceInformation attestation hardware support\"; ACME policy, require",
        "Update the OS, or leave the device out of the scope.";
    /// Nothing was attested yet.
    AttestationMissing = "attestation_missing":
        "The policy requires what only an attestation shows, and the device has sent none.",
        "DeviceInformation, DevicePropertiesAttestation; ACME policy, require",
        "Wait for the next answer; then check the enrollment's AccessRights and that the device reaches Apple's attestation servers.";
    /// Section (d), steps 1 to 3.
    AttestationRefused = "attestation_refused":
        "The device's newest attestation proves nothing; the detail says why.",
        "DeviceInformation, DevicePropertiesAttestation (rooted with the Apple Enterprise Attestation Root CA)",
        "Look at the attestations of the enrollment.";
    /// TH-39.
    AttestationMismatch = "attestation_mismatch":
        "The device's newest attestation is that of another device.",
        "DeviceInformation, DevicePropertiesAttestation, OIDs 8.9.1 and 8.9.2; threat TH-39",
        "Find out who sends it: this is not a fault that goes away.";
    /// TH-38.
    AttestationStale = "attestation_stale":
        "The attestation is older than the policy allows, or nothing shows how old it is.",
        "DeviceInformation, DeviceAttestationNonce (a device answers with an attestation that it has for 7 days)",
        "Wait: the device is asked again by itself, and answers anew 7 days after its last attestation.";
    /// TH-41.
    IdentityNotAttested = "identity_not_attested":
        "The policy requires an attested serial number or UDID, and Apple attests neither of this device, as always in User Enrollment.",
        "DeviceInformation, DevicePropertiesAttestation, OIDs 8.9.1 and 8.9.2",
        "Use a policy without require.identity for User Enrollment.";
    /// Missing is not good.
    ValueNotAttested = "value_not_attested":
        "The policy requires a value that the attestation does not have; the detail says which.",
        "DeviceInformation, DevicePropertiesAttestation (a value that Apple cannot verify is blank or left out)",
        "Update the OS: models, OS versions and boot values are attested from iOS 17.2 and macOS 14.2.";
    /// SIP.
    SipDisabled = "sip_disabled":
        "The policy requires System Integrity Protection, and Apple attests that it is off.",
        "DeviceInformation, DevicePropertiesAttestation, OID 8.13.1",
        "Switch it on in recovery (csrutil enable).";
    /// Secure boot.
    SecureBootTooWeak = "secure_boot_too_weak":
        "Secure boot of this Mac is weaker than the policy requires.",
        "DeviceInformation, DevicePropertiesAttestation, OID 8.13.2",
        "Choose Full Security in Startup Security Utility.";
    /// Kernel extensions.
    ThirdPartyKextsAllowed = "third_party_kexts_allowed":
        "The policy requires that no third-party kernel extensions are allowed, and this Mac allows them.",
        "DeviceInformation, DevicePropertiesAttestation, OID 8.13.3",
        "Disallow them in Startup Security Utility.";
    /// Attested, not claimed.
    AttestedOsTooOld = "attested_os_too_old":
        "The attested OS version is older than the policy requires.",
        "DeviceInformation, DevicePropertiesAttestation, OID 8.10.1",
        "Update the device's operating system; it is attested anew within 8 days.";
    /// Models.
    ModelNotAllowed = "model_not_allowed":
        "The attested model is not one that the policy allows.",
        "DeviceInformation, DevicePropertiesAttestation, OID 8.9.4; ACME policy, require.models",
        "Add the model to require.models, or leave the device out of the scope.";
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
