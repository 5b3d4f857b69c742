//! Databases for tests: a temporary file of SQLite, or a fresh database in a throw-away PostgreSQL cluster.
//!
//! `tests/run` starts one cluster and names it in the environment variable `ASSAY_TEST_POSTGRES` (a URL). Where that is not
//! set, the first test that needs PostgreSQL starts a cluster for the whole `cargo test`, by the same script; it stops when
//! cargo does.

use std::fmt;
use std::fs::{self, File};
use std::future::Future;
use std::hash::{DefaultHasher, Hasher};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::Path;
use std::process::Command;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use store::{Settings, Store};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// One of the two databases that the store knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A file in a temporary folder.
    Sqlite,
    /// A database in the throw-away cluster.
    Postgres,
}

/// Both, in the order in which they are tested.
pub const fn both() -> [Backend; 2] {
    [Backend::Sqlite, Backend::Postgres]
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        })
    }
}

/// Where a database lives that no store has opened yet; keep it for as long as the database is needed.
#[derive(Debug)]
pub struct Place {
    /// What `store.url` would be in a server's configuration.
    pub url: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The folder is removed when this is dropped.
    Folder(TempDir),
    /// The name of a database in the cluster.
    Named(String),
}

impl Place {
    /// A database without any table, for tests of the migrations and of the server as a process.
    ///
    /// # Panics
    /// Where it cannot be had: the test fails.
    pub async fn empty(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => Self::file(),
            Backend::Postgres => Self::named(None).await,
        }
    }

    /// A database with the whole schema.
    async fn migrated(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => Self::file(),
            Backend::Postgres => Self::named(Some(template().await)).await,
        }
    }

    fn file() -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        Self { url: format!("sqlite://{}", folder.path().join("assay.db").display()), kind: Kind::Folder(folder) }
    }

    async fn named(template: Option<&str>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("assay_test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut cluster = connect().await;
        run(&mut cluster, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        run(&mut cluster, format!("CREATE DATABASE {name} TEMPLATE {}", template.unwrap_or("template1"))).await;
        Self { url: url_of(&name), kind: Kind::Named(name) }
    }

    /// Throws the database away.
    ///
    /// # Panics
    /// Where the cluster does not answer.
    pub async fn remove(self) {
        match self.kind {
            Kind::Folder(folder) => drop(folder),
            Kind::Named(name) => {
                let mut cluster = connect().await;
                run(&mut cluster, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
            }
        }
    }
}

/// A fresh database with the whole schema, for one test.
pub struct Database {
    /// Which of the two it is.
    pub backend: Backend,
    /// The open store.
    pub store: Store,
    /// Where it is. On PostgreSQL a second `Store::open` on `place.url` sees the same rows; SQLite refuses a second
    /// server, so close this one first there.
    pub place: Place,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("backend", &self.backend).field("place", &self.place).finish_non_exhaustive()
    }
}

impl Database {
    /// A fresh database.
    ///
    /// # Panics
    /// Where it cannot be had: the test fails.
    pub async fn new(backend: Backend) -> Self {
        let place = Place::migrated(backend).await;
        let store = Store::open(&Settings::new(place.url.as_str())).await.expect("the store opens and migrates");
        Self { backend, store, place }
    }

    /// Closes the store and throws the database away.
    ///
    /// # Panics
    /// Where the cluster does not answer.
    pub async fn remove(self) {
        self.store.close().await;
        self.place.remove().await;
    }
}

/// Runs one test on a fresh database of each kind and says on which it failed.
///
/// # Panics
/// When the test fails on either of them.
pub async fn on_both<T: Future<Output = ()>>(test: impl Fn(Store) -> T) {
    on_both_databases(async |database| test(database.store.clone()).await).await;
}

/// As [`on_both`], for tests that also need to know the kind of database or its URL.
///
/// # Panics
/// When the test fails on either of them.
pub async fn on_both_databases(test: impl AsyncFn(&Database)) {
    let mut failure = None;
    for backend in both() {
        let database = Database::new(backend).await;
        if let Err(panic) = AssertUnwindSafe(test(&database)).catch_unwind().await {
            eprintln!("^^^ this failed on {backend}");
            failure = Some(panic);
        }
        database.remove().await;
    }
    if let Some(panic) = failure {
        resume_unwind(panic);
    }
}

/// The URL of the cluster's database `postgres`.
fn cluster() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| {
        std::env::var("ASSAY_TEST_POSTGRES").ok().filter(|url| !url.is_empty()).unwrap_or_else(start_cluster)
    })
}

/// Starts a cluster for this `cargo test`, or finds the one that an earlier test of it has started.
fn start_cluster() -> String {
    let cargo = std::os::unix::process::parent_id();
    let folder = std::env::temp_dir().join(format!("assay-postgres-{cargo}"));
    let lock = File::create(folder.with_extension("lock")).expect("a lock file can be made");
    lock.lock().expect("the lock file can be locked");
    let url = folder.join("url");
    if !url.exists() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("postgres");
        let started =
            Command::new(script).arg(&folder).arg(cargo.to_string()).output().expect("tests/postgres can be run");
        assert!(started.status.success(), "these tests need PostgreSQL: {}", String::from_utf8_lossy(&started.stderr));
    }
    fs::read_to_string(url).expect("tests/postgres leaves the URL behind").trim().to_owned()
}

/// The URL of another database in the cluster.
fn url_of(name: &str) -> String {
    cluster().replacen("/postgres?", &format!("/{name}?"), 1)
}

async fn connect() -> PgConnection {
    PgConnectOptions::from_str(cluster())
        .expect("ASSAY_TEST_POSTGRES is a PostgreSQL URL")
        .connect()
        .await
        .expect("the throw-away PostgreSQL answers")
}

async fn run(connection: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql.clone()))
        .execute(connection)
        .await
        .map_err(|error| format!("{sql}: {error}"))
        .expect("the throw-away PostgreSQL does as it is told");
}

/// The name of a database with the whole schema. It is made once per cluster and state of the migrations, then copied.
async fn template() -> &'static str {
    static NAME: OnceCell<String> = OnceCell::const_new();
    NAME.get_or_init(|| async {
        let name = format!("assay_template_{:x}", fingerprint_of_migrations());
        let mut cluster = connect().await;
        // Held until the connection closes; other processes wait here for the template to be whole.
        run(&mut cluster, "SELECT pg_advisory_lock(1)".to_owned()).await;
        let there: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
            .bind(&name)
            .fetch_optional(&mut cluster)
            .await
            .expect("pg_database can be read");
        if there.is_none() {
            run(&mut cluster, "DROP DATABASE IF EXISTS assay_unfinished WITH (FORCE)".to_owned()).await;
            run(&mut cluster, "CREATE DATABASE assay_unfinished".to_owned()).await;
            let store =
                Store::open(&Settings::new(url_of("assay_unfinished"))).await.expect("the store opens and migrates");
            store.close().await;
            run(&mut cluster, format!("ALTER DATABASE assay_unfinished RENAME TO {name}")).await;
        }
        cluster.close().await.expect("the connection closes");
        name
    })
    .await
}

fn fingerprint_of_migrations() -> u64 {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations/postgres");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("the migrations are there")
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        hasher.write(&fs::read(file).expect("a migration can be read"));
    }
    hasher.finish()
}
