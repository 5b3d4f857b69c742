//! Unmodified a2 through the conformance suite. Only `../run` can run it: it needs Apple's host name and port 443.

#[path = "../../tests/push_suite/mod.rs"]
mod push_suite;

use push::Client;
use push_suite::pki::Pki;
use push_suite::{Bench, Subject};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use store::{Settings, Store};
use tokio::sync::{Mutex, MutexGuard};

const A2: Subject = Subject { listen: ([127, 0, 0, 1], 443), client: |_, _| Client::A2, keeps_retry_after: false };

/// There is one port 443, so one case at a time.
static PORT: Mutex<()> = Mutex::const_new(());

async fn ready() -> MutexGuard<'static, ()> {
    let resolved = tokio::net::lookup_host("api.push.apple.com:443").await.map(Iterator::collect::<Vec<_>>);
    assert!(
        resolved.as_ref().is_ok_and(|all| all.iter().all(|a| a.ip().is_loopback())),
        "start this by tests/apns-a2/run: here api.push.apple.com is {resolved:?}, and no push may reach Apple"
    );
    webpki_roots::trust(&CertificateDer::from_pem_slice(Pki::get().ca_pem.as_bytes()).unwrap());
    PORT.lock().await
}

macro_rules! cases {
    ($($name:ident),+ $(,)?) => {$(
        #[tokio::test]
        async fn $name() {
            let _port = ready().await;
            let folder = tempfile::tempdir().unwrap();
            let url = format!("sqlite:{}/assay.db", folder.path().display());
            let store = Store::open(&Settings::new(url)).await.unwrap();
            push_suite::$name(Bench::new(store, A2).await).await;
        }
    )+};
}

cases!(
    th_14_rg_18_a_push_is_what_apple_asks_for,
    rg_16_rg_17_no_push_is_lost_whatever_apns_answers,
    rg_17_a_bad_token_waits_for_a_token_update,
    rg_17_an_old_410_does_not_disable,
    rg_17_a_refused_certificate_stops_the_topic,
    rg_17_too_many_requests_hold_back_one_device,
    rg_16_an_outage_loses_nothing,
    rg_19_one_bad_device_in_500_stops_no_other,
    connections_that_end_under_load_lose_nothing,
    a_push_without_an_answer_times_out,
);
