//! The ACME client of a device: an order for a `permanent-identifier`, the challenge `device-attest-01`, a certificate.
//!
//! Sources: RFC 8555; draft-acme-device-attest; Apple, "ACMECertificate". The protocol itself is done by the crate
//! `instant-acme`, so that the authority in [`crate::acme_ca`] is also held to a client that was written elsewhere.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use const_oid::db::rfc5912;
use der::asn1::{Any, BitString};
use der::{Decode as _, Encode as _};
use http_body_util::{BodyExt as _, Full};
use instant_acme::{
    Account, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType, DeviceAttestation, HttpClient, Identifier,
    NewAccount, NewOrder, OrderStatus, RetryPolicy,
};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::{MessageDigest, hash};
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use openssl::x509::X509;
use x509_cert::request::{CertReq, CertReqInfo, Version};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use crate::acme::Acme;
use crate::attestation::{Authority, Facts, Fault, Statement};
use crate::error::{Error, Result};
use crate::http::Client;
use crate::plist::Value;
use crate::signature::Identity;
use crate::{profile, scep};

mod wishes;

pub use wishes::Wishes;
pub(crate) use wishes::asked_names;

/// What the ACME payload asks of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The payload, checked.
    pub acme: Acme,
    /// `Subject`: RDNs of pairs.
    pub subject: Vec<Vec<(String, String)>>,
    /// `SubjectAltName`, `UsageFlags`, `ExtendedKeyUsage`.
    pub wishes: Wishes,
}

impl Request {
    /// What a payload asks for that was checked; `None` where its Subject can't be read.
    pub(crate) fn read(keys: &Value, acme: Acme) -> Option<Self> {
        Some(Self { acme, subject: profile::subject(keys)?, wishes: Wishes::read(keys) })
    }
}

/// Who attests the new key, and what it would say of this device.
#[derive(Debug)]
pub struct Attesting<'a> {
    /// The authority.
    pub authority: &'a Authority,
    /// What it says.
    pub facts: Facts,
    /// What is wrong with it.
    pub fault: Fault,
}

/// Gets a certificate, and says whether its key is attested. `attesting` is given where the silicon attests.
pub async fn enroll(client: &Client, request: &Request, attesting: Option<&Attesting<'_>>) -> Result<(Identity, bool)> {
    let key = make_key(&request.acme)?;
    let account = NewAccount { contact: &[], terms_of_service_agreed: true, only_return_existing: false };
    let builder = Account::builder_with_http(Box::new(Transport(client.clone())));
    let (account, _) = builder.create(&account, request.acme.directory_url.clone(), None).await.map_err(failed)?;

    let identifiers = [Identifier::PermanentIdentifier(request.acme.client_identifier.clone())];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await.map_err(failed)?;
    let mut attested = false;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(failed)?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let mut challenge = authorization
            .challenge(ChallengeType::DeviceAttest01)
            .ok_or_else(|| Error::Acme("the server offers no device-attest-01".into()))?;
        let chain = match attesting {
            Some(of) if request.acme.attest == Some(true) => {
                let freshness = hash(MessageDigest::sha256(), challenge.token.as_bytes())?;
                of.authority.attest_with(&of.facts, &key, &freshness, &of.fault)?
            }
            _ => None,
        };
        attested = chain.is_some();
        let statement = chain.map_or_else(Statement::none, Statement::apple);
        let object = DeviceAttestation { att_obj: statement.encode().into() };
        challenge.send_device_attestation(&object).await.map_err(failed)?;
    }
    let patience = RetryPolicy::default().initial_delay(std::time::Duration::from_millis(20));
    let status = order.poll_ready(&patience).await.map_err(failed)?;
    if status != OrderStatus::Ready {
        return Err(Error::Acme(format!("the order is {status:?}")));
    }
    order.finalize_csr(&certificate_request(request, &key)?).await.map_err(failed)?;
    let chain = order.poll_certificate(&patience).await.map_err(failed)?;
    let certificates = X509::stack_from_pem(chain.as_bytes())?;
    let certificate = certificates.into_iter().next().ok_or_else(|| Error::Acme("an empty chain".into()))?;
    if !certificate.public_key()?.public_eq(&key) {
        return Err(Error::Acme("the certificate is for another key".into()));
    }
    Ok((Identity { certificate, key }, attested))
}

fn failed(error: instant_acme::Error) -> Error {
    Error::Acme(error.to_string())
}

fn make_key(acme: &Acme) -> Result<PKey<Private>> {
    let curve = match (acme.key_type.as_str(), acme.key_size) {
        ("RSA", bits) => {
            let bits = u32::try_from(bits).map_err(|_| Error::Acme("KeySize".into()))?;
            return Ok(PKey::from_rsa(Rsa::generate(bits)?)?);
        }
        (_, 192) => Nid::X9_62_PRIME192V1,
        (_, 256) => Nid::X9_62_PRIME256V1,
        (_, 384) => Nid::SECP384R1,
        (_, 521) => Nid::SECP521R1,
        (kind, size) => return Err(Error::Acme(format!("no key {kind} of {size} bits"))),
    };
    Ok(PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(curve)?)?)?)
}

/// PKCS #10 (RFC 2986) for the payload's Subject.
pub(crate) fn certificate_request(request: &Request, key: &PKey<Private>) -> Result<Vec<u8>> {
    let info = CertReqInfo {
        version: Version::V1,
        subject: scep::name(&request.subject)?,
        public_key: SubjectPublicKeyInfoOwned::from_der(&key.public_key_to_der()?)?,
        attributes: request.wishes.attributes()?,
    };
    let algorithm = if key.id() == Id::EC {
        AlgorithmIdentifierOwned { oid: rfc5912::ECDSA_WITH_SHA_256, parameters: None }
    } else {
        AlgorithmIdentifierOwned { oid: rfc5912::SHA_256_WITH_RSA_ENCRYPTION, parameters: Some(Any::null()) }
    };
    let mut signer = Signer::new(MessageDigest::sha256(), key)?;
    let signature = BitString::from_bytes(&signer.sign_oneshot_to_vec(&info.to_der()?)?)?;
    Ok(CertReq { info, algorithm, signature }.to_der()?)
}

/// The device's own client under the crate.
struct Transport(Client);

impl HttpClient for Transport {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = std::result::Result<BytesResponse, instant_acme::Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let other = |error: String| instant_acme::Error::Other(error.into());
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(|error| other(error.to_string()))?.to_bytes();
            let headers: Vec<(&str, &str)> = parts
                .headers
                .iter()
                .filter_map(|(name, value)| value.to_str().ok().map(|value| (name.as_str(), value)))
                .collect();
            let url = parts.uri.to_string();
            let answer = client.send(parts.method, &url, &headers, body.to_vec()).await;
            let answer = answer.map_err(|error| other(error.to_string()))?;
            let mut response = http::Response::builder().status(answer.status);
            if let Some(headers) = response.headers_mut() {
                *headers = answer.headers;
            }
            let response = response.body(Full::new(answer.body)).map_err(|error| other(error.to_string()))?;
            Ok(BytesResponse::from(response))
        })
    }
}
