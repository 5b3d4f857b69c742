//! The list of revoked certificates (CRL, RFC 5280 §5) of the built-in CA, and its address on the device listener.
//!
//! The server itself never reads it: it asks the database at each request, so that a revocation holds at once on every replica
//! (TH-09). The list is for others who check these identities, such as a proxy that ends TLS.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use der::asn1::{BitString, ObjectIdentifier, OctetString, Uint};
use der::{DateTime, Decode, Encode};
use http::{StatusCode, header};
use mdm_core::crypto::key::{Hash, KeyKind};
use mdm_core::time::{Clock, Timestamp};
use store::Store;
use store::identities::RevokedSerial;
use x509_cert::Version;
use x509_cert::crl::{CertificateList, RevokedCert, TbsCertList};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::AuthorityKeyIdentifier;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::Time;

use crate::scep::CurrentAuthority;
use crate::{Authority, Error};

/// How long a list is good for; whoever uses it fetches the next one well before.
const GOOD_FOR: Duration = Duration::from_hours(7 * 24);
/// How long a list is given out before it is made anew. A revocation shows in it after this time at the latest.
const KEEP: Duration = Duration::from_mins(5);

const CRL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.20");
const AUTHORITY_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// What the route needs. Clones share it.
#[derive(Debug, Clone)]
pub struct Shared {
    store: Store,
    authority: CurrentAuthority,
    clock: Clock,
    kept: Arc<Mutex<Option<Kept>>>,
}

/// A list, and when it was made.
type Kept = (Timestamp, Vec<u8>);

impl Shared {
    /// Puts it together.
    pub fn new(store: Store, authority: CurrentAuthority, clock: Clock) -> Self {
        Self { store, authority, clock, kept: Arc::default() }
    }
}

/// `GET /crl`: the list, DER.
pub fn router(shared: Shared) -> Router {
    Router::new().route("/crl", get(answer)).with_state(shared)
}

async fn answer(State(shared): State<Shared>) -> Response {
    match current(&shared).await {
        Ok(list) => {
            let headers = [
                (header::CONTENT_TYPE, "application/pkix-crl".to_owned()),
                (header::CACHE_CONTROL, format!("max-age={}", KEEP.as_secs())),
            ];
            (headers, list).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "the list of revoked certificates could not be made");
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "60")]).into_response()
        }
    }
}

async fn current(shared: &Shared) -> Result<Vec<u8>, Error> {
    let now = shared.clock.now();
    let kept = shared.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some((at, list)) = kept
        && at <= now
        && now.since(at) < KEEP
    {
        return Ok(list);
    }
    let revoked = store::identities::revoked_serials(&mut shared.store.read().await?, now).await?;
    let list = sign(&shared.authority.get(), &revoked, now)?;
    *shared.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, list.clone()));
    Ok(list)
}

/// Makes the list as of `now`, DER, signed by the CA.
pub fn sign(authority: &Authority, revoked: &[RevokedSerial], now: Timestamp) -> Result<Vec<u8>, Error> {
    let key = authority.ca_key();
    let oid = if matches!(key.kind(), KeyKind::Rsa { .. }) { SHA256_WITH_RSA } else { ECDSA_WITH_SHA256 };
    let parameters = if oid == SHA256_WITH_RSA { Some(der::asn1::Any::from(der::asn1::Null)) } else { None };
    let algorithm = AlgorithmIdentifierOwned { oid, parameters };
    let entries = revoked.iter().map(entry).collect::<Result<Vec<_>, Error>>()?;
    let tbs_cert_list = TbsCertList {
        version: Version::V2,
        signature: algorithm.clone(),
        issuer: Name::from_der(&authority.certificate().subject_der())?,
        this_update: time(now)?,
        next_update: Some(time(now.plus(GOOD_FOR))?),
        // RFC 5280 §5.1.2.6: absent where there are none.
        revoked_certificates: (!entries.is_empty()).then_some(entries),
        crl_extensions: Some(extensions(authority, now)?),
    };
    let signature = key.sign(Hash::Sha256, &tbs_cert_list.to_der()?)?;
    let list = CertificateList {
        tbs_cert_list,
        signature_algorithm: algorithm,
        signature: BitString::from_bytes(&signature)?,
    };
    Ok(list.to_der()?)
}

fn entry(revoked: &RevokedSerial) -> Result<RevokedCert, Error> {
    let serial = hex::decode(&revoked.serial).map_err(|_| store::Error::Corrupt("issuance.cert_serial"))?;
    Ok(RevokedCert {
        serial_number: SerialNumber::new(&serial)?,
        revocation_date: time(Timestamp(revoked.revoked_at))?,
        crl_entry_extensions: None,
    })
}

/// The key that signs, and a number that rises with each list (RFC 5280 §5.2.1, §5.2.3).
fn extensions(authority: &Authority, now: Timestamp) -> Result<Vec<Extension>, Error> {
    let key = authority.certificate().subject_key_id().map(|id| OctetString::new(id.to_vec())).transpose()?;
    let key = AuthorityKeyIdentifier { key_identifier: key, ..AuthorityKeyIdentifier::default() };
    let number = Uint::new(&now.0.to_be_bytes())?;
    let extension = |oid, der: Vec<u8>| {
        Ok::<_, Error>(Extension { extn_id: oid, critical: false, extn_value: OctetString::new(der)? })
    };
    Ok(vec![extension(AUTHORITY_KEY_IDENTIFIER, key.to_der()?)?, extension(CRL_NUMBER, number.to_der()?)?])
}

/// `UTCTime` until 2049, `GeneralizedTime` from then on (RFC 5280 §5.1.2.4).
fn time(at: Timestamp) -> Result<Time, Error> {
    let seconds = u64::try_from(at.unix_seconds()).map_err(|_| Error::Encoding)?;
    let date = DateTime::from_unix_duration(Duration::from_secs(seconds))?;
    Ok(match der::asn1::UtcTime::from_date_time(date) {
        Ok(utc) => Time::UtcTime(utc),
        Err(_) => Time::GeneralTime(der::asn1::GeneralizedTime::from_date_time(date)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuance::tests::{NOW, World};

    #[tokio::test]
    async fn th_35_the_list_is_signed_by_the_ca_and_holds_the_revoked() {
        let world = World::new().await;
        let authority = &world.authority;
        let revoked = RevokedSerial { serial: "01ff00aa".to_owned(), revoked_at: NOW.0 };
        for (rows, expected) in [(vec![], 0), (vec![revoked], 1)] {
            let der = sign(authority, &rows, NOW).unwrap();
            let list = CertificateList::from_der(&der).unwrap();
            let body = list.tbs_cert_list.to_der().unwrap();
            let key = authority.certificate().public_key().unwrap();
            key.verify(Hash::Sha256, &body, list.signature.raw_bytes()).unwrap();
            let entries = list.tbs_cert_list.revoked_certificates.unwrap_or_default();
            assert_eq!(entries.len(), expected);
            assert!(entries.iter().all(|entry| entry.serial_number.as_bytes() == [0x01, 0xff, 0x00, 0xaa]));
        }
    }

    #[tokio::test]
    async fn th_35_a_revoked_certificate_is_in_the_list_that_is_handed_out() {
        use axum::body::{Body, to_bytes};
        use tower::ServiceExt;

        let world = World::new().await;
        let clock = Clock::fixed(NOW);
        let shared = Shared::new(world.store.clone(), CurrentAuthority::new(world.authority.clone()), clock.clone());
        let listed = async || {
            let request = http::Request::get("/crl").body(Body::empty()).unwrap();
            let response = router(shared.clone()).oneshot(request).await.unwrap();
            assert_eq!(response.headers()["content-type"], "application/pkix-crl");
            let der = to_bytes(response.into_body(), 1 << 20).await.unwrap();
            let list = CertificateList::from_der(&der).unwrap().tbs_cert_list.revoked_certificates.unwrap_or_default();
            list.into_iter().map(|entry| hex::encode(entry.serial_number.as_bytes())).collect::<Vec<_>>()
        };
        let (record, certificate) = world.issued().await;
        assert!(listed().await.is_empty());
        let mut tx = world.store.begin().await.unwrap();
        assert!(store::issuance::revoke(&mut tx, record, NOW).await.unwrap());
        tx.commit().await.unwrap();
        assert!(listed().await.is_empty(), "it is kept for some minutes");
        clock.advance(KEEP);
        assert_eq!(listed().await, [certificate.serial_hex()]);
        clock.advance(Duration::from_hours(366 * 24));
        assert!(listed().await.is_empty(), "what has ended needs no revocation");
        // What else TH-35 asks for: path length 0 and a year at most.
        assert_eq!(world.authority.certificate().path_length(), Some(0));
        assert!(certificate.not_after() <= NOW.plus(Duration::from_hours(365 * 24)));
    }
}
