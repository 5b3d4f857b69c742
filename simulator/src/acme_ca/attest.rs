//! The check of an attestation object in Apple's format.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use openssl::hash::{MessageDigest, hash};
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509PurposeId, X509StoreContext, X509StoreContextRef};
use serde_json::Value;

use super::{Identifiers, Problem, Settings};
use crate::attestation::{FRESHNESS, SERIAL_NUMBER, Statement, UDID, extension};

/// What an answer to the challenge has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checked {
    /// The attested key (SubjectPublicKeyInfo, DER); `None` where nothing is attested.
    pub(super) key: Option<Vec<u8>>,
    /// The serial number that the attestation names.
    pub(super) serial_number: Option<String>,
    /// The attestation object, CBOR.
    pub(super) object: Vec<u8>,
    /// The token of the challenge.
    pub(super) token: String,
}

/// Checks the payload `{"attObj": …}` for an order of this identifier whose challenge has this token.
pub(super) fn check(settings: &Settings, payload: &Value, identifier: &str, token: &str) -> Result<Checked, Problem> {
    let refused = |why: &str| Problem::new(StatusCode::FORBIDDEN, "badAttestationStatement", why);
    let object = payload.get("attObj").and_then(Value::as_str).ok_or_else(|| refused("no attObj"))?;
    let object = URL_SAFE_NO_PAD.decode(object).map_err(|_| refused("attObj is base64url"))?;
    let statement = Statement::decode(&object).map_err(|error| refused(&error.to_string()))?;
    let leaf = match (statement.format.as_str(), statement.x5c.split_first()) {
        ("none", None) if settings.accept_unattested => {
            return Ok(Checked { key: None, serial_number: None, object, token: token.to_owned() });
        }
        ("none", None) => return Err(refused("an attestation is required")),
        ("apple", Some((leaf, others))) => {
            if !chains(settings, leaf, others).unwrap_or(false) {
                return Err(refused("the attestation comes from nobody who is trusted"));
            }
            leaf
        }
        _ => return Err(refused("the format is apple, or none")),
    };
    let value = |oid| extension(leaf, oid).ok().flatten();
    let freshness = hash(MessageDigest::sha256(), token.as_bytes())?;
    if value(FRESHNESS).as_deref() != Some(&*freshness) {
        return Err(refused("the attestation is not for this challenge"));
    }
    if settings.identifiers == Identifiers::OfDevice {
        let named = [SERIAL_NUMBER, UDID].into_iter().filter_map(value).any(|value| value == identifier.as_bytes());
        if !named {
            return Err(refused("the identifier is neither serial number nor UDID of the attested device"));
        }
    }
    let key = X509::from_der(leaf)?.public_key()?.public_key_to_der()?;
    let serial_number = value(SERIAL_NUMBER).and_then(|serial| String::from_utf8(serial).ok());
    Ok(Checked { key: Some(key), serial_number, object, token: token.to_owned() })
}

fn chains(settings: &Settings, leaf: &[u8], others: &[Vec<u8>]) -> Result<bool, openssl::error::ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    for root in &settings.attestation_roots {
        store.add_cert(X509::from_der(root)?)?;
    }
    store.set_purpose(X509PurposeId::ANY)?;
    let mut between = Stack::new()?;
    for other in others {
        between.push(X509::from_der(other)?)?;
    }
    X509StoreContext::new()?.init(&store.build(), &*X509::from_der(leaf)?, &between, X509StoreContextRef::verify_cert)
}
