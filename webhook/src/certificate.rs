//! What an authority says that it has issued.

use mdm_core::certificate::Certificate;
use mdm_core::ids::{AttemptId, EnrollmentId, Fingerprint, PolicyId};
use mdm_core::time::Timestamp;
use serde_json::json;
use store::attempts::{self, Attempt};
use store::certificates::{self, New};
use store::{Tx, authorities};

use crate::answer::{Outcome, Webhook, record};
use crate::denial::Denial;
use crate::error::Result;

/// Writes down a certificate that the authority reports. Whether it is the right one, the device shows.
pub(crate) async fn reported(
    tx: &mut Tx,
    webhook: &Webhook,
    identifier: Option<&str>,
    certificate: &Certificate,
    now: Timestamp,
) -> Result<Outcome> {
    let key = certificate.subject_key();
    let Some(attempt) = of_key(tx, webhook, identifier, &key.spki_sha256).await? else {
        return Ok(Outcome::no(Denial::NotAllowed, None));
    };
    let fingerprint = certificate.fingerprint();
    if !attempts::issued(tx, attempt.id(), &fingerprint.0, now).await? {
        return Ok(Outcome::no(Denial::OtherCertificate, Some(attempt)));
    }
    let expectation = crate::answer::expectation(&attempt)?;
    let new = New {
        enrollment: EnrollmentId(attempt.enrollment_id),
        policy: PolicyId(attempt.policy_id),
        attempt: attempt.id(),
        certificate,
        hardware_bound: expectation.hardware_bound,
        attested: expectation.attested,
    };
    if certificates::report(tx, &new, now).await? {
        let data = json!({
            "trace": attempt.id,
            "authority": webhook.authority.name,
            "sha256": fingerprint.to_string(),
            "serial_number": certificate.serial_hex(),
            "not_after": certificate.not_after(),
        });
        record(
            tx,
            webhook,
            "certificate.issued",
            "The certificate authority says that it issued",
            Some(&attempt),
            &data,
            now,
        )
        .await?;
    }
    Ok(Outcome {
        answer: json!({ "allow": true, "data": { "trace": attempt.id } }),
        used: None,
        denial: None,
        attempt: Some(attempt),
    })
}

/// The newest attempt of this authority whose permission was used for the key, and that has the identifier.
async fn of_key(
    tx: &mut Tx,
    webhook: &Webhook,
    identifier: Option<&str>,
    key_sha256: &[u8],
) -> Result<Option<Attempt>> {
    let wanted = identifier.map(|text| Fingerprint::of(text.as_bytes()).0);
    for id in authorities::allowed(tx, webhook.authority_id(), key_sha256).await? {
        let found: Option<Attempt> = attempts::get(tx, AttemptId(id.0)).await?;
        if let Some(attempt) = found
            && wanted.is_none_or(|wanted| attempt.client_identifier_sha256.as_deref() == Some(wanted.as_slice()))
        {
            return Ok(Some(attempt));
        }
    }
    Ok(None)
}
