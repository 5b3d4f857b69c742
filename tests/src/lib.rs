//! What the tests stand on: databases.
//!
//! Every test that touches the store runs on SQLite and on PostgreSQL, on a database of its own. A database that cannot be
//! had is a failure, never a skip.
//!
//! ```no_run
//! # async fn example() {
//! mdm_tests::on_both(|store| async move {
//!     let tx = store.begin().await.expect("begins");
//!     // the story of this test …
//!     tx.commit().await.expect("commits");
//! })
//! .await;
//! # }
//! ```

pub mod db;

pub use db::{Backend, Database, both, on_both, on_both_databases};

/// What attestation needs: Apple's root alone.
pub fn attestation() -> attestation::Context {
    attestation::Context {
        random: mdm_core::random::Random::System,
        test_roots: std::sync::Arc::default(),
        retention: std::time::Duration::from_hours(30 * 24),
    }
}
