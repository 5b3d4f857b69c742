//! Judging what came back, in the order of section (d) of the threat model, and keeping the verdict.

use mdm_core::crypto::attestation::{AttestationError, Attested, Device, read_object, verify_chain, verify_object};
use mdm_core::enrollment::{DeviceKey, EnrollmentKind, EnrollmentState};
use mdm_core::hardware::Platform;
use mdm_core::ids::{CommandUuid, EnrollmentId, Fingerprint};
use mdm_core::time::Timestamp;
use serde_json::json;
use store::Tx;
use store::attestations::{self, New, Nonce};
use store::enrollments::{self, Enrollment};
use store::events::{self, NewEvent};

use crate::verdict::{Identity, Judged, Source, Verdict};
use crate::{Context, Result};

/// What the device says of itself, as far as an attestation is compared with it. Its UDID and the serial number of `Authenticate`
/// are the enrollment's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Claims<'a> {
    /// Its operating system: on a Mac the attested UDID is the ProvisioningUDID (TH-40).
    pub platform: Option<Platform>,
    /// `SerialNumber`, used where `Authenticate` had none.
    pub serial_number: Option<&'a str>,
    /// `ProvisioningUDID`.
    pub provisioning_udid: Option<&'a str>,
}

fn device<'a>(enrollment: &'a Enrollment, claims: &Claims<'a>) -> Device<'a> {
    Device {
        platform: claims.platform,
        user_enrollment: enrollment.kind == EnrollmentKind::User,
        serial_number: enrollment.serial_number.as_deref().or(claims.serial_number),
        udid: match &enrollment.device_key {
            Some(DeviceKey::Udid(udid)) => Some(udid.as_str()),
            Some(DeviceKey::EnrollmentId(_)) | None => None,
        },
        provisioning_udid: claims.provisioning_udid,
    }
}

/// Whose a nonce is that an attestation carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carries {
    /// None of ours, or one of an enrollment that is over: the device answers with an attestation that it had. That is normal.
    Unknown,
    /// One that this enrollment was sent, then.
    Ours(Timestamp),
    /// One that another enrollment was sent, which goes on.
    Foreign,
}

/// The verdict on the answer to `DevicePropertiesAttestation`, as a pure function of what its chain proves and whose its freshness
/// code is.
pub(crate) fn verdict(verified: Result<Attested, AttestationError>, carries: Carries, device: &Device<'_>) -> Judged {
    let judge = |attested: Attested| {
        if attested.freshness.is_none() {
            return Err(AttestationError::FreshnessMissing);
        }
        let fresh_as_of = match carries {
            Carries::Unknown => None,
            Carries::Ours(at) => Some(at),
            Carries::Foreign => return Err(AttestationError::FreshnessForeign),
        };
        let identity = attested.identity(device)?.into();
        // Only in User Enrollment does Apple leave out which device it is. Elsewhere such an attestation is another machine's, which
        // our nonce was handed on to (TH-39).
        if identity == Identity::NotAttested && !device.user_enrollment {
            return Err(AttestationError::IdentityMissing);
        }
        Ok(Judged { verdict: Verdict::Accepted, identity, fresh_as_of, attested: Some(attested) })
    };
    verified.and_then(judge).unwrap_or_else(Judged::refused)
}

/// Judges what this enrollment's device answered to the `DeviceInformation` with this `CommandUUID`, and keeps the verdict. `chain`
/// are the certificates of `DevicePropertiesAttestation`, `None` where the answer has none. The lock on the enrollment is held.
///
/// `None` where nothing was asked and nothing came. The same answer again is judged again and kept once.
pub async fn judge(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    claims: &Claims<'_>,
    chain: Option<&[Vec<u8>]>,
    command: &CommandUuid,
    now: Timestamp,
) -> Result<Option<Judged>> {
    let Some(chain) = chain else {
        let last = attestations::last_nonce(tx, enrollment.id).await?;
        if last.is_none_or(|nonce| nonce.command_uuid != command.as_str()) {
            return Ok(None);
        }
        let judged = Judged::absent();
        keep(tx, ctx, enrollment, Source::DeviceInformation, &judged, &[], now).await?;
        return Ok(Some(judged));
    };
    let verified = verify_chain(chain, &ctx.roots(), now);
    let carries = match verified.as_ref().ok().and_then(|attested| attested.freshness.as_deref()) {
        Some(code) => carries(tx, enrollment.id, code).await?,
        None => Carries::Unknown,
    };
    let judged = verdict(verified, carries, &device(enrollment, claims));
    keep(tx, ctx, enrollment, Source::DeviceInformation, &judged, chain, now).await?;
    Ok(Some(judged))
}

/// Whose nonce this code is. Apple's page does not say whether the code in the leaf is the nonce or its SHA-256 (open question
/// Q9): either counts.
async fn carries(tx: &mut Tx, enrollment: EnrollmentId, code: &[u8]) -> Result<Carries> {
    let known = match attestations::nonce(tx, code).await? {
        Some(nonce) => Some(nonce),
        None => attestations::nonces(tx, enrollment, MOST_NONCES)
            .await?
            .into_iter()
            .find(|nonce| Fingerprint::of(&nonce.nonce).0 == *code),
    };
    let Some(Nonce { enrollment_id, sent_at, .. }) = known else { return Ok(Carries::Unknown) };
    if enrollment_id == enrollment.0 {
        return Ok(Carries::Ours(Timestamp(sent_at)));
    }
    // A device that enrolled anew, as in User Enrollment, may have kept the attestation of its former enrollment.
    let other = enrollments::get(tx, EnrollmentId(enrollment_id)).await?;
    let goes_on = other.is_some_and(|other| !matches!(other.state, EnrollmentState::Unenrolled { .. }));
    Ok(if goes_on { Carries::Foreign } else { Carries::Unknown })
}

/// Nonces of an enrollment that are compared by their SHA-256: those of a quarter of a year.
const MOST_NONCES: i64 = 13;

/// Judges an attestation object of ACME's `device-attest-01` for this enrollment, and keeps the verdict. `token` is that of the
/// challenge, `asked_at` a time before which the challenge cannot have been made, `csr_spki` the key of the certification request.
pub async fn judge_object(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    claims: &Claims<'_>,
    (object, token, csr_spki): (&[u8], &str, &[u8]),
    asked_at: Timestamp,
    now: Timestamp,
) -> Result<Judged> {
    let device = device(enrollment, claims);
    let judged = match verify_object(object, token, &device, csr_spki, &ctx.roots(), now) {
        Ok((attested, identity)) => Judged {
            verdict: Verdict::Accepted,
            identity: identity.into(),
            fresh_as_of: Some(asked_at),
            attested: Some(attested),
        },
        Err(AttestationError::NoStatement) => Judged::absent(),
        Err(error) => Judged::refused(error),
    };
    let chain = read_object(object).unwrap_or_default();
    keep(tx, ctx, enrollment, Source::Acme, &judged, &chain, now).await?;
    Ok(judged)
}

/// Keeps a verdict, unless it is the newest one over again. A refusal is told once.
async fn keep(
    tx: &mut Tx,
    ctx: &Context,
    enrollment: &Enrollment,
    source: Source,
    judged: &Judged,
    chain: &[Vec<u8>],
    now: Timestamp,
) -> Result<()> {
    let verdict = judged.verdict.as_str();
    metrics::counter!("attestations_total", "source" => source.as_str(), "verdict" => verdict).increment(1);
    let bytes = chain.concat();
    let chain_sha256 = Fingerprint::of(&bytes);
    let since = enrollment.enrolled_at.unwrap_or(enrollment.created_at);
    let known = attestations::latest(tx, enrollment.id, source.as_str()).await?.is_some_and(|row| {
        row.chain_sha256 == chain_sha256.0
            && row.verdict == verdict
            && row.identity == judged.identity.as_str()
            && row.fresh_as_of == judged.fresh_as_of.map(|at| at.0)
            && Timestamp(row.received_at) >= since
    });
    if known {
        return Ok(());
    }
    let body = serde_json::to_string(&judged.values()).map_err(|_| store::Error::Corrupt("attestation.body"))?;
    let new = New {
        id: ctx.random.uuid_v7(now),
        enrollment: enrollment.id,
        source: source.as_str(),
        verdict,
        identity: judged.identity.as_str(),
        fresh_as_of: judged.fresh_as_of,
        body: &body,
        chain_sha256,
        chain: (!bytes.is_empty() && bytes.len() <= MOST_KEPT && !ctx.retention.is_zero()).then_some(bytes.as_slice()),
    };
    attestations::insert(tx, &new, now).await?;
    if let Verdict::Refused(error) = judged.verdict {
        refused(tx, enrollment, source, judged.identity, error, now).await?;
    }
    Ok(())
}

/// Bytes of a chain that is kept: five certificates of the largest size.
const MOST_KEPT: usize = 80 * 1024;

async fn refused(
    tx: &mut Tx,
    enrollment: &Enrollment,
    source: Source,
    identity: Identity,
    error: AttestationError,
    now: Timestamp,
) -> Result<()> {
    tracing::warn!(enrollment.id = %enrollment.id, source = source.as_str(), error = %error, "an attestation was refused");
    let (kind, summary) = if identity == Identity::Mismatch {
        ("attestation.mismatch", "The device sent the attestation of another device")
    } else {
        ("attestation.refused", "The device sent an attestation that proves nothing")
    };
    let event = NewEvent {
        at: now,
        kind,
        enrollment: Some(enrollment.id),
        command: None,
        actor: "device",
        summary,
        data: &json!({ "source": source.as_str(), "reason": error.as_str(), "detail": error.to_string() }),
    };
    Ok(events::record(tx, &event).await?)
}

#[cfg(test)]
mod tests;
