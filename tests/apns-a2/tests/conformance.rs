//! Unmodified a2 through the conformance suite. Only `../run` can run it: it needs Apple's host name and port 443.

#[path = "../../tests/push_suite/mod.rs"]
mod push_suite;

use push::Client;
use push_suite::{Pki, Subject};
use store::{Settings, Store};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_conforms() {
    let resolved = tokio::net::lookup_host("api.push.apple.com:443").await.map(Iterator::collect::<Vec<_>>);
    assert!(
        resolved.as_ref().is_ok_and(|all| all.iter().all(|a| a.ip().is_loopback())),
        "start this by tests/apns-a2/run: here api.push.apple.com is {resolved:?}, and no push may reach Apple"
    );
    webpki_roots::trust(&Pki::get().ca_der);
    let subject = Subject { listen: ([127, 0, 0, 1], 443), client: |_, _| Client::A2, keeps_retry_after: false };
    let folder = tempfile::tempdir().unwrap();
    let made = std::cell::Cell::new(0);
    push_suite::all(subject, || {
        made.set(made.get() + 1);
        let settings = Settings::new(format!("sqlite:{}/{}.db", folder.path().display(), made.get()));
        async move { Store::open(&settings).await.unwrap() }
    })
    .await;
}
