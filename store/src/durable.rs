//! Group commit for SQLite: many commits, one wait for the disk.
//!
//! SQLite runs with `synchronous=NORMAL`: a commit is written to the write-ahead log, but not forced to the disk. Here
//! that log is forced to the disk (`fdatasync`) once for all commits that are waiting, and a commit is acknowledged only
//! after that, so it is as durable as with `synchronous=FULL` (RG-01), while the next writer need not wait for the disk.

use std::fs::File;
use std::path::Path;
use std::thread;

use tokio::sync::{mpsc, oneshot};

use crate::{Error, Result};

/// Waits for the disk on behalf of commits.
#[derive(Clone, Debug)]
pub(crate) struct Durable {
    waiting: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

impl Durable {
    /// Starts the thread that forces the log of `database` to the disk. The log must exist: something was written before.
    pub(crate) fn start(database: &Path) -> Result<Self> {
        let mut path = database.as_os_str().to_owned();
        path.push("-wal");
        let refused = |e: std::io::Error| Error::Refused(format!("{}: {e}", Path::new(&path).display()));
        let log = File::options().read(true).write(true).open(&path).map_err(refused)?;
        let (waiting, mut commits) = mpsc::unbounded_channel::<oneshot::Sender<()>>();
        let force = move || {
            let mut batch = Vec::new();
            while let Some(first) = commits.blocking_recv() {
                batch.push(first);
                while let Ok(next) = commits.try_recv() {
                    batch.push(next);
                }
                // After a failed sync nothing is known of what reached the disk: acknowledge nothing any more.
                if let Err(e) = log.sync_data() {
                    tracing::error!(error = %e, "the disk refused to store the write-ahead log: nothing is acknowledged until a restart");
                    return;
                }
                for commit in batch.drain(..) {
                    // The one who waited may be gone, with its connection; its commit is stored all the same.
                    let _ = commit.send(());
                }
            }
        };
        thread::Builder::new().name("assay-durable".to_owned()).spawn(force).map_err(refused)?;
        Ok(Self { waiting })
    }

    /// Returns when everything that is written by now is on the disk.
    pub(crate) async fn wait(&self) -> Result<()> {
        const FAILED: Error = Error::Database(sqlx::Error::WorkerCrashed);
        let (done, stored) = oneshot::channel();
        self.waiting.send(done).map_err(|_| FAILED)?;
        stored.await.map_err(|_| FAILED)
    }
}
