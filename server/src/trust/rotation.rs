//! A next anchor reaches enrolled devices: their profiles are installed anew.

use mdm_core::ids::EnrollmentId;
use mdm_core::time::Timestamp;
use renewal::Reason;
use store::Store;

use super::watch::Setup;

/// How many in one transaction.
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
            let mut tx = store.begin().await?;
            let ids = store::anchors::holders(&mut tx, group.anchors.as_deref(), after, BATCH).await?;
            for id in &ids {
                match renewal::want(&mut tx, *id, Reason::Anchors, now).await {
                    Ok(fresh) => asked += u64::from(fresh),
                    // One odd device must not stop the others (RG-19).
                    Err(renewal::Error::NothingToRenew(_)) => {}
                    Err(e) => return Err(e),
                }
            }
            tx.commit().await?;
            after = ids.last().copied();
            if after.is_none() {
                break;
            }
        }
        done.push(group.anchors);
    }
    Ok(asked)
}
