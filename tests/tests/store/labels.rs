use mdm_core::enrollment::{EnrollmentState, UnenrolledWhy};
use mdm_core::ids::Label;
use store::labels;

use super::{at, enrolled, twice, word};

#[tokio::test]
async fn a_label_holds_live_enrollments_once() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let label: Label = word("lab").parse().unwrap();
        let extra: Label = word("extra").parse().unwrap();
        let (one, two) = (enrolled(&mut tx).await, enrolled(&mut tx).await);
        assert!(labels::put(&mut tx, one, &label).await.unwrap());
        assert!(!labels::put(&mut tx, one, &label).await.unwrap());
        assert!(labels::put(&mut tx, one, &extra).await.unwrap());
        assert!(labels::put(&mut tx, two, &label).await.unwrap());
        let mut both = vec![one, two];
        both.sort();
        assert_eq!(labels::enrollments(&mut tx, &label).await.unwrap(), both);
        assert_eq!(labels::of(&mut tx, one).await.unwrap(), [extra.as_str(), label.as_str()]);

        let over = EnrollmentState::Unenrolled { at: at(1), why: UnenrolledWhy::Removed };
        store::enrollments::set_state(&mut tx, two, over).await.unwrap();
        assert_eq!(labels::enrollments(&mut tx, &label).await.unwrap(), [one]);
        assert!(labels::remove(&mut tx, one, &label).await.unwrap());
        assert!(!labels::remove(&mut tx, one, &label).await.unwrap());
        assert!(labels::enrollments(&mut tx, &label).await.unwrap().is_empty());
        tx.commit().await.unwrap();
    })
    .await;
}
