//! Who was heard of when: gathered in memory, written in batches, so that an Idle with an empty queue costs no write.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use mdm_core::ids::EnrollmentId;
use mdm_core::time::Timestamp;
use store::Store;

/// Rows in one transaction: short enough that it holds nobody up.
const BATCH: usize = 500;

/// When each enrollment was last heard of, as far as it is not written yet. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct LastSeen(Arc<Mutex<HashMap<EnrollmentId, Timestamp>>>);

impl LastSeen {
    /// Notes that an enrollment was heard of.
    pub(crate) fn note(&self, enrollment: EnrollmentId, at: Timestamp) {
        let mut seen = self.0.lock().expect("no holder of this lock panics");
        let newest = seen.entry(enrollment).or_insert(at);
        *newest = at.max(*newest);
    }

    /// Writes what was gathered. What could not be written is kept for the next time.
    ///
    /// # Panics
    /// Never: nothing panics while it holds the lock.
    pub async fn flush(&self, store: &Store) -> Result<usize, store::Error> {
        let seen = std::mem::take(&mut *self.0.lock().expect("no holder of this lock panics"));
        let seen: Vec<_> = seen.into_iter().collect();
        for (done, batch) in seen.chunks(BATCH).enumerate() {
            if let Err(error) = write(store, batch).await {
                for (enrollment, at) in seen.get(done * BATCH..).unwrap_or_default() {
                    self.note(*enrollment, *at);
                }
                return Err(error);
            }
        }
        Ok(seen.len())
    }
}

async fn write(store: &Store, batch: &[(EnrollmentId, Timestamp)]) -> Result<(), store::Error> {
    let mut tx = store.begin().await?;
    store::enrollments::touch(&mut tx, batch).await?;
    tx.commit().await
}
