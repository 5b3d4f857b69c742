//! Opening a database and handing out connections.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::Notify;

use crate::durable::Durable;
use crate::migrate;
use crate::tx::{Backend, Link};
use crate::{Dialect, Error, Result, Tx, Wake};

/// How the database is reached.
#[derive(Clone)]
pub struct Settings {
    /// `sqlite:/path/to/assay.db` or `postgres://…`. May hold a password: `Debug` does not print it.
    pub url: String,
    /// Largest number of connections (PostgreSQL), or of reading connections (SQLite, which has one writer besides).
    pub max_connections: u32,
    /// How long to wait for a free connection.
    pub acquire_timeout: Duration,
}

impl Settings {
    /// Settings with the defaults for this URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), max_connections: 12, acquire_timeout: Duration::from_secs(10) }
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("max_connections", &self.max_connections).finish_non_exhaustive()
    }
}

#[derive(Clone, Default)]
pub(crate) struct Wakers {
    pub(crate) push: Arc<Notify>,
    pub(crate) reconcile: Arc<Notify>,
    pub(crate) renewal: Arc<Notify>,
}

#[derive(Clone)]
enum Pools {
    Sqlite {
        read: SqlitePool,
        write: SqlitePool,
        durable: Option<Durable>,
        // Held as long as the store lives: a second server on the same file is refused (RG-29).
        _lock: Arc<File>,
    },
    Postgres(PgPool),
}

/// The database. Cloning is cheap and shares the connections.
#[derive(Clone)]
pub struct Store {
    pools: Pools,
    wakers: Wakers,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dialect", &self.dialect()).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database and brings its schema up to date.
    ///
    /// What was acknowledged survives a power loss (RG-01). SQLite: a write-ahead log that is on the disk before a commit is
    /// acknowledged; the file is created when missing. PostgreSQL: refused when `synchronous_commit` is off.
    pub async fn open(settings: &Settings) -> Result<Self> {
        let mut store = Self::connect(settings).await?;
        match &mut store.pools {
            Pools::Sqlite { write, durable, .. } => {
                migrate::sqlite(write).await?;
                // SQLite makes the log with the first statement of a connection that finds none.
                sqlx::raw_sql("PRAGMA user_version = 1").execute(&*write).await?;
                *durable = Some(Durable::start(write.connect_options().get_filename())?);
            }
            Pools::Postgres(pool) => migrate::postgres(pool).await?,
        }
        Ok(store)
    }

    /// Opens a database for a look, changing nothing: `None` where SQLite has no file yet.
    ///
    /// # Errors
    /// [`Error::Migrate`] where the schema is another program version's.
    pub async fn open_existing(settings: &Settings) -> Result<Option<Self>> {
        if let Some(path) = settings.url.strip_prefix("sqlite:")
            && !Path::new(path.split('?').next().unwrap_or(path)).exists()
        {
            return Ok(None);
        }
        let store = Self::connect(settings).await?;
        match &store.pools {
            Pools::Sqlite { write, .. } => migrate::is_current_sqlite(write).await?,
            Pools::Postgres(pool) => migrate::is_current_postgres(pool).await?,
        }
        Ok(Some(store))
    }

    async fn connect(settings: &Settings) -> Result<Self> {
        let url = settings.url.as_str();
        if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            Ok(Self { pools: Pools::Postgres(postgres(settings).await?), wakers: Wakers::default() })
        } else if url.starts_with("sqlite:") {
            Ok(Self { pools: sqlite(settings).await?, wakers: Wakers::default() })
        } else {
            Err(Error::Refused("store.url must begin with 'sqlite:' or 'postgres:'".to_owned()))
        }
    }

    /// Which database this is.
    pub fn dialect(&self) -> Dialect {
        match self.pools {
            Pools::Sqlite { .. } => Dialect::Sqlite,
            Pools::Postgres(_) => Dialect::Postgres,
        }
    }

    /// A connection for reading, without a transaction: each statement sees the newest committed rows.
    pub async fn read(&self) -> Result<Tx> {
        let backend = match &self.pools {
            Pools::Sqlite { read, .. } => Backend::Sqlite(Link::Read(read.acquire().await?)),
            Pools::Postgres(pool) => Backend::Postgres(Link::Read(pool.acquire().await?)),
        };
        Ok(Tx::new(backend, None, self.wakers.clone()))
    }

    /// A transaction for writing. On SQLite it holds the one write lock from the start, so that it cannot fail midway.
    pub async fn begin(&self) -> Result<Tx> {
        let (backend, durable) = match &self.pools {
            Pools::Sqlite { write, durable, .. } => {
                (Backend::Sqlite(Link::Write(write.begin_with("BEGIN IMMEDIATE").await?)), durable.clone())
            }
            Pools::Postgres(pool) => (Backend::Postgres(Link::Write(pool.begin().await?)), None),
        };
        Ok(Tx::new(backend, durable, self.wakers.clone()))
    }

    /// Resolves when a committed transaction asked for this loop.
    pub async fn woken(&self, wake: Wake) {
        match wake {
            Wake::Push => self.wakers.push.notified().await,
            Wake::Reconcile => self.wakers.reconcile.notified().await,
            Wake::Renewal => self.wakers.renewal.notified().await,
        }
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        let mut tx = self.read().await?;
        run!(tx, c => sqlx::query("SELECT 1").execute(c).await.map(|_| ()))?;
        Ok(())
    }

    /// Closes all connections, after the work on them is done.
    pub async fn close(&self) {
        match &self.pools {
            Pools::Sqlite { read, write, .. } => {
                read.close().await;
                write.close().await;
            }
            Pools::Postgres(pool) => pool.close().await,
        }
    }
}

async fn postgres(settings: &Settings) -> Result<PgPool> {
    let options = PgConnectOptions::from_str(&settings.url)
        .map_err(|_| Error::Refused("store.url is not a PostgreSQL URL".to_owned()))?
        .application_name("assay")
        .statement_cache_capacity(256)
        .options([("statement_timeout", "30s"), ("lock_timeout", "10s")]);
    let pool = PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .min_connections(1)
        .acquire_timeout(settings.acquire_timeout)
        .test_before_acquire(false)
        .idle_timeout(Duration::from_secs(600))
        .max_lifetime(Duration::from_secs(3600))
        .connect_with(options)
        .await?;
    let durable: String = sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&pool).await?;
    if durable == "off" {
        return Err(Error::Refused(
            "PostgreSQL's synchronous_commit is off: acknowledged commands could be lost; switch it on".to_owned(),
        ));
    }
    Ok(pool)
}

async fn sqlite(settings: &Settings) -> Result<Pools> {
    let options = SqliteConnectOptions::from_str(&settings.url)
        .map_err(|_| {
            Error::Refused("store.url is not an SQLite URL such as sqlite:/var/lib/assay/assay.db".to_owned())
        })?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        .statement_cache_capacity(256)
        .pragma("cache_size", "-16384")
        // In pages of 4 KiB: pages that change often are copied into the database once for many commits.
        .pragma("wal_autocheckpoint", "8000")
        .busy_timeout(Duration::from_secs(10));
    let lock = only_server_of(options.get_filename())?;
    let write = SqlitePoolOptions::new()
        .max_connections(1)
        .min_connections(1)
        .acquire_timeout(settings.acquire_timeout)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options.clone())
        .await?;
    let read = SqlitePoolOptions::new()
        .max_connections(settings.max_connections.clamp(1, 4))
        .min_connections(1)
        .acquire_timeout(settings.acquire_timeout)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options.pragma("query_only", "ON"))
        .await?;
    Ok(Pools::Sqlite { read, write, durable: None, _lock: Arc::new(lock) })
}

/// Takes the lock file beside the database; refuses a second server and network file systems (RG-29).
fn only_server_of(database: &Path) -> Result<File> {
    let refused = |why: String| Error::Refused(format!("{}: {why}", database.display()));
    if let Some(kind) = network_file_system(database) {
        return Err(refused(format!(
            "lies on a network file system ({kind}), where SQLite can lose data; use a local disk or PostgreSQL"
        )));
    }
    let mut lock_path = database.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(PathBuf::from(lock_path))
        .map_err(|e| refused(format!("its folder cannot be written: {e}")))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(refused("another server is running on this database".to_owned())),
        Err(TryLockError::Error(e)) => Err(refused(format!("cannot be locked: {e}"))),
    }
}

fn network_file_system(database: &Path) -> Option<String> {
    let folder = database.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let (_, kind) = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(point, _)| folder.starts_with(point))
        .max_by_key(|(point, _)| point.len())?;
    let network = ["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs"];
    network.contains(&kind).then(|| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rg_29_a_second_server_on_the_same_file_is_refused() {
        let folder = std::env::temp_dir().join(format!("assay-open-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let settings = Settings::new(format!("sqlite:{}/a.db", folder.display()));
        let first = Store::open(&settings).await.unwrap();
        first.ping().await.unwrap();
        let second = Store::open(&settings).await.unwrap_err();
        assert!(second.to_string().contains("another server"), "{second}");
        first.close().await;
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn settings_do_not_print_the_password() {
        let shown = format!("{:?}", Settings::new("postgres://u:hunter2@h/db"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
