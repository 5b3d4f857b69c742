//! The SCEP client of a device (RFC 8894): GetCACaps, GetCACert, PKCSReq, RenewalReq, CertRep.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912;
use der::asn1::{Any, BitString, OctetString, PrintableString, SetOfVec, Utf8StringRef};
use der::{Decode, Encode};
use http::Method;
use openssl::cms::{CMSOptions, CmsContentInfo};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use openssl::stack::Stack;
use openssl::symm::Cipher;
use openssl::x509::{X509, X509NameBuilder};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use x509_cert::attr::{Attribute, AttributeTypeAndValue};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::request::{CertReq, CertReqInfo, Version};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use crate::error::{Error, Result};
use crate::http::Client;
use crate::signature::{self, Digest, Identity, Style, attribute};

const MESSAGE_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.113733.1.9.2");
const PKI_STATUS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.113733.1.9.3");
const FAIL_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.113733.1.9.4");
const SENDER_NONCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.113733.1.9.5");
const RECIPIENT_NONCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.113733.1.9.6");
const TRANSACTION_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.113733.1.9.7");
const CHALLENGE_PASSWORD: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.7");

/// What the SCEP payload (`com.apple.security.scep`) asks of the device.
#[derive(Debug, Clone)]
pub struct Request {
    /// `URL` of the payload.
    pub url: String,
    /// `Name`, sent with GetCACert.
    pub name: Option<String>,
    /// `Challenge`.
    pub challenge: Option<String>,
    /// `Subject`: RDNs of pairs.
    pub subject: Vec<Vec<(String, String)>>,
    /// `Keysize`, bits; Apple's default is 1024.
    pub key_size: u32,
    /// `CAFingerprint`: SHA-1, SHA-256 or MD5 of the CA certificate.
    pub fingerprint: Option<Vec<u8>>,
    /// A key that is there already, for load tests, which have no time to make thousands. A device makes its own.
    pub key: Option<PKey<Private>>,
}

/// Strength of the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strength {
    /// AES-128-CBC and SHA-256, where the server can do it.
    Today,
    /// Single DES and SHA-1, whatever the server says; needs OpenSSL's legacy provider.
    Foreign,
}

impl Strength {
    fn cipher(self) -> Cipher {
        match self {
            Self::Today => Cipher::aes_128_cbc(),
            Self::Foreign => Cipher::des_cbc(),
        }
    }

    fn style(self) -> Style {
        let digest = match self {
            Self::Today => Digest::Sha256,
            Self::Foreign => Digest::Sha1,
        };
        Style { digest, null_parameters: self == Self::Today, plain_rsa: self == Self::Today }
    }
}

/// Asks for a certificate and returns it with the key made for it.
pub async fn enroll(client: &Client, request: &Request, strength: Strength) -> Result<Identity> {
    exchange(client, request, strength, None).await
}

/// RenewalReq (RFC 8894 section 3.3.1): asks for a certificate for a new key, signed with the identity that is there. Apple's
/// devices never do this; other clients do.
pub async fn renew(client: &Client, request: &Request, current: &Identity, strength: Strength) -> Result<Identity> {
    exchange(client, request, strength, Some(current)).await
}

async fn exchange(
    client: &Client,
    request: &Request,
    strength: Strength,
    current: Option<&Identity>,
) -> Result<Identity> {
    let capabilities = capabilities(client, request).await?;
    let authorities = authorities(client, request).await?;
    let made = tokio::task::spawn_blocking({
        let request = request.clone();
        let (authorities, current) = (authorities.clone(), current.cloned());
        move || Message::new(&request, &authorities, strength, current)
    })
    .await
    .map_err(|error| Error::Scep(error.to_string()))??;

    let posts = ["POSTPKIOperation", "SCEPStandard"]
        .iter()
        .any(|name| capabilities.iter().any(|have| have.eq_ignore_ascii_case(name)));
    let answer = if posts {
        let url = match strength {
            Strength::Today => with_query(&request.url, "operation=PKIOperation"),
            // A foreign client repeats the whole binary message in the query.
            Strength::Foreign => with_query(
                &request.url,
                &format!("message={}&operation=PKIOperation", percent_encode(&made.der, NON_ALPHANUMERIC)),
            ),
        };
        let headers = [("content-type", "application/x-pki-message")];
        client.send(Method::POST, &url, &headers, made.der.clone()).await?
    } else {
        let encoded = match strength {
            Strength::Today => percent_encode(STANDARD.encode(&made.der).as_bytes(), NON_ALPHANUMERIC).to_string(),
            Strength::Foreign => URL_SAFE.encode(&made.der),
        };
        let query = format!("operation=PKIOperation&message={encoded}");
        client.send(Method::GET, &with_query(&request.url, &query), &[], Vec::new()).await?
    };
    if answer.status != 200 {
        return Err(answer.refused(&request.url));
    }
    if answer.content_type() != "application/x-pki-message" {
        return Err(Error::Scep(format!("the answer's Content-Type is «{}»", answer.content_type())));
    }
    made.accept(&answer.body, &authorities)
}

fn with_query(url: &str, query: &str) -> String {
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}{query}")
}

async fn capabilities(client: &Client, request: &Request) -> Result<Vec<String>> {
    let answer = client.get(&with_query(&request.url, "operation=GetCACaps")).await?;
    let text = String::from_utf8_lossy(&answer.body);
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}

/// RFC 8894 section 4.2: one certificate, or a degenerate SignedData with the CA and its RA.
async fn authorities(client: &Client, request: &Request) -> Result<Vec<X509>> {
    let name = percent_encode(request.name.as_deref().unwrap_or_default().as_bytes(), NON_ALPHANUMERIC);
    let query = format!("operation=GetCACert&message={name}");
    let answer = client.get(&with_query(&request.url, &query)).await?;
    let found = match answer.content_type().as_str() {
        "application/x-x509-ca-cert" => vec![X509::from_der(&answer.body)?],
        "application/x-x509-ca-ra-cert" => signature::certificates(&answer.body)?
            .iter()
            .map(|der| X509::from_der(der))
            .collect::<std::result::Result<Vec<_>, _>>()?,
        other => return Err(Error::Scep(format!("GetCACert answered with «{other}»"))),
    };
    if found.is_empty() {
        return Err(Error::Scep("GetCACert answered without a certificate".into()));
    }
    if let Some(wanted) = &request.fingerprint {
        let kinds = [MessageDigest::sha1(), MessageDigest::sha256(), MessageDigest::md5()];
        let fits = found.iter().any(|certificate| {
            kinds.iter().any(|kind| certificate.digest(*kind).is_ok_and(|digest| digest.as_ref() == wanted.as_slice()))
        });
        if !fits {
            return Err(Error::Scep("no certificate fits CAFingerprint".into()));
        }
    }
    Ok(found)
}

/// The message is encrypted to the RA where there is one, else to the CA.
fn recipient(authorities: &[X509]) -> Option<&X509> {
    let is_ca = |certificate: &&X509| {
        x509_cert::Certificate::from_der(&certificate.to_der().unwrap_or_default())
            .ok()
            .and_then(|parsed| parsed.tbs_certificate.get::<x509_cert::ext::pkix::BasicConstraints>().ok())
            .flatten()
            .is_some_and(|(_, constraints)| constraints.ca)
    };
    authorities.iter().find(|certificate| !is_ca(certificate)).or_else(|| authorities.iter().find(is_ca))
}

/// A PKCSReq or RenewalReq and what is needed to read its answer.
struct Message {
    der: Vec<u8>,
    signer: Identity,
    /// The key that the certificate will be for.
    key: PKey<Private>,
    transaction: String,
    nonce: Vec<u8>,
}

impl Message {
    fn new(request: &Request, authorities: &[X509], strength: Strength, current: Option<Identity>) -> Result<Self> {
        let key = match &request.key {
            Some(key) => key.clone(),
            None => PKey::from_rsa(Rsa::generate(request.key_size)?)?,
        };
        let csr = certificate_request(request, &key)?;
        let style = strength.style();
        let message_type = if current.is_some() { "17" } else { "19" };
        let signer = if let Some(current) = current {
            current
        } else {
            let mut name = X509NameBuilder::new()?;
            name.append_entry_by_text("CN", "SCEP SIGNER")?;
            let certificate = signature::self_signed_with(&name.build(), &key, 1, style.digest)?;
            Identity { certificate, key: key.clone() }
        };

        let mut recipients = Stack::new()?;
        match strength {
            Strength::Today => {
                let one = recipient(authorities).ok_or_else(|| Error::Scep("nobody to encrypt to".into()))?;
                recipients.push(one.clone())?;
            }
            Strength::Foreign => {
                for one in authorities {
                    recipients.push(one.clone())?;
                }
            }
        }
        let envelope = CmsContentInfo::encrypt(&recipients, &csr, strength.cipher(), CMSOptions::BINARY)?.to_der()?;

        let mut transaction = [0; 20];
        openssl::rand::rand_bytes(&mut transaction)?;
        let transaction = hex::encode_upper(transaction);
        let mut nonce = vec![0; 16];
        openssl::rand::rand_bytes(&mut nonce)?;
        let attributes = vec![
            attribute(MESSAGE_TYPE, Any::encode_from(&PrintableString::new(message_type)?)?)?,
            attribute(TRANSACTION_ID, Any::encode_from(&PrintableString::new(&transaction)?)?)?,
            attribute(SENDER_NONCE, Any::encode_from(&OctetString::new(nonce.clone())?)?)?,
        ];
        let der = signature::sign(&signer, &envelope, true, style, attributes)?;
        Ok(Self { der, signer, key, transaction, nonce })
    }

    /// Reads a CertRep (RFC 8894 section 3.3.2).
    fn accept(self, answer: &[u8], authorities: &[X509]) -> Result<Identity> {
        let mut known = Stack::new()?;
        for authority in authorities {
            known.push(authority.clone())?;
        }
        let mut envelope = Vec::new();
        CmsContentInfo::from_der(answer)?
            .verify(
                Some(&known),
                None,
                None,
                Some(&mut envelope),
                // Only certificates from GetCACert may have signed this answer.
                CMSOptions::BINARY | CMSOptions::NO_SIGNER_CERT_VERIFY | CMSOptions::NOINTERN,
            )
            .map_err(|error| Error::Scep(format!("the CA's signature does not hold: {error}")))?;
        let signed = signature::signed_data(answer)?;
        let attributes =
            signed.signer_infos.0.iter().next().and_then(|info| info.signed_attrs.clone()).unwrap_or_default();
        let text =
            |oid| attribute_value(&attributes, oid).map(|value| String::from_utf8_lossy(value.value()).into_owned());
        if text(MESSAGE_TYPE).as_deref() != Some("3") {
            return Err(Error::Scep("the answer is no CertRep".into()));
        }
        if text(TRANSACTION_ID).as_deref() != Some(self.transaction.as_str()) {
            return Err(Error::Scep("the answer has another transactionID".into()));
        }
        match text(PKI_STATUS).as_deref() {
            Some("0") => {}
            Some("2") => {
                let info = text(FAIL_INFO).unwrap_or_default();
                return Err(Error::Scep(format!("FAILURE, failInfo {info}")));
            }
            other => return Err(Error::Scep(format!("pkiStatus {other:?}"))),
        }
        let nonce = attribute_value(&attributes, RECIPIENT_NONCE);
        if nonce.is_none_or(|nonce| nonce.value() != self.nonce) {
            return Err(Error::Scep("the answer has another recipientNonce".into()));
        }
        let inner = CmsContentInfo::from_der(&envelope)?.decrypt(&self.signer.key, &self.signer.certificate)?;
        for der in signature::certificates(&inner)? {
            let certificate = X509::from_der(&der)?;
            if certificate.public_key()?.public_eq(&self.key) {
                return Ok(Identity { certificate, key: self.key });
            }
        }
        Err(Error::Scep("no certificate for our key in the answer".into()))
    }
}

fn attribute_value(attributes: &SetOfVec<Attribute>, oid: ObjectIdentifier) -> Option<&Any> {
    attributes.iter().find(|attribute| attribute.oid == oid).and_then(|attribute| attribute.values.iter().next())
}

/// A PKCS #10 request with challengePassword, signed with SHA-256 (SHA-1 is long refused by CAs).
fn certificate_request(request: &Request, key: &PKey<Private>) -> Result<Vec<u8>> {
    let mut attributes = SetOfVec::new();
    if let Some(challenge) = &request.challenge {
        let value = match PrintableString::new(challenge) {
            Ok(printable) => Any::encode_from(&printable)?,
            Err(_) => Any::encode_from(&Utf8StringRef::new(challenge)?)?,
        };
        attributes.insert(attribute(CHALLENGE_PASSWORD, value)?)?;
    }
    let info = CertReqInfo {
        version: Version::V1,
        subject: name(&request.subject)?,
        public_key: SubjectPublicKeyInfoOwned::from_der(&key.public_key_to_der()?)?,
        attributes,
    };
    let mut signer = Signer::new(MessageDigest::sha256(), key)?;
    let signature = signer.sign_oneshot_to_vec(&info.to_der()?)?;
    let request = CertReq {
        info,
        algorithm: AlgorithmIdentifierOwned {
            oid: rfc5912::SHA_256_WITH_RSA_ENCRYPTION,
            parameters: Some(Any::null()),
        },
        signature: BitString::from_bytes(&signature)?,
    };
    Ok(request.to_der()?)
}

pub(crate) fn name(subject: &[Vec<(String, String)>]) -> Result<Name> {
    let mut rdns = Vec::new();
    for rdn in subject {
        let mut set = SetOfVec::new();
        for (kind, value) in rdn {
            let oid = match kind.as_str() {
                "CN" => "2.5.4.3",
                "C" => "2.5.4.6",
                "L" => "2.5.4.7",
                "ST" => "2.5.4.8",
                "O" => "2.5.4.10",
                "OU" => "2.5.4.11",
                dotted => dotted,
            };
            let oid = ObjectIdentifier::new(oid)
                .map_err(|_| Error::Profile(format!("Subject has an unknown type «{kind}»")))?;
            let value = if kind == "C" {
                Any::encode_from(&PrintableString::new(value)?)?
            } else {
                Any::encode_from(&Utf8StringRef::new(value)?)?
            };
            set.insert(AttributeTypeAndValue { oid, value })?;
        }
        rdns.push(RelativeDistinguishedName(set));
    }
    Ok(RdnSequence(rdns))
}

/// Loads OpenSSL's legacy provider beside the default one, for [`Strength::Foreign`]. Both stay
/// loaded until the process ends.
pub fn load_legacy() -> Result<()> {
    static LOADED: std::sync::Mutex<Vec<openssl::provider::Provider>> = std::sync::Mutex::new(Vec::new());
    let mut loaded = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if loaded.is_empty() {
        for name in ["default", "legacy"] {
            loaded.push(openssl::provider::Provider::load(None, name)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The other side, as small as a test needs it: opens a PKCSReq and answers it.
    fn answer(ca: &Identity, message: &[u8], status: &str, strength: Strength) -> Vec<u8> {
        let envelope = signature::verify_attached(message).unwrap();
        let csr = CmsContentInfo::from_der(&envelope).unwrap().decrypt(&ca.key, &ca.certificate).unwrap();
        let csr = openssl::x509::X509Req::from_der(&csr).unwrap();
        let key = csr.public_key().unwrap();
        assert!(csr.verify(&key).unwrap());
        let mut builder = openssl::x509::X509Builder::new().unwrap();
        let day = |days| openssl::asn1::Asn1Time::days_from_now(days).unwrap();
        builder.set_version(2).unwrap();
        builder.set_not_before(&day(0)).unwrap();
        builder.set_not_after(&day(1)).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.set_subject_name(csr.subject_name()).unwrap();
        builder.set_issuer_name(ca.certificate.subject_name()).unwrap();
        builder.sign(&ca.key, MessageDigest::sha256()).unwrap();
        let issued = x509_cert::Certificate::from_der(&builder.build().to_der().unwrap()).unwrap();
        let inner = cms::content_info::ContentInfo::try_from(issued).unwrap().to_der().unwrap();

        let signed = signature::signed_data(message).unwrap();
        let info = signed.signer_infos.0.iter().next().unwrap();
        let attributes = info.signed_attrs.as_ref().unwrap();
        let mut to = Stack::new().unwrap();
        let signer = &signature::certificates(message).unwrap()[0];
        to.push(X509::from_der(signer).unwrap()).unwrap();
        let sealed =
            CmsContentInfo::encrypt(&to, &inner, strength.cipher(), CMSOptions::BINARY).unwrap().to_der().unwrap();
        let printable =
            |oid, text: &str| attribute(oid, Any::encode_from(&PrintableString::new(text).unwrap()).unwrap()).unwrap();
        let reply = vec![
            printable(MESSAGE_TYPE, "3"),
            printable(PKI_STATUS, status),
            printable(FAIL_INFO, "2"),
            attribute(TRANSACTION_ID, attribute_value(attributes, TRANSACTION_ID).unwrap().clone()).unwrap(),
            attribute(RECIPIENT_NONCE, attribute_value(attributes, SENDER_NONCE).unwrap().clone()).unwrap(),
        ];
        signature::sign(ca, &sealed, true, strength.style(), reply).unwrap()
    }

    fn request() -> Request {
        Request {
            url: "http://localhost/scep".into(),
            name: None,
            challenge: Some("one-time secret".into()),
            subject: vec![vec![("O".into(), "Example".into())], vec![("CN".into(), "device".into())]],
            key_size: 2048,
            fingerprint: None,
            key: None,
        }
    }

    #[test]
    fn a_request_round_trips_and_carries_its_challenge() {
        load_legacy().unwrap();
        let ca = signature::self_signed("CA", 2048, 1).unwrap();
        let authorities = [ca.certificate.clone()];
        for strength in [Strength::Today, Strength::Foreign] {
            let message = Message::new(&request(), &authorities, strength, None).unwrap();
            let reply = answer(&ca, &message.der, "0", strength);
            let identity = message.accept(&reply, &authorities).unwrap();
            assert!(identity.certificate.public_key().unwrap().public_eq(&identity.key));
        }
        let current = signature::self_signed("device", 2048, 1).unwrap();
        let renewal = Message::new(&request(), &authorities, Strength::Today, Some(current.clone())).unwrap();
        let signers = signature::certificates(&renewal.der).unwrap();
        assert_eq!(signers, [current.certificate.to_der().unwrap()]);
        let reply = answer(&ca, &renewal.der, "0", Strength::Today);
        assert!(!renewal.accept(&reply, &authorities).unwrap().key.public_eq(&current.key));
        let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let csr = certificate_request(&request(), &key).unwrap();
        let csr = CertReq::from_der(&csr).unwrap();
        let challenge = attribute_value(&csr.info.attributes, CHALLENGE_PASSWORD).unwrap();
        assert_eq!(challenge.value(), b"one-time secret");
    }

    #[test]
    fn a_failure_and_a_foreign_signer_are_refused() {
        let ca = signature::self_signed("CA", 2048, 1).unwrap();
        let authorities = [ca.certificate.clone()];
        let message = Message::new(&request(), &authorities, Strength::Today, None).unwrap();
        let reply = answer(&ca, &message.der, "2", Strength::Today);
        let error = message.accept(&reply, &authorities).unwrap_err();
        assert!(error.to_string().contains("failInfo 2"), "{error}");

        let message = Message::new(&request(), &authorities, Strength::Today, None).unwrap();
        let reply = answer(&ca, &message.der, "0", Strength::Today);
        let stranger = signature::self_signed("CA", 2048, 1).unwrap();
        assert!(message.accept(&reply, &[stranger.certificate]).is_err());
    }
}
