//! The certificate: for the attested key, named by the identifier, meant for clients.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use const_oid::ObjectIdentifier;
use der::asn1::{Any, Utf8StringRef};
use der::{Encode as _, Sequence};
use http::StatusCode;
use openssl::asn1::{Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::SubjectKeyIdentifier;
use openssl::x509::extension::{AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage};
use openssl::x509::{X509, X509Builder, X509Extension, X509NameBuilder, X509Req};
use serde_json::Value;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::{GeneralName, OtherName};

use super::attest::Checked;
use super::{Problem, Settings};
use crate::acme_client::asked_names;
use crate::error::{Error, Result};

/// id-on-permanentIdentifier (RFC 4043).
const PERMANENT_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.3");
/// subjectAltName.
const SUBJECT_ALT_NAME: &str = "2.5.29.17";

/// RFC 4043: the assigner is left out.
#[derive(Sequence)]
struct PermanentIdentifier<'a> {
    identifier_value: Utf8StringRef<'a>,
}

/// The key that signs certificates.
pub(super) struct Issuer {
    certificate: X509,
    key: PKey<Private>,
}

impl Issuer {
    pub(super) fn new() -> Result<Self> {
        let key = PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?)?)?;
        let mut name = X509NameBuilder::new()?;
        name.append_entry_by_nid(Nid::COMMONNAME, "Test ACME CA")?;
        let name = name.build();
        let mut builder = start(&key)?;
        builder.set_subject_name(&name)?;
        builder.set_issuer_name(&name)?;
        builder.set_not_before(Asn1Time::from_str("20240101000000Z")?.as_ref())?;
        builder.set_not_after(Asn1Time::from_str("20490101000000Z")?.as_ref())?;
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
        let own = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
        builder.append_extension(own)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Self { certificate: builder.build(), key })
    }

    pub(super) fn pem(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.certificate.to_pem()?).into_owned())
    }

    pub(super) fn der(&self) -> Result<Vec<u8>> {
        Ok(self.certificate.to_der()?)
    }

    pub(super) fn build(
        &self,
        settings: &Settings,
        csr: &X509Req,
        identifier: &str,
        (from, to): (i64, i64),
    ) -> Result<X509> {
        let mut builder = start(&*csr.public_key()?)?;
        builder.set_subject_name(csr.subject_name())?;
        builder.set_issuer_name(self.certificate.subject_name())?;
        builder.set_not_before(Asn1Time::from_unix(from)?.as_ref())?;
        builder.set_not_after(Asn1Time::from_unix(to)?.as_ref())?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        builder.append_extension(ExtendedKeyUsage::new().client_auth().build()?)?;
        let value = PermanentIdentifier { identifier_value: Utf8StringRef::new(identifier)? };
        let name = OtherName { type_id: PERMANENT_IDENTIFIER, value: Any::encode_from(&value)? };
        let mut names = vec![GeneralName::OtherName(name)];
        if settings.copies_names {
            names.extend(asked_names(&csr.to_der()?)?);
        }
        let names = SubjectAltName(names).to_der()?;
        let (oid, names) = (Asn1Object::from_str(SUBJECT_ALT_NAME)?, Asn1OctetString::new_from_bytes(&names)?);
        builder.append_extension(X509Extension::new_from_der(&oid, false, &names)?)?;
        let above =
            AuthorityKeyIdentifier::new().keyid(true).build(&builder.x509v3_context(Some(&self.certificate), None))?;
        builder.append_extension(above)?;
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok(builder.build())
    }
}

/// The request in the payload `{"csr": …}` of a finalize request; its signature holds.
pub(super) fn read(payload: &Value) -> std::result::Result<X509Req, Problem> {
    let csr = payload.get("csr").and_then(Value::as_str).and_then(|csr| URL_SAFE_NO_PAD.decode(csr).ok());
    let csr = csr.and_then(|csr| X509Req::from_der(&csr).ok()).ok_or_else(|| refused("no certificate request"))?;
    if !csr.verify(&*csr.public_key()?)? {
        return Err(refused("the request's signature does not hold"));
    }
    Ok(csr)
}

/// The attested key, and the rule of the common name.
pub(super) fn check(
    settings: &Settings,
    csr: &X509Req,
    identifier: &str,
    checked: &Checked,
) -> std::result::Result<(), Problem> {
    let key = csr.public_key()?.public_key_to_der()?;
    if checked.key.as_ref().is_some_and(|attested| *attested != key) {
        return Err(refused("the request is for another key than the attested one"));
    }
    let names = csr.subject_name().entries_by_nid(Nid::COMMONNAME);
    let mut names = names.map(|name| name.data().to_string().unwrap_or_default());
    if settings.common_name_is_identifier && !names.all(|name| name.is_empty() || name == identifier) {
        return Err(refused("the common name is neither empty nor the identifier"));
    }
    Ok(())
}

fn refused(why: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "badCSR", why)
}

fn start<T: openssl::pkey::HasPublic>(key: &openssl::pkey::PKeyRef<T>) -> Result<X509Builder> {
    let mut serial = BigNum::new()?;
    serial.rand(96, MsbOption::ONE, false)?;
    let mut builder = X509Builder::new()?;
    builder.set_version(2)?;
    builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
    builder.set_pubkey(key)?;
    Ok(builder)
}

impl From<der::Error> for Problem {
    fn from(error: der::Error) -> Self {
        Error::from(error).into()
    }
}
