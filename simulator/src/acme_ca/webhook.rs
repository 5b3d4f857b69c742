//! The webhooks that the authority calls before it issues: step-ca's two kinds, and the signed call of any other CA.
//!
//! Source: step-ca's documentation, "Webhooks" (`ENRICHING` before the template is filled, `AUTHORIZING` before the
//! certificate is signed; `X-Smallstep-Signature`, `X-Smallstep-Webhook-ID`; ten seconds in all, tried once more after a
//! second). What the generic call looks like is in the server's own documentation of certificate authorities.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use openssl::x509::{X509NameRef, X509Req};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Error, Result};
use crate::http::Client;

/// How long one call may take.
const TIME_OUT: Duration = Duration::from_secs(10);
/// The wait before the same bytes are sent again.
const AGAIN: Duration = Duration::from_secs(1);

/// When a webhook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `ENRICHING`: with the certificate request.
    Enriching,
    /// `AUTHORIZING`: with the certificate as it is to be.
    Authorizing,
    /// The generic call: before signing, and again once it is issued.
    Generic,
}

/// A webhook as it stands in the configuration of a provisioner.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its id, in a header of each call.
    pub id: String,
    /// Where it is.
    pub url: String,
    /// Its secret, base64.
    pub secret: String,
    /// When it is called.
    pub kind: Kind,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// What a call speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The `permanent-identifier`.
    pub identifier: &'a str,
    /// The certificate request, DER.
    pub request: &'a [u8],
    /// First and last second of the certificate to be.
    pub validity: (i64, i64),
    /// The attestation object (CBOR) and the token of its challenge, where there was an attestation.
    pub attestation: Option<(&'a [u8], &'a str)>,
}

/// The signature of a body: HMAC with SHA-256, hex.
pub fn sign(secret: &str, body: &[u8]) -> Result<String> {
    let secret = STANDARD.decode(secret).map_err(|_| Error::Options("a webhook's secret is base64".into()))?;
    let key = PKey::hmac(&secret)?;
    Ok(hex::encode(Signer::new(MessageDigest::sha256(), &key)?.sign_oneshot_to_vec(body)?))
}

/// A time as the bodies write it.
pub fn timestamp(seconds: i64) -> Result<String> {
    let wrong = |why: String| Error::Options(format!("no time: {why}"));
    let at = OffsetDateTime::from_unix_timestamp(seconds).map_err(|error| wrong(error.to_string()))?;
    at.format(&Rfc3339).map_err(|error| wrong(error.to_string()))
}

/// The body of a call at this second.
pub fn body(kind: Kind, subject: &Subject<'_>, now: i64) -> Result<Value> {
    let request = X509Req::from_der(subject.request)?;
    let key = request.public_key()?;
    let algorithm = if key.id() == openssl::pkey::Id::RSA { "RSA" } else { "ECDSA" };
    let key = STANDARD.encode(key.public_key_to_der()?);
    let names = json!([{ "type": "permanentIdentifier", "value": subject.identifier }]);
    let timestamp_now = timestamp(now)?;
    let attested = json!({ "permanentIdentifier": subject.identifier });
    Ok(match kind {
        Kind::Enriching => json!({
            "timestamp": timestamp_now,
            "attestationData": attested,
            "x509CertificateRequest": {
                "version": 0,
                "subject": name(request.subject_name()),
                "rawSubject": STANDARD.encode(request.subject_name().to_der()?),
                "dnsNames": null, "emailAddresses": null, "ipAddresses": null, "uris": null, "sans": [],
                "extensions": [],
                "publicKey": key,
                "publicKeyAlgorithm": algorithm,
                "raw": STANDARD.encode(subject.request),
            },
        }),
        Kind::Authorizing => json!({
            "timestamp": timestamp_now,
            "attestationData": attested,
            "x509Certificate": {
                "version": 0,
                "subject": name(request.subject_name()),
                "issuer": { "commonName": "" },
                "sans": names,
                "extensions": [],
                "publicKey": key,
                "publicKeyAlgorithm": algorithm,
                "notBefore": timestamp(subject.validity.0)?,
                "notAfter": timestamp(subject.validity.1)?,
            },
        }),
        Kind::Generic => {
            let mut body = json!({
                "timestamp": timestamp_now,
                "event": "authorize",
                "identifier": subject.identifier,
                "publicKey": key,
            });
            if let (Some((object, token)), Some(body)) = (subject.attestation, body.as_object_mut()) {
                let object = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(object);
                body.insert("attestation".into(), json!({ "object": object, "token": token }));
            }
            body
        }
    })
}

/// The body of the generic call once the certificate (DER) is there.
pub fn issued_body(identifier: &str, certificate: &[u8], now: i64) -> Result<Value> {
    Ok(json!({
        "timestamp": timestamp(now)?,
        "event": "issued",
        "identifier": identifier,
        "certificate": STANDARD.encode(certificate),
    }))
}

fn name(name: &X509NameRef) -> Value {
    let common = name.entries_by_nid(openssl::nid::Nid::COMMONNAME).next();
    let common = common.and_then(|entry| entry.data().to_string().ok()).unwrap_or_default();
    json!({ "commonName": common })
}

/// Calls one webhook; an error where it said no, or nothing that can be understood.
pub async fn call(client: &Client, webhook: &Webhook, body: &Value) -> Result<Value> {
    let text = body.to_string();
    let signature = sign(&webhook.secret, text.as_bytes())?;
    let (id, signed) = match webhook.kind {
        Kind::Generic => ("x-assay-webhook-id", "x-assay-signature"),
        Kind::Enriching | Kind::Authorizing => ("x-smallstep-webhook-id", "x-smallstep-signature"),
    };
    let headers = [("content-type", "application/json"), (id, webhook.id.as_str()), (signed, signature.as_str())];
    let mut left = 1;
    let denied = |why: String| Error::Acme(format!("the webhook did not allow it: {why}"));
    loop {
        let sent = client.send(Method::POST, &webhook.url, &headers, text.clone().into_bytes());
        let answer = tokio::time::timeout(TIME_OUT, sent).await.map_err(|_| denied("no answer in time".into()))?;
        match answer {
            Ok(answer) if answer.status < 400 => {
                let answer: Value = serde_json::from_slice(&answer.body).map_err(|error| denied(error.to_string()))?;
                return match answer.get("allow").and_then(Value::as_bool) {
                    Some(true) => Ok(answer),
                    _ => Err(denied(answer.pointer("/error/code").and_then(Value::as_str).unwrap_or("no").to_owned())),
                };
            }
            Ok(answer) if answer.status < 500 || left == 0 => return Err(denied(format!("status {}", answer.status))),
            Err(error) if left == 0 => return Err(denied(error.to_string())),
            _ => {
                left -= 1;
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    #[test]
    fn the_signature_is_an_hmac() {
        let made = sign(&STANDARD.encode("Jefe"), b"what do ya want for nothing?").unwrap();
        assert_eq!(made, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert!(sign("not base64!", b"").is_err());
        assert_eq!(timestamp(0).unwrap(), "1970-01-01T00:00:00Z");
    }
}
