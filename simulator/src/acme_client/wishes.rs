//! What a request asks of the certificate besides its subject: an `extensionRequest` attribute (RFC 2985 section 5.4.2).
//!
//! Source: Apple, "ACMECertificate" (`SubjectAltName`, `UsageFlags`, `ExtendedKeyUsage`).

use const_oid::ObjectIdentifier;
use const_oid::db::{rfc5280, rfc5912};
use der::asn1::{Any, Ia5String, OctetString, SetOfVec, Utf8StringRef};
use der::{Decode as _, Encode as _};
use x509_cert::attr::{Attribute, Attributes};
use x509_cert::ext::pkix::name::{GeneralName, OtherName};
use x509_cert::ext::pkix::{ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName};
use x509_cert::ext::{Extension, Extensions};
use x509_cert::request::CertReq;

use crate::error::Result;
use crate::plist::Value;

/// The user principal name of Windows domains.
const NT_PRINCIPAL_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.20.2.3");

/// The wishes of one payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// `SubjectAltName`: key and value.
    pub names: Vec<(String, String)>,
    /// `UsageFlags`.
    pub usage: Option<i64>,
    /// `ExtendedKeyUsage`.
    pub extended: Vec<String>,
}

impl Wishes {
    /// Reads a payload that was checked.
    pub(super) fn read(keys: &Value) -> Self {
        let names = keys.get("SubjectAltName").into_iter().flat_map(Value::entries);
        let names = names.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        let extended = keys.get("ExtendedKeyUsage").and_then(Value::as_array).unwrap_or_default();
        Self {
            names: names.collect(),
            usage: keys.get("UsageFlags").and_then(Value::as_integer),
            extended: extended.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }

    /// The attributes of the request: none where nothing is wished.
    pub(super) fn attributes(&self) -> Result<Attributes> {
        let mut extensions: Extensions = Vec::new();
        let mut add = |id: ObjectIdentifier, value: Vec<u8>| -> Result<()> {
            extensions.push(Extension { extn_id: id, critical: false, extn_value: OctetString::new(value)? });
            Ok(())
        };
        if !self.names.is_empty() {
            let names = self.names.iter().map(|(key, value)| general_name(key, value)).collect::<Result<_>>()?;
            add(rfc5912::ID_CE_SUBJECT_ALT_NAME, SubjectAltName(names).to_der()?)?;
        }
        if let Some(usage) = self.usage.filter(|usage| *usage != 0) {
            let mut flags = der::flagset::FlagSet::<KeyUsages>::default();
            if usage & 1 != 0 {
                flags |= KeyUsages::DigitalSignature;
            }
            if usage & 4 != 0 {
                flags |= KeyUsages::KeyEncipherment;
            }
            add(rfc5912::ID_CE_KEY_USAGE, KeyUsage(flags).to_der()?)?;
        }
        if !self.extended.is_empty() {
            let usages = self.extended.iter().map(|oid| Ok(ObjectIdentifier::new(oid).map_err(der::Error::from)?));
            add(rfc5912::ID_CE_EXT_KEY_USAGE, ExtendedKeyUsage(usages.collect::<Result<_>>()?).to_der()?)?;
        }
        let mut attributes = SetOfVec::new();
        if !extensions.is_empty() {
            let values = SetOfVec::try_from(vec![Any::from_der(&extensions.to_der()?)?])?;
            attributes.insert(Attribute { oid: rfc5912::ID_EXTENSION_REQ, values })?;
        }
        Ok(attributes)
    }
}

fn general_name(key: &str, value: &str) -> Result<GeneralName> {
    Ok(match key {
        "rfc822Name" => GeneralName::Rfc822Name(Ia5String::new(value)?),
        "dNSName" => GeneralName::DnsName(Ia5String::new(value)?),
        "uniformResourceIdentifier" => GeneralName::UniformResourceIdentifier(Ia5String::new(value)?),
        _ => {
            let value = Any::encode_from(&Utf8StringRef::new(value)?)?;
            GeneralName::OtherName(OtherName { type_id: NT_PRINCIPAL_NAME, value })
        }
    })
}

/// The names that a request (DER) asks for.
pub(crate) fn asked_names(request: &[u8]) -> Result<Vec<GeneralName>> {
    let request = CertReq::from_der(request)?;
    let mut names = Vec::new();
    for attribute in request.info.attributes.iter().filter(|attribute| attribute.oid == rfc5912::ID_EXTENSION_REQ) {
        for value in attribute.values.iter() {
            for extension in Extensions::from_der(&value.to_der()?)? {
                if extension.extn_id == rfc5280::ID_CE_SUBJECT_ALT_NAME {
                    names.extend(SubjectAltName::from_der(extension.extn_value.as_bytes())?.0);
                }
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::Acme;
    use crate::acme_client::{Request, certificate_request};

    #[test]
    fn the_request_carries_what_the_payload_asks() {
        let wishes = Wishes {
            names: vec![
                ("dNSName".into(), "a.example".into()),
                ("ntPrincipalName".into(), "ada@example".into()),
                ("rfc822Name".into(), "ada@example".into()),
            ],
            usage: Some(5),
            extended: vec!["1.3.6.1.5.5.7.3.2".into()],
        };
        let acme = Acme {
            directory_url: String::new(),
            client_identifier: String::new(),
            key_type: String::new(),
            key_size: 256,
            hardware_bound: true,
            attest: None,
            key_is_extractable: None,
            allow_all_apps_access: None,
        };
        let key = crate::signature::self_signed("x", 2048, 1).unwrap().key;
        let request = Request { acme, subject: Vec::new(), wishes };
        let der = certificate_request(&request, &key).unwrap();
        assert_eq!(asked_names(&der).unwrap().len(), 3);
        let plain = Request { wishes: Wishes::default(), ..request };
        assert_eq!(asked_names(&certificate_request(&plain, &key).unwrap()).unwrap().len(), 0);
        let read = openssl::x509::X509Req::from_der(&der).unwrap();
        assert_eq!(read.extensions().unwrap().len(), 3);
    }
}
