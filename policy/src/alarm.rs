//! Certificates that end and were not renewed: said once as an event each, counted in the metrics, and told as a warning of the
//! server's readiness (docs/proof.md).

use mdm_core::ids::{EnrollmentId, Fingerprint};
use mdm_core::time::Timestamp;
use serde_json::json;
use store::certificates::{self, Alarmed, Ends, State};
use store::events::NewEvent;
use store::{Store, Tx};

use crate::error::{Result, corrupt};
use crate::renew::{Alarm, WORRY_LONGEST};

/// Says of up to `limit` certificates that they end soon, or have ended, and were not renewed: an event each, once. How many there
/// were; call it again at once when it is `limit`.
pub async fn sound(store: &Store, now: Timestamp, limit: i64) -> Result<usize> {
    store::retry(|| async {
        let mut tx = store.begin().await?;
        let unsaid = certificates::unsaid(&mut tx, WORRY_LONGEST, now, limit).await?;
        for certificate in &unsaid {
            say(&mut tx, certificate, now).await?;
        }
        tx.commit().await?;
        Ok(unsaid.len())
    })
    .await
}

async fn say(tx: &mut Tx, certificate: &Alarmed, now: Timestamp) -> Result<()> {
    let ended = certificate.not_after <= now.0;
    let alarm = if ended { Alarm::Ended } else { Alarm::EndsSoon };
    let bytes = certificate.sha256.as_slice().try_into().map_err(|_| corrupt("acme_certificate.sha256"))?;
    if !certificates::alarmed(tx, Fingerprint(bytes), alarm.as_str()).await? {
        return Ok(());
    }
    let (kind, summary) = match alarm {
        Alarm::EndsSoon => ("certificate.ends_soon", "The certificate of a policy ends soon and was not renewed"),
        Alarm::Ended => ("certificate.ended", "The certificate of a policy has ended and was not renewed"),
    };
    let data = json!({
        "trace": certificate.attempt_id, "renewal_trace": certificate.renewal_id, "reason": certificate.reason,
        "policy_id": certificate.policy_id, "certificate_sha256": Fingerprint(bytes).to_string(),
        "not_after": Timestamp(certificate.not_after).to_string(),
    });
    let enrollment = EnrollmentId(certificate.enrollment_id);
    let event =
        NewEvent { at: now, kind, enrollment: Some(enrollment), command: None, actor: "server", summary, data: &data };
    store::events::record(tx, &event).await?;
    tracing::warn!(enrollment.id = %enrollment, trace.id = %certificate.attempt_id, reason = certificate.reason, "{summary}");
    Ok(())
}

/// Renews the gauges `acme_certificates` and `acme_certificates_near_end`.
pub async fn report(store: &Store, now: Timestamp) -> Result<()> {
    let mut tx = store.read().await?;
    let Ends { soon, ended } = certificates::ends(&mut tx, WORRY_LONGEST, now).await?;
    metrics::gauge!("acme_certificates_near_end", "alarm" => Alarm::EndsSoon.as_str()).set(float(soon));
    metrics::gauge!("acme_certificates_near_end", "alarm" => Alarm::Ended.as_str()).set(float(ended));
    let counts = certificates::counts(&mut tx).await?;
    for state in State::ALL {
        let count = counts.iter().find(|count| count.state == state.as_str()).map_or(0, |count| count.count);
        metrics::gauge!("acme_certificates", "state" => state.as_str()).set(float(count));
    }
    Ok(())
}

/// What an operator should know, a sentence each; nothing where all is well.
pub async fn warnings(tx: &mut Tx, now: Timestamp) -> Result<Vec<String>> {
    let Ends { soon, ended } = certificates::ends(tx, WORRY_LONGEST, now).await?;
    let mut warnings = Vec::new();
    if ended > 0 {
        warnings.push(format!(
            "{ended} certificates of ACME policies have ended and were not renewed: GET /api/v1/acme-certificates?state=verified&ends_within_days=0 says which"
        ));
    }
    if soon > 0 {
        warnings.push(format!(
            "{soon} certificates of ACME policies end soon and were not renewed: GET /api/v1/acme-certificates?state=verified&ends_within_days=30 says which"
        ));
    }
    Ok(warnings)
}

fn float(count: i64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
