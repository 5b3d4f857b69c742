//! Pushes a second through `direct` to the stand-in for APNs on one connection, both on this machine:
//! `cargo bench -p mdm-tests --bench push`. Prints; asserts only that every push was accepted.

#[path = "../tests/push_suite/pki.rs"]
mod pki;

use std::sync::Arc;
use std::time::Instant;

use mdm_core::secret::Secret;
use mdm_core::time::Timestamp;
use pki::Pki;
use push::direct::{Direct, Endpoint};
use push::{Apns, Outcome, Target};
use simulator::apns::{ApnsStandIn, Settings};
use tokio::task::JoinSet;

const TOPIC: &str = "com.apple.mgmt.External.5f0c2c4e-9d3b-4b7e-9f0a-1c2d3e4f5a6b";
const PUSHES: u64 = 60_000;

#[tokio::main]
async fn main() {
    let pki = Pki::get();
    let settings = Settings::new(pki.server_pem.clone(), pki.server_key_pem.clone(), pki.ca_pem.clone());
    let apns = ApnsStandIn::start(Settings { keep: false, ..settings }).await.unwrap();
    let pem = pki.push_pem(TOPIC);
    println!("in flight   pushes/s   connections");
    for in_flight in [1, 10, 100, 1000] {
        let (host, port) = ("localhost".to_owned(), apns.addr().port());
        let endpoint = Endpoint { host, port, ca_pem: Some(pki.ca_pem.clone()), proxy: None };
        let client = Arc::new(Direct::new(&endpoint, &pem, &pem).unwrap());
        let (before, started) = (apns.connections(), Instant::now());
        let mut tasks = JoinSet::new();
        for task in 0..in_flight {
            let client = Arc::clone(&client);
            tasks.spawn(async move {
                for n in 0..PUSHES / in_flight {
                    let outcome = client.send(&target(task, n)).await;
                    assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap();
        let rate = PUSHES * 1_000_000_000 / nanos;
        println!("{in_flight:>9}   {rate:>8}   {:>11}", apns.connections() - before);
    }
}

fn target(task: u64, n: u64) -> Target {
    Target {
        token: [task.to_be_bytes(), n.to_be_bytes(), [7; 8], [9; 8]].concat(),
        push_magic: Secret::new("5F0C2C4E-9D3B-4B7E-9F0A-1C2D3E4F5A6B".to_owned()),
        topic: TOPIC.to_owned(),
        expiration: Timestamp(1_800_000_000_000),
    }
}
