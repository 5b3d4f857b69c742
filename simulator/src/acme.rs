//! The ACME payload (`com.apple.security.acme`) as the device looks at it.
//!
//! Source: Apple, "ACMECertificate" (`com.apple.security.acme.yaml`): keys, types, ranges, the OS versions of each, and
//! the table "ACME attestation hardware support". A device of this simulator is strict: what Apple's page forbids is an
//! error, also where real devices may look away, so that a server that sends it is found out.

use crate::hardware::{Attestation, Family, Version};
use crate::plist::Value;
use crate::profile::{Refusal, Situation, is_oid};

/// The payload's type.
pub const PAYLOAD_TYPE: &str = "com.apple.security.acme";

/// What an accepted ACME payload asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// `DirectoryURL`.
    pub directory_url: String,
    /// `ClientIdentifier`.
    pub client_identifier: String,
    /// `KeyType`.
    pub key_type: String,
    /// `KeySize`, bits.
    pub key_size: i64,
    /// `HardwareBound`.
    pub hardware_bound: bool,
    /// `Attest`; `None` where the key is left out.
    pub attest: Option<bool>,
    /// `KeyIsExtractable`; `None` where the key is left out.
    pub key_is_extractable: Option<bool>,
    /// `AllowAllAppsAccess`; `None` where the key is left out.
    pub allow_all_apps_access: Option<bool>,
}

/// What a device makes of a payload that it accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Honoured {
    /// The key is made in hardware and can't leave it.
    pub hardware_bound: bool,
    /// The key is attested.
    pub attested: bool,
}

/// What the device would really do: `Attest` is ignored by some silicon, and by iPadOS 16.0.
///
/// Sources: the table under `Attest`; "Managed Device Attestation" in Apple's deployment guide (iPadOS 16.1).
pub fn honoured(acme: &Acme, device: &Situation) -> Honoured {
    let too_old = device.family == Family::IPad && device.os < Version::new(16, 1);
    let attests = device.attestation == Attestation::Supported && !too_old;
    Honoured { hardware_bound: acme.hardware_bound, attested: acme.attest == Some(true) && attests }
}

/// Whether the operating system knows the payload at all.
fn known_since(family: Family) -> Version {
    match family {
        Family::IPhone | Family::IPad | Family::IPod | Family::AppleTv => Version::new(16, 0),
        Family::Mac => Version::new(13, 1),
        Family::Watch => Version::new(9, 0),
        Family::Vision => Version::new(1, 0),
    }
}

/// Reads and checks one ACME payload.
pub fn check(payload: &Value, device: &Situation) -> Result<Acme, Refusal> {
    if device.os < known_since(device.family) {
        return Err(refuse("PayloadType", &format!("not known to {} {:?}", device.family.os(), device.os)));
    }
    if device.user_channel && device.family != Family::Mac {
        return Err(refuse("PayloadType", "not allowed on a user channel of this system"));
    }
    if device.user_enrollment && matches!(device.family, Family::AppleTv | Family::Watch) {
        return Err(refuse("PayloadType", "not allowed in User Enrollment on this system"));
    }
    known_keys(payload, device)?;

    let acme = Acme {
        directory_url: string(payload, "DirectoryURL")?,
        client_identifier: string(payload, "ClientIdentifier")?,
        key_type: string(payload, "KeyType")?,
        key_size: payload
            .get("KeySize")
            .and_then(Value::as_integer)
            .ok_or_else(|| refuse("KeySize", "an integer is required"))?,
        hardware_bound: boolean(payload, "HardwareBound")?
            .ok_or_else(|| refuse("HardwareBound", "a boolean is required"))?,
        attest: boolean(payload, "Attest")?,
        key_is_extractable: boolean(payload, "KeyIsExtractable")?,
        allow_all_apps_access: boolean(payload, "AllowAllAppsAccess")?,
    };
    if !acme.directory_url.starts_with("https://") || acme.directory_url.len() < 9 {
        return Err(refuse("DirectoryURL", "an https URL is required"));
    }
    if acme.client_identifier.is_empty() {
        return Err(refuse("ClientIdentifier", "must not be empty"));
    }
    key_rules(&acme, device)?;
    subject(payload)?;
    subject_alt_name(payload)?;
    usage(payload)?;
    Ok(acme)
}

fn known_keys(payload: &Value, device: &Situation) -> Result<(), Refusal> {
    const EVERYWHERE: [&str; 10] = [
        "DirectoryURL",
        "ClientIdentifier",
        "KeyType",
        "KeySize",
        "HardwareBound",
        "Subject",
        "SubjectAltName",
        "UsageFlags",
        "ExtendedKeyUsage",
        "Attest",
    ];
    for (key, _) in payload.entries() {
        let known = match key.as_str() {
            "Attest" if device.family == Family::Watch => device.os >= Version::new(10, 0),
            "KeyIsExtractable" | "AllowAllAppsAccess" => device.family == Family::Mac,
            other => other.starts_with("Payload") || EVERYWHERE.contains(&other),
        };
        if !known {
            return Err(refuse(key, "not a key of this payload on this system"));
        }
    }
    Ok(())
}

fn key_rules(acme: &Acme, device: &Situation) -> Result<(), Refusal> {
    let size = acme.key_size;
    match acme.key_type.as_str() {
        "RSA" if !(1024..=4096).contains(&size) || size % 8 != 0 => {
            return Err(refuse("KeySize", "an RSA key has 1024 to 4096 bits, a multiple of 8"));
        }
        "ECSECPrimeRandom" if ![192, 256, 384, 521].contains(&size) => {
            return Err(refuse("KeySize", "an elliptic curve has 192, 256, 384 or 521 bits"));
        }
        "RSA" | "ECSECPrimeRandom" => {}
        _ => return Err(refuse("KeyType", "RSA or ECSECPrimeRandom is required")),
    }
    let bindable = acme.key_type == "ECSECPrimeRandom" && (size == 256 || size == 384);
    if acme.hardware_bound {
        if !bindable {
            return Err(refuse("HardwareBound", "needs ECSECPrimeRandom with 256 or 384 bits"));
        }
        if device.family == Family::Mac && device.os < Version::new(14, 0) {
            return Err(refuse("HardwareBound", "must be false before macOS 14"));
        }
        if !device.secure_enclave {
            return Err(refuse("HardwareBound", "must be false on this hardware"));
        }
        if acme.key_is_extractable == Some(true) {
            return Err(refuse("KeyIsExtractable", "a hardware-bound key can't be extracted"));
        }
    }
    let before_14 = device.family == Family::Mac && device.os < Version::new(14, 0);
    match acme.attest {
        Some(true) if !acme.hardware_bound => Err(refuse("Attest", "needs HardwareBound")),
        Some(true) if before_14 => Err(refuse("Attest", "must be false before macOS 14")),
        Some(true) if device.attestation == Attestation::MustBeFalse => {
            Err(refuse("Attest", "must be false on this hardware"))
        }
        None if before_14 => Err(refuse("Attest", "required before macOS 14, with the value false")),
        _ => Ok(()),
    }
}

fn subject(payload: &Value) -> Result<(), Refusal> {
    let wrong = |why: &str| refuse("Subject", why);
    let rdns = payload.get("Subject").and_then(Value::as_array);
    let rdns = rdns.filter(|rdns| !rdns.is_empty()).ok_or_else(|| wrong("an array of RDNs is required"))?;
    for rdn in rdns {
        let pairs = rdn.as_array().filter(|pairs| !pairs.is_empty());
        for pair in pairs.ok_or_else(|| wrong("an RDN is an array of pairs"))? {
            let [kind, value] = pair.as_array().unwrap_or_default() else {
                return Err(wrong("a pair has two strings"));
            };
            let (Some(kind), Some(_)) = (kind.as_str(), value.as_str()) else {
                return Err(wrong("a pair has two strings"));
            };
            if !["C", "L", "ST", "O", "OU", "CN"].contains(&kind) && !is_oid(kind) {
                return Err(wrong("a type is C, L, ST, O, OU, CN or a dotted OID"));
            }
        }
    }
    Ok(())
}

fn subject_alt_name(payload: &Value) -> Result<(), Refusal> {
    let Some(names) = payload.get("SubjectAltName") else { return Ok(()) };
    if !matches!(names, Value::Dict(_)) {
        return Err(refuse("SubjectAltName", "a dict is required"));
    }
    for (key, value) in names.entries() {
        if !["rfc822Name", "dNSName", "uniformResourceIdentifier", "ntPrincipalName"].contains(&key.as_str()) {
            return Err(refuse("SubjectAltName", &format!("{key} is not one of its keys")));
        }
        if value.as_str().is_none() {
            return Err(refuse("SubjectAltName", &format!("{key} is one string")));
        }
    }
    Ok(())
}

fn usage(payload: &Value) -> Result<(), Refusal> {
    if let Some(flags) = payload.get("UsageFlags") {
        let flags = flags.as_integer().ok_or_else(|| refuse("UsageFlags", "an integer is required"))?;
        if ![0, 1, 4, 5].contains(&flags) {
            return Err(refuse("UsageFlags", "only the bits 1 and 4 have a meaning"));
        }
    }
    if let Some(usages) = payload.get("ExtendedKeyUsage") {
        let usages = usages.as_array().ok_or_else(|| refuse("ExtendedKeyUsage", "an array is required"))?;
        if !usages.iter().all(|usage| usage.as_str().is_some_and(is_oid)) {
            return Err(refuse("ExtendedKeyUsage", "each is a dotted OID"));
        }
    }
    Ok(())
}

fn string(payload: &Value, key: &str) -> Result<String, Refusal> {
    payload.text(key).map(str::to_owned).ok_or_else(|| refuse(key, "a string is required"))
}

fn boolean(payload: &Value, key: &str) -> Result<Option<bool>, Refusal> {
    match payload.get(key) {
        None => Ok(None),
        Some(Value::Boolean(truth)) => Ok(Some(*truth)),
        Some(other) => Err(refuse(key, &format!("a boolean is required, not {}", other.type_name()))),
    }
}

fn refuse(key: &str, why: &str) -> Refusal {
    Refusal::new(4001, &format!("{PAYLOAD_TYPE}: {key}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plist::parse;

    fn situation(product: &str, os: &str) -> Situation {
        let hardware = crate::hardware::find(product).unwrap();
        Situation::new(hardware, os)
    }

    fn payload(replace: &[(&str, &str)]) -> Value {
        let mut keys = vec![
            ("DirectoryURL", "<string>https://ca.example/acme</string>"),
            ("ClientIdentifier", "<string>abc</string>"),
            ("KeyType", "<string>ECSECPrimeRandom</string>"),
            ("KeySize", "<integer>384</integer>"),
            ("HardwareBound", "<true/>"),
            ("Attest", "<true/>"),
            ("Subject", "<array><array><array><string>CN</string><string>a</string></array></array></array>"),
        ];
        for (key, value) in replace {
            keys.retain(|(known, _)| known != key);
            if !value.is_empty() {
                keys.push((key, value));
            }
        }
        let inner: String =
            keys.iter().map(|(key, value)| format!("<key>{key}</key>{value}")).collect::<Vec<_>>().concat();
        parse(format!("<plist><dict>{inner}</dict></plist>").as_bytes()).unwrap()
    }

    fn refused(product: &str, os: &str, replace: &[(&str, &str)]) -> String {
        match check(&payload(replace), &situation(product, os)) {
            Ok(acme) => panic!("accepted: {acme:?}"),
            Err(refusal) => refusal.text,
        }
    }

    #[test]
    fn what_apple_allows_is_accepted() {
        for (product, os, replace) in [
            ("iPhone17,2", "18.1", vec![]),
            ("iPad7,5", "17.7", vec![]),
            ("Macmini8,1", "14.0", vec![("KeyIsExtractable", "<false/>")]),
            ("MacBookAir10,1", "13.6", vec![("HardwareBound", "<false/>"), ("Attest", "<false/>")]),
            ("Watch6,2", "9.6", vec![("Attest", "")]),
            (
                "iPhone17,2",
                "18.1",
                vec![("HardwareBound", "<false/>"), ("Attest", ""), ("KeySize", "<integer>521</integer>")],
            ),
        ] {
            check(&payload(&replace), &situation(product, os)).unwrap();
        }
    }

    #[test]
    fn what_apple_forbids_is_refused_by_the_name_of_its_key() {
        let off = [("HardwareBound", "<false/>"), ("Attest", "<false/>")];
        for (product, os, replace, key) in [
            ("iPhone9,1", "15.8", vec![], "PayloadType"),
            ("MacBookAir10,1", "13.0", off.to_vec(), "PayloadType"),
            ("MacBookAir10,1", "13.6", vec![], "HardwareBound"),
            ("MacBookAir10,1", "13.6", vec![("HardwareBound", "<false/>"), ("Attest", "")], "Attest"),
            ("iMac19,1", "14.0", vec![], "HardwareBound"),
            ("VirtualMac2,1", "15.0", vec![], "HardwareBound"),
            ("Watch6,2", "9.6", vec![], "Attest"),
            ("iPhone17,2", "18.1", vec![("KeyIsExtractable", "<false/>")], "KeyIsExtractable"),
            ("AppleTV14,1", "17.0", vec![("AllowAllAppsAccess", "<false/>")], "AllowAllAppsAccess"),
            ("iPhone17,2", "18.1", vec![("HardwareBound", "<false/>")], "Attest"),
            ("iPhone17,2", "18.1", vec![("KeySize", "<integer>512</integer>")], "KeySize"),
            ("iPhone17,2", "18.1", vec![("KeySize", "<string>384</string>")], "KeySize"),
            ("iPhone17,2", "18.1", vec![("KeyType", "<string>RSA</string>")], "KeySize"),
            ("iPhone17,2", "18.1", vec![("Subject", "")], "Subject"),
            ("iPhone17,2", "18.1", vec![("Subject", "<array><array><string>CN</string></array></array>")], "Subject"),
            ("iPhone17,2", "18.1", vec![("DirectoryURL", "<string>http://ca/</string>")], "DirectoryURL"),
            ("iPhone17,2", "18.1", vec![("Surprise", "<true/>")], "Surprise"),
            ("iPhone17,2", "18.1", vec![("HardwareBound", "<string>true</string>")], "HardwareBound"),
            ("iPhone17,2", "18.1", vec![("UsageFlags", "<integer>2</integer>")], "UsageFlags"),
            ("iPhone17,2", "18.1", vec![("ExtendedKeyUsage", "<array><string>x</string></array>")], "ExtendedKeyUsage"),
        ] {
            let text = refused(product, os, &replace);
            assert!(text.contains(&format!(": {key}: ")), "{product} {os} {replace:?}: {text}");
        }
        let mut user = situation("iPad16,3", "18.0");
        user.user_channel = true;
        assert!(check(&payload(&[]), &user).is_err());
        let mut television = situation("AppleTV14,1", "18.0");
        television.user_enrollment = true;
        assert!(check(&payload(&[]), &television).is_err());
    }
}
