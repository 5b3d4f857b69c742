//! Keeping an `Authenticate` that was refused for an operator (TH-02), within limits for each address and each certificate.

use enroll::quarantine::Kept;
use issuer::admission::Refusal;
use mdm_core::checkin::Authenticate;
use mdm_core::rate::{Rate, network};

use crate::Door;
use crate::bearer::Head;
use crate::checkin::arrival;
use crate::identity::Identity;

/// New certificates in quarantine from one address.
const NEW: Rate = Rate { burst: 20, per_second: 20.0 / 3600.0 };

/// Keeps a refused `Authenticate`, in a transaction of its own: that of the message was given up.
pub(crate) async fn keep(
    door: &Door,
    head: &Head,
    identity: &Identity,
    message: &Authenticate,
    raw: &[u8],
    refusal: Refusal,
) {
    let now = door.clock.now();
    // The address is that of whom the listener sees; where it is not known, all share one measure.
    let address = head.address.map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), network);
    let kept = store::retry(|| async {
        let mut tx = door.store.begin().await?;
        let known = store::quarantine::of_certificate(&mut tx, identity.fingerprint).await?.is_some();
        if !known && !door.quarantined.take(address, NEW, now) {
            return Ok(Kept::Full);
        }
        let arrival = arrival(door, identity, message, raw);
        let kept = enroll::quarantine::keep(&mut tx, &door.random, &arrival, refusal, now).await?;
        tx.commit().await?;
        Ok::<_, enroll::Error>(kept)
    })
    .await;
    let certificate = identity.fingerprint;
    match kept {
        Ok(Kept::New(id)) => {
            metrics::counter!("quarantine_added_total").increment(1);
            tracing::warn!(quarantine.id = %id, %certificate, reason = refusal.code(), "an Authenticate was quarantined");
        }
        Ok(Kept::Again) => {}
        Ok(Kept::Full) => {
            metrics::counter!("quarantine_full_total").increment(1);
            tracing::warn!(%certificate, reason = refusal.code(), "an Authenticate was refused and not kept: the quarantine takes no more now");
        }
        Err(error) => tracing::warn!(%error, "a refused Authenticate could not be put into the quarantine"),
    }
}
