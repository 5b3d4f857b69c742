//! The store: one story per table, told twice in a row on one database, on SQLite and on PostgreSQL.
//!
//! A test in `house.rs` sees to it that every function of the store appears in these tests.

mod account_tokens;
mod ade;
mod anchors;
mod assignments;
mod attempts;
mod attestations;
mod authorities;
mod certificates;
mod commands;
mod doors;
mod enrollments;
mod events;
mod facts;
mod identities;
mod invitations;
mod issuance;
mod keys;
mod label_rules;
mod labels;
mod links;
mod listing;
mod locks;
mod network_users;
mod policies;
mod push;
mod quarantine;
mod renewals;
mod reports;
mod rollouts;
mod scopes;
mod sealed;
mod set_up;
mod sign_ins;
mod tokens;
mod transactions;

use std::future::Future;

use mdm_core::certificate::Certificate;
use mdm_core::enrollment::{DeviceKey, EnrollmentKind, EnrollmentState};
use mdm_core::ids::{CommandUuid, EnrollmentId};
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use rcgen::{CertificateParams, DnType, KeyPair};
use store::enrollments::{NewDevice, Tokens};
use store::{Store, Tx};
use uuid::Uuid;

/// Runs a story twice on a fresh database of each kind: what holds on an empty database must hold on a used one.
async fn twice<T: Future<Output = ()>>(story: impl Fn(Store) -> T) {
    mdm_tests::on_both(|store| {
        let (first, second) = (story(store.clone()), story(store));
        async {
            first.await;
            second.await;
        }
    })
    .await;
}

/// So many seconds into the story.
fn at(seconds: i64) -> Timestamp {
    Timestamp(1_800_000_000_000 + seconds * 1000)
}

/// A new key that sorts by that time.
fn key(time: Timestamp) -> Uuid {
    Random::System.uuid_v7(time)
}

/// A word that no other story uses.
fn word(prefix: &str) -> String {
    format!("{prefix}-{}", Random::System.uuid_v4().simple())
}

fn udid() -> DeviceKey {
    DeviceKey::Udid(Random::System.uuid_v4().to_string().parse().unwrap())
}

fn command_uuid() -> CommandUuid {
    Random::System.uuid_v4().to_string().parse().unwrap()
}

/// The row of a device that has sent `Authenticate`.
async fn authenticated(tx: &mut Tx) -> EnrollmentId {
    let id = EnrollmentId(key(at(0)));
    let new = NewDevice { id, kind: EnrollmentKind::Device, key: &udid() };
    store::enrollments::insert_device(tx, &new, at(0)).await.unwrap();
    id
}

fn tokens<'a>() -> Tokens<'a> {
    Tokens {
        topic: "com.apple.mgmt.External.test",
        push_token: b"fakeToken",
        push_magic: "magic",
        signed_at: None,
        awaiting_configuration: false,
        unlock_token_sealed: None,
        raw_sealed: b"raw",
        user_short_name: None,
        user_long_name: None,
    }
}

/// The row of a device that has sent `TokenUpdate` too.
async fn enrolled(tx: &mut Tx) -> EnrollmentId {
    let id = authenticated(tx).await;
    let state = EnrollmentState::Enrolled { since: at(1) };
    store::enrollments::token_update(tx, id, state, &tokens(), at(1)).await.unwrap();
    id
}

/// A certificate that no other story uses.
fn certificate() -> Certificate {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, word("device"));
    let pair = KeyPair::generate().unwrap();
    Certificate::from_der(params.self_signed(&pair).unwrap().der()).unwrap()
}
