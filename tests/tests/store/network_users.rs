use mdm_core::ids::UserId;
use store::network_users::{self, Row};

use super::{at, authenticated, twice, word};

#[tokio::test]
async fn people_are_put_listed_and_taken_off() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let name = word("user");
        let row = |digest: &[u8]| Row {
            short_name: name.clone(),
            digest_sealed: digest.to_vec(),
            created_by: "token:a".into(),
            created_at: at(0).0,
        };
        assert!(network_users::get(&mut tx, &name).await.unwrap().is_none());
        network_users::put(&mut tx, &row(b"one")).await.unwrap();
        network_users::put(&mut tx, &row(b"two")).await.unwrap();
        assert_eq!(network_users::get(&mut tx, &name).await.unwrap(), Some(row(b"two")));
        let listed = network_users::list(&mut tx, None, 1000).await.unwrap();
        assert!(listed.contains(&row(b"two")));
        assert!(!network_users::list(&mut tx, Some(&name), 1000).await.unwrap().contains(&row(b"two")));
        assert!(network_users::delete(&mut tx, &name).await.unwrap());
        assert!(!network_users::delete(&mut tx, &name).await.unwrap());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_nonce_is_good_once_and_the_token_stays_until_the_next_login() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let device = authenticated(&mut tx).await;
        let user: UserId = "11111111-2222-3333-4444-555555555555".parse().unwrap();
        let consume = async |tx: &mut store::Tx, nonce: u8, now| {
            network_users::consume(tx, device, &user, &[nonce; 32], at(now)).await.unwrap()
        };
        assert!(!consume(&mut tx, 1, 0).await);
        network_users::challenge(&mut tx, device, &user, &[1; 32], at(300), at(0)).await.unwrap();
        assert!(!consume(&mut tx, 2, 1).await);
        assert!(!consume(&mut tx, 1, 300).await, "its time is over");
        assert!(consume(&mut tx, 1, 299).await);
        assert!(!consume(&mut tx, 1, 299).await);
        assert_eq!(network_users::token(&mut tx, device, &user).await.unwrap(), None);
        network_users::set_token(&mut tx, device, &user, &[9; 32]).await.unwrap();
        network_users::challenge(&mut tx, device, &user, &[3; 32], at(600), at(301)).await.unwrap();
        assert_eq!(network_users::token(&mut tx, device, &user).await.unwrap(), Some(vec![9; 32]));
        assert!(consume(&mut tx, 3, 302).await);
        network_users::forget(&mut tx, device).await.unwrap();
        assert_eq!(network_users::token(&mut tx, device, &user).await.unwrap(), None);
        tx.commit().await.unwrap();
    })
    .await;
}
