//! The conformance suite of APNs clients against `direct`, on both databases. `tests/apns-a2` runs it against a2.

mod push_suite;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mdm_tests::on_both;
use push::Client;
use push::direct::Endpoint;
use push::tunnel::Proxy;
use push_suite::{Bench, Subject};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const DIRECT: Subject = Subject {
    listen: ([127, 0, 0, 1], 0),
    client: |addr, ca| {
        let (host, ca_pem) = ("localhost".to_owned(), Some(ca.to_owned()));
        Client::Direct(Endpoint { host, port: addr.port(), ca_pem, proxy: None })
    },
    keeps_retry_after: true,
};

macro_rules! cases {
    ($($name:ident),+ $(,)?) => {$(
        #[tokio::test]
        async fn $name() {
            on_both(|store| async move { push_suite::$name(Bench::new(store, DIRECT).await).await }).await;
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

/// An HTTP proxy that opens one tunnel after another for who knows the password; says how many.
async fn proxy() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, opened) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&opened);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(client.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            if !request.contains("Proxy-Authorization: Basic YW5uOmh1bnRlcjI=\r\n") {
                client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await.unwrap();
                continue;
            }
            let to = request.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap();
            let mut server = TcpStream::connect(to).await.unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move { drop(tokio::io::copy_bidirectional(&mut client, &mut server).await) });
        }
    });
    (addr, opened)
}

#[tokio::test]
async fn direct_goes_through_a_proxy() {
    on_both(|store| async move {
        let mut bench = Bench::new(store, DIRECT).await;
        let (at, opened) = proxy().await;
        for (login, expected) in [("ann:wrong", 0), ("ann:hunter2", 1)] {
            let endpoint = Endpoint {
                host: "localhost".to_owned(),
                port: bench.apns.addr().port(),
                ca_pem: Some(push_suite::pki::Pki::get().ca_pem.clone()),
                proxy: Some(Proxy::new(&format!("http://{at}"), Some(login)).unwrap()),
            };
            let settings = push::Settings::new(Client::Direct(endpoint));
            let parts = (bench.store.clone(), bench.sealer.clone(), bench.clock.clone(), bench.random.clone());
            bench.pusher = push::Pusher::new(parts.0, parts.1, parts.2, parts.3, settings);
            let devices = bench.devices(3).await;
            bench.pusher.round().await.unwrap();
            assert_eq!(devices.iter().map(|d| bench.accepted(d)).sum::<usize>(), 3 * expected);
            assert_eq!(opened.load(Ordering::SeqCst), expected);
        }
    })
    .await;
}
