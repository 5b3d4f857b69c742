//! Proof: `Acknowledged` is the device's word that a profile is installed; what counts is the certificate itself, as the device's
//! CertificateList shows it (`certificate.list.yaml`: `IsIdentity`, `Data`).
//!
//! [`judge`] is pure. The evidence for a certificate is, from the strongest: the authority's webhook reported this very one; the
//! webhook was told yes for its key; it carries the attempt's one-time ClientIdentifier; its names are those that were asked for
//! and it is no older than the delivery. In every case its key must be of the kind that was asked for, it must not belong to
//! anybody else, and one of the authority's issuers must have signed it – only a certificate that the authority itself has shown
//! needs no issuer.

mod expectation;

use std::cmp::Reverse;
use std::time::Duration;

use mdm_core::certificate::Certificate;
use mdm_core::command::certificate_list::InstalledCertificate;
use mdm_core::crypto::trust::{Purpose, Trust};
use mdm_core::ids::{AttemptId, EnrollmentId, Fingerprint, PolicyId};
use mdm_core::time::Timestamp;
use store::Tx;
use store::attempts::Attempt;
use store::certificates::{self, New};
use store::enrollments::Enrollment;
use store::events::NewEvent;

use crate::error::{Result, corrupt};
use crate::reason::ReasonCode;

pub use expectation::{Agreement, Expectation, Expected, Name};

/// How much older than its delivery a certificate may be: clocks differ, and authorities date back.
pub const SKEW: Duration = Duration::from_mins(5);

/// More identities than a device has.
const MAX_IDENTITIES: usize = 200;

/// What is known of the attempt whose certificate is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What was delivered.
    pub expectation: &'a Expectation,
    /// When.
    pub delivered_at: Timestamp,
    /// The certificate that the authority said it issued.
    pub reported: Option<Fingerprint>,
    /// SHA-256 of the public key that the authority was told yes for.
    pub authorized_key: Option<[u8; 32]>,
    /// Issuers of the authority are known.
    pub issuers_known: bool,
    /// Now.
    pub now: Timestamp,
}

/// To whom a certificate or its key belonged before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// To nobody, or to this attempt.
    Free,
    /// To another attempt of the same enrollment: an older certificate that is still there.
    OtherAttempt,
    /// To another enrollment (TH-42).
    OtherEnrollment,
}

/// An identity of the list.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The certificate.
    pub certificate: Certificate,
    /// One of the authority's issuers signed it.
    pub issued: bool,
    /// Whose it was before.
    pub owner: Owner,
}

/// How sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// The names, the issuer, the kind of key and the time.
    Names,
    /// The one-time ClientIdentifier in it.
    OneTime,
    /// The key that the authority was told yes for.
    Key,
    /// The authority has shown this very certificate.
    Reported,
}

/// Why there is no proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The reason code.
    pub reason: ReasonCode,
    /// What was seen, for an operator. Without secrets.
    pub detail: String,
}

/// Looks for the certificate of an attempt among the identities of a list: the index of the one, and how sure it is; or why there
/// is none, as told by the identity that came nearest.
pub fn judge(asked: &Asked<'_>, candidates: &[Candidate]) -> Result<(usize, Evidence), Missing> {
    // Where several are as good, the first that was issued: of two policies that ask for the same names, each finds its own in the
    // order of delivery.
    let mut best: Option<(Evidence, Reverse<Timestamp>, Reverse<usize>)> = None;
    let mut nearest: Option<(usize, Missing)> = None;
    for (at, candidate) in candidates.iter().enumerate() {
        match weigh(asked, candidate) {
            Ok(evidence) => {
                let found = (evidence, Reverse(candidate.certificate.not_before()), Reverse(at));
                best = best.max(Some(found));
            }
            Err((steps, missing)) => {
                if nearest.as_ref().is_none_or(|(most, _)| steps > *most) {
                    nearest = Some((steps, missing));
                }
            }
        }
    }
    if let Some((evidence, _, Reverse(at))) = best {
        return Ok((at, evidence));
    }
    Err(match nearest {
        Some((steps, missing)) if steps > 0 => missing,
        _ => Missing {
            reason: ReasonCode::CertificateNotListed,
            detail: format!("the list shows {} other identities", candidates.len()),
        },
    })
}

/// How sure it is that this is the one; or how far it came, and what is against it. 0: it has nothing to do with the attempt.
fn weigh(asked: &Asked<'_>, candidate: &Candidate) -> Result<Evidence, (usize, Missing)> {
    let certificate = &candidate.certificate;
    let expectation = asked.expectation;
    let no = |steps: usize, reason: ReasonCode, why: &str| {
        let detail = format!("certificate {}: {why}", short(certificate));
        Err((steps, Missing { reason, detail }))
    };
    let reported = asked.reported == Some(certificate.fingerprint());
    let authorized = asked.authorized_key == Some(certificate.subject_key().spki_sha256);
    let names = expectation.names_agree(certificate);
    let related = reported || authorized || names.is_ok();
    match candidate.owner {
        Owner::Free => {}
        Owner::OtherAttempt => return no(0, ReasonCode::CertificateNotListed, "it came by an earlier attempt"),
        Owner::OtherEnrollment => {
            return no(
                usize::from(related),
                ReasonCode::CertificateOfAnother,
                "it or its key belongs to another enrollment",
            );
        }
    }
    if !candidate.issued && !reported {
        let steps = if related { 2 } else { 0 };
        if !asked.issuers_known {
            return no(steps, ReasonCode::IssuersUnknown, "nobody knows who may have issued it");
        }
        return no(steps, ReasonCode::CertificateIssuerUnknown, "none of the authority's issuers signed it");
    }
    if !reported {
        if asked.reported.is_some() {
            return no(3, ReasonCode::CertificateKeyDiffers, "the authority has shown another one");
        }
        if asked.authorized_key.is_some() && !authorized {
            return no(3, ReasonCode::CertificateKeyDiffers, "the authority was told yes for another key");
        }
    }
    if let Some(why) = expectation.key_differs(certificate) {
        return no(4, ReasonCode::CertificateKeyDiffers, &why);
    }
    if certificate.not_after() <= asked.now {
        return no(5, ReasonCode::CertificateNotFresh, &format!("it ended at {}", certificate.not_after()));
    }
    if reported {
        return Ok(Evidence::Reported);
    }
    if authorized {
        return Ok(Evidence::Key);
    }
    match names {
        Err(why) => no(6, ReasonCode::CertificateNamesDiffer, &why),
        Ok(Agreement::OneTime) => Ok(Evidence::OneTime),
        Ok(Agreement::Names) if certificate.not_before() < asked.delivered_at.minus(SKEW) => {
            let why = format!("it is valid from {}, before its delivery", certificate.not_before());
            no(7, ReasonCode::CertificateNotFresh, &why)
        }
        Ok(Agreement::Names) => Ok(Evidence::Names),
    }
}

/// The beginning of the fingerprint, for people.
fn short(certificate: &Certificate) -> String {
    certificate.fingerprint().to_string().chars().take(16).collect()
}

/// What a list has shown of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The certificate is there.
    Proved {
        /// SHA-256 of it.
        sha256: Fingerprint,
        /// From when it is valid.
        not_before: Timestamp,
        /// Until when it is valid.
        not_after: Timestamp,
    },
    /// It is not.
    Missing {
        /// The reason code.
        reason: ReasonCode,
        /// What was seen, for an operator. Without secrets.
        detail: String,
    },
}

/// Looks for the certificate of an attempt in a CertificateList of its enrollment. What is found is written as the verified
/// certificate of the policy, and those before it as replaced; the attempt itself is the caller's. The lock on the enrollment
/// is held.
///
/// # Panics
/// Never: [`judge`] gives the index of a candidate.
pub async fn prove(
    tx: &mut Tx,
    enrollment: &Enrollment,
    attempt: &Attempt,
    authority: &ca::Authority,
    list: &[InstalledCertificate],
    now: Timestamp,
) -> Result<Proof> {
    let expectation: Expectation = attempt
        .expectation
        .as_deref()
        .and_then(|text| serde_json::from_str(text).ok())
        .ok_or_else(|| corrupt("attempt.expectation"))?;
    let delivered_at = attempt.delivered_at.ok_or_else(|| corrupt("attempt.delivered_at"))?;
    let authorized_key = match &attempt.authorized_key_sha256 {
        None => None,
        Some(bytes) => Some(as_hash(bytes).ok_or_else(|| corrupt("attempt.authorized_key_sha256"))?),
    };
    let reported = match &attempt.certificate_sha256 {
        None => None,
        Some(bytes) => Some(Fingerprint(as_hash(bytes).ok_or_else(|| corrupt("attempt.certificate_sha256"))?)),
    };
    let issuers: Vec<Certificate> =
        authority.issuers.iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
    let usable = issuers.into_iter().filter(|c| c.is_ca() && c.public_key().is_ok()).collect();
    let trust = Trust::new(usable).map_err(|_| corrupt("certificate_authority.issuers"))?;
    let issuers_known = trust.authorities().next().is_some();
    let asked = Asked {
        expectation: &expectation,
        delivered_at: Timestamp(delivered_at),
        reported,
        authorized_key,
        issuers_known,
        now,
    };
    let candidates = candidates(tx, attempt, &trust, reported, list, now).await?;
    let found = match judge(&asked, &candidates) {
        Ok((at, _)) => candidates.get(at),
        Err(Missing { reason, detail }) => return Ok(Proof::Missing { reason, detail }),
    };
    let certificate = &found.expect("judge gives the index of a candidate").certificate;
    let new = New {
        enrollment: enrollment.id,
        policy: PolicyId(attempt.policy_id),
        attempt: AttemptId(attempt.id),
        certificate,
        hardware_bound: expectation.hardware_bound,
        attested: expectation.attested,
    };
    if !certificates::verify(tx, &new, now).await? {
        let detail = format!("certificate {}: it belongs to another enrollment", short(certificate));
        return Ok(Proof::Missing { reason: ReasonCode::CertificateOfAnother, detail });
    }
    let sha256 = certificate.fingerprint();
    certificates::replace(tx, enrollment.id, new.policy, sha256, now).await?;
    Ok(Proof::Proved { sha256, not_before: certificate.not_before(), not_after: certificate.not_after() })
}

/// The identities of a list, each with who signed it and whose it was.
async fn candidates(
    tx: &mut Tx,
    attempt: &Attempt,
    trust: &Trust,
    reported: Option<Fingerprint>,
    list: &[InstalledCertificate],
    now: Timestamp,
) -> Result<Vec<Candidate>> {
    let read = |entry: &InstalledCertificate| Certificate::from_der(&entry.der).ok();
    // Authorities that one of the issuers signed and that came to the device with a profile: what they signed counts too.
    let between: Vec<Certificate> = list
        .iter()
        .filter(|entry| !entry.is_identity)
        .filter_map(read)
        .filter(|certificate| certificate.is_ca() && trust.issuer_of(certificate).is_some())
        .collect();
    let mut candidates: Vec<Candidate> = Vec::new();
    for certificate in list.iter().filter(|e| e.is_identity).take(MAX_IDENTITIES).filter_map(read) {
        if candidates.iter().any(|known| known.certificate == certificate) {
            continue;
        }
        let issued = trust.issuer_of(&certificate).is_some()
            || trust.verify(&certificate, &between, now, Purpose::Signature).is_ok();
        // Whose it was matters for those only that could be the one.
        let owner = if issued || reported == Some(certificate.fingerprint()) {
            owner(tx, attempt, &certificate).await?
        } else {
            Owner::Free
        };
        candidates.push(Candidate { certificate, issued, owner });
    }
    Ok(candidates)
}

async fn owner(tx: &mut Tx, attempt: &Attempt, certificate: &Certificate) -> Result<Owner> {
    let key = certificate.subject_key().spki_sha256;
    let enrollment = EnrollmentId(attempt.enrollment_id);
    if store::authorities::is_key_of_another(tx, &key, enrollment).await? {
        return Ok(Owner::OtherEnrollment);
    }
    Ok(match certificates::get(tx, certificate.fingerprint()).await? {
        Some(known) if known.attempt_id != attempt.id => Owner::OtherAttempt,
        _ => Owner::Free,
    })
}

fn as_hash(bytes: &[u8]) -> Option<[u8; 32]> {
    bytes.try_into().ok()
}

/// Notes which of the verified certificates of an enrollment a CertificateList still shows, and gives the policies whose certificate
/// it does not show any more. Called once for each list, after every [`prove`] on it. The lock on the enrollment is held.
pub async fn seen(
    tx: &mut Tx,
    enrollment: &Enrollment,
    list: &[InstalledCertificate],
    now: Timestamp,
) -> Result<Vec<PolicyId>> {
    let there: Vec<Fingerprint> =
        list.iter().filter(|entry| entry.is_identity).map(|entry| Fingerprint::of(&entry.der)).collect();
    let mut missing = Vec::new();
    for known in certificates::of_enrollment(tx, enrollment.id).await? {
        let sha256 = Fingerprint(as_hash(&known.sha256).ok_or_else(|| corrupt("acme_certificate.sha256"))?);
        if there.contains(&sha256) {
            certificates::seen(tx, sha256, now).await?;
        } else if certificates::gone(tx, sha256).await? {
            let data = serde_json::json!({
                "trace": known.attempt_id, "certificate_sha256": sha256.to_string(), "policy_id": known.policy_id,
            });
            let event = NewEvent {
                at: now,
                kind: "certificate.gone",
                enrollment: Some(enrollment.id),
                command: None,
                actor: "device",
                summary: "The device does not show the certificate of a policy any more",
                data: &data,
            };
            store::events::record(tx, &event).await?;
            tracing::warn!(enrollment.id = %enrollment.id, trace.id = %known.attempt_id, "a certificate is not on its device any more");
            missing.push(PolicyId(known.policy_id));
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests;
