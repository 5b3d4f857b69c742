//! A certificate authority that everybody believes.

use std::time::Duration;

use mdm_core::plist::{Dictionary, Value};
use mdm_core::time::Timestamp;

/// The authority whose certificates devices get, without the words in between.
pub struct Issuing {
    pub pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Issuing {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Test CA");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: rcgen::Issuer::new(params, key) }
    }

    /// A certificate for a new key, as the payload asks for it.
    pub fn issue(&self, payload: &Dictionary, now: Timestamp, life: Duration) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for rdn in payload.get("Subject").and_then(Value::as_array).unwrap() {
            for pair in rdn.as_array().unwrap() {
                let pair: Vec<_> = pair.as_array().unwrap().iter().map(|t| t.as_string().unwrap()).collect();
                let kind = match pair[0] {
                    "CN" => rcgen::DnType::CommonName,
                    "O" => rcgen::DnType::OrganizationName,
                    other => panic!("{other} in a subject"),
                };
                params.distinguished_name.push(kind, pair[1]);
            }
        }
        let at = |t: Timestamp| time::OffsetDateTime::from_unix_timestamp(t.0 / 1000).unwrap();
        (params.not_before, params.not_after) = (at(now), at(now.plus(life)));
        let key = rcgen::KeyPair::generate().unwrap();
        params.signed_by(&key, &self.issuer).unwrap().der().to_vec()
    }
}
