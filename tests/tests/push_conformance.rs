//! The conformance suite of APNs clients against `direct`, on both databases. `tests/apns-a2` runs it against a2.

mod push_suite;

use mdm_tests::on_both;
use push::Client;
use push::direct::Endpoint;
use push_suite::{Bench, Subject};

const DIRECT: Subject = Subject {
    listen: ([127, 0, 0, 1], 0),
    client: |addr, ca| {
        let endpoint = Endpoint { host: "localhost".to_owned(), port: addr.port(), ca_pem: Some(ca.to_owned()) };
        Client::Direct(endpoint)
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
