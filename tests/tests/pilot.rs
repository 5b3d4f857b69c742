//! The main job, end to end: the whole pilot on both databases.

use std::process::ExitCode;

use assay::pilot::{self, Args};
use mdm_tests::db::Place;
use mdm_tests::{Backend, both};

/// Every device of the fleet ends as Apple's table demands, and the REST API says what the devices saw.
#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_gets_what_apples_table_demands() {
    assay::install_crypto();
    for backend in both() {
        let place = Place::empty(backend).await;
        let database = (backend == Backend::Postgres).then(|| place.url.clone());
        let code = pilot::run(Args { database, ..Args::default() }).await.unwrap();
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS), "{backend}: see WRONG above");
        place.remove().await;
    }
}
