//! A next anchor reaches enrolled devices: their profiles are installed anew.

use mdm_core::ids::EnrollmentId;
use mdm_core::time::Timestamp;
use renewal::Reason;
use store::Store;

use super::watch::Setup;

/// How many are looked up at once.
const BATCH: i64 = 200;

/// Asks for a new profile for every enrolled device that lacks a next anchor; gives how many were asked for. One for which that
/// is under way is left alone.
pub(crate) async fn renew_profiles(store: &Store, setup: &Setup, now: Timestamp) -> Result<u64, renewal::Error> {
    let next: Vec<_> = setup.next_anchors.iter().map(mdm_core::certificate::Certificate::fingerprint).collect();
    if next.is_empty() {
        return Ok(0);
    }
    let groups = store::anchors::groups(&mut store.read().await?).await?;
    let lacking = groups
        .into_iter()
        .filter(|group| !group.anchors.as_ref().is_some_and(|held| next.iter().all(|anchor| held.contains(anchor))));
    let mut asked = 0;
    let mut done: Vec<Option<Vec<_>>> = Vec::new();
    for group in lacking {
        // Two groups may differ in their server URL only.
        if done.contains(&group.anchors) {
            continue;
        }
        let mut after: Option<EnrollmentId> = None;
        loop {
            let ids = store::anchors::holders(&mut store.read().await?, group.anchors.as_deref(), after, BATCH).await?;
            for id in &ids {
                match store::retry(|| want(store, *id, now)).await {
                    Ok(fresh) => asked += u64::from(fresh),
                    Err(renewal::Error::NothingToRenew(_)) => {}
                    // One odd device must not stop the others (RG-19).
                    Err(e) => tracing::error!(
                        enrollment.id = %id, error = %e, "a device could not be asked to take the next anchor; tried again in an hour"
                    ),
                }
            }
            after = ids.last().copied();
            if after.is_none() {
                break;
            }
        }
        done.push(group.anchors);
    }
    Ok(asked)
}

async fn want(store: &Store, enrollment: EnrollmentId, now: Timestamp) -> Result<bool, renewal::Error> {
    let mut tx = store.begin().await?;
    let fresh = renewal::want(&mut tx, enrollment, Reason::Anchors, now).await?;
    tx.commit().await?;
    Ok(fresh)
}
