//! Reading companions: each wrong field is named, and every name that one companion uses is one that another has.

use std::collections::BTreeMap;

use mdm_core::certificate::{self, Certificate};
use mdm_core::hardware::Platform;
use mdm_core::ids::Label;
use mdm_core::profile::acme::KeyKind;

use super::render::{Body, Ready};
use super::{
    CertificateCompanion, Companion, IDENTITY, RawCompanion, SecurityAssociation, VpnCompanion, WifiCompanion, raw,
};
use crate::acme::Errors;
use crate::template::Template;

/// Most companions in one policy.
const MOST: usize = 32;
const TLS_VERSIONS: [&str; 4] = ["1.0", "1.1", "1.2", "1.3"];

/// What a companion is, for those that refer to it.
type Known<'a> = BTreeMap<&'a str, &'a Companion>;

/// Checks companions against Apple's pages and against each other.
pub(crate) fn check(companions: &[Companion], key: Option<KeyKind>, errors: &mut Errors) -> Vec<Ready> {
    errors.check("companions", companions.len() <= MOST, "at most 32");
    let mut known = Known::new();
    let mut out = Vec::new();
    for (n, companion) in companions.iter().enumerate() {
        let at = format!("companions[{n}]");
        let common = companion.common();
        // A companion's name has the form of every other name in a policy.
        errors.keep(&format!("{at}.name"), common.name.parse::<Label>().map_err(|e| e.why.to_owned()));
        errors.check(&format!("{at}.name"), common.name != IDENTITY, "another name: this one is the identity's own");
        let first = known.insert(common.name, companion).is_none();
        errors.check(&format!("{at}.name"), first, "a name that no other companion of the policy has");
        errors.line(&format!("{at}.display_name"), common.display_name);
    }
    for (n, companion) in companions.iter().enumerate() {
        let mut one =
            One { at: format!("companions[{n}]"), known: &known, platforms: companion.common().platforms, errors };
        let body = match companion {
            Companion::Certificate(c) => one.certificate(c),
            Companion::Wifi(c) => Some(one.wifi(c)),
            Companion::VpnIkev2(c) => one.vpn(c, key),
            Companion::Raw(c) => one.raw(c),
        };
        out.extend(body.map(|body| Ready::new(companion.common(), body)));
    }
    out
}

/// One companion being checked.
struct One<'a> {
    at: String,
    known: &'a Known<'a>,
    platforms: &'a [Platform],
    errors: &'a mut Errors,
}

impl One<'_> {
    fn check(&mut self, field: &str, good: bool, expected: &str) -> bool {
        self.errors.check(&format!("{}.{field}", self.at), good, expected);
        good
    }

    fn text(&mut self, field: &str, text: &str, most: usize) {
        let good = !text.is_empty() && text.len() <= most && !text.chars().any(char::is_control);
        self.check(field, good, &format!("1 to {most} bytes without control characters"));
    }

    fn template(&mut self, field: &str, text: Option<&str>) -> Option<Template> {
        let text = text?;
        self.text(field, text, 1024);
        self.errors.keep(&format!("{}.{field}", self.at), Template::parse(text).map_err(|e| e.to_string()))
    }

    /// Another companion of this name exists, and is there wherever this one is.
    fn refers(&mut self, field: &str, name: &str, certificate: bool) {
        let Some(other) = self.known.get(name) else {
            let what = if certificate {
                "the name of a certificate among the companions"
            } else {
                "the name of a companion, or identity"
            };
            self.check(field, false, what);
            return;
        };
        let kind = !certificate || matches!(other, Companion::Certificate(_));
        self.check(field, kind, "the name of a certificate among the companions");
        let common = other.common();
        let everywhere = common.platforms.is_empty()
            || (!self.platforms.is_empty() && self.platforms.iter().all(|p| common.platforms.contains(p)));
        self.check(
            field,
            everywhere && !common.optional,
            "a companion that is in the profile of every device that this one is for",
        );
    }

    fn certificate(&mut self, c: &CertificateCompanion) -> Option<Body> {
        let read = match certificate::pem_chain(&c.certificate) {
            Ok(chain) => <[Certificate; 1]>::try_from(chain).ok(),
            Err(_) => None,
        };
        let alone = read.is_some() && !c.certificate.contains("PRIVATE KEY");
        self.check("certificate", alone, "exactly one certificate as PEM, and no private key");
        let [certificate] = read.filter(|_| alone)?;
        let root = certificate.subject_der() == certificate.issuer_der();
        Some(Body::Certificate { der: certificate.der().to_vec(), root })
    }

    fn wifi(&mut self, c: &WifiCompanion) -> Body {
        self.text("ssid", &c.ssid, 32);
        let types = ["WPA", "WPA2", "WPA3", "Any"];
        self.check("encryption_type", types.contains(&c.encryption_type.as_str()), "WPA, WPA2, WPA3 or Any");
        for name in &c.trusted_certificates {
            self.refers("trusted_certificates", name, true);
        }
        for name in &c.trusted_server_names {
            self.text("trusted_server_names", name, 255);
        }
        let at = |version: &str| TLS_VERSIONS.iter().position(|known| *known == version);
        let lowest = at(&c.tls_minimum_version);
        self.check("tls_minimum_version", lowest.is_some(), "1.0, 1.1, 1.2 or 1.3");
        // Where no maximum is given, a device takes 1.2.
        let highest = at(c.tls_maximum_version.as_deref().unwrap_or("1.2"));
        self.check("tls_maximum_version", highest.is_some(), "1.0, 1.1, 1.2 or 1.3");
        self.check("tls_maximum_version", lowest <= highest, "at least tls_minimum_version; where left out it is 1.2");
        let needs_outer = c.tls_minimum_version == "1.3" && c.outer_identity.is_none();
        self.check("outer_identity", !needs_outer, "given where tls_minimum_version is 1.3 (OuterIdentity)");
        for mode in &c.setup_modes {
            self.check(
                "setup_modes",
                matches!(mode.as_str(), "System" | "Loginwindow"),
                "made of System and Loginwindow",
            );
        }
        let user_name = self.template("user_name", c.user_name.as_deref());
        let outer_identity = self.template("outer_identity", c.outer_identity.as_deref());
        Body::Wifi { companion: Box::new(c.clone()), user_name, outer_identity }
    }

    fn vpn(&mut self, c: &VpnCompanion, key: Option<KeyKind>) -> Option<Body> {
        self.text("remote_address", &c.remote_address, 255);
        self.text("remote_identifier", &c.remote_identifier, 255);
        for (field, text) in [
            ("server_certificate_issuer_common_name", &c.server_certificate_issuer_common_name),
            ("server_certificate_common_name", &c.server_certificate_common_name),
        ] {
            if let Some(text) = text {
                self.text(field, text, 255);
            }
        }
        for (field, association) in [
            ("ike_security_association", &c.ike_security_association),
            ("child_security_association", &c.child_security_association),
        ] {
            if let Some(association) = association {
                self.association(field, association);
            }
        }
        let certificate_type = match key {
            None | Some(KeyKind::Rsa(_)) => None,
            Some(KeyKind::EcsecPrimeRandom(256)) => Some("ECDSA256"),
            Some(KeyKind::EcsecPrimeRandom(384)) => Some("ECDSA384"),
            Some(KeyKind::EcsecPrimeRandom(521)) => Some("ECDSA521"),
            Some(KeyKind::EcsecPrimeRandom(_)) => {
                self.check(
                    "type",
                    false,
                    "another than vpn_ikev2 where key_size is 192: IKEv2 has no CertificateType for it",
                );
                None
            }
        };
        self.check(
            "server_certificate_issuer_common_name",
            certificate_type.is_none() || c.server_certificate_issuer_common_name.is_some(),
            "given where the key is no RSA key: CertificateType is then written (ServerCertificateIssuerCommonName)",
        );
        let local_identifier = self.template("local_identifier", Some(&c.local_identifier))?;
        Some(Body::Vpn { companion: Box::new(c.clone()), local_identifier, certificate_type })
    }

    fn association(&mut self, field: &str, a: &SecurityAssociation) {
        let ciphers = ["AES-128", "AES-256", "AES-128-GCM", "AES-256-GCM", "ChaCha20Poly1305"];
        let hashes = ["SHA2-256", "SHA2-384", "SHA2-512"];
        let field = |key: &str| format!("{field}.{key}");
        let cipher = ciphers.contains(&a.encryption_algorithm.as_str());
        self.check(
            &field("encryption_algorithm"),
            cipher,
            "AES-128, AES-256, AES-128-GCM, AES-256-GCM or ChaCha20Poly1305",
        );
        let hash = hashes.contains(&a.integrity_algorithm.as_str());
        self.check(&field("integrity_algorithm"), hash, "SHA2-256, SHA2-384 or SHA2-512");
        let group = matches!(a.diffie_hellman_group, 14..=21 | 31 | 32);
        self.check(&field("diffie_hellman_group"), group, "14 to 21, 31 or 32");
        self.check(&field("lifetime_minutes"), (10..=1440).contains(&a.lifetime_minutes), "10 to 1440");
    }

    fn raw(&mut self, c: &RawCompanion) -> Option<Body> {
        self.check("payload_type", raw::is_payload_type(&c.payload_type), raw::PAYLOAD_TYPE_RULE);
        match raw::read(&c.keys) {
            Ok((keys, names)) => {
                for name in names.iter().filter(|name| *name != IDENTITY) {
                    self.refers("keys", name, false);
                }
                Some(Body::Raw { payload_type: c.payload_type.clone(), keys })
            }
            Err(wrong) => {
                let field = if wrong.at.is_empty() { "keys".to_owned() } else { format!("keys.{}", wrong.at) };
                self.check(&field, false, &wrong.expected);
                None
            }
        }
    }
}
