use mdm_core::enrollment::{Door, EnrollmentState, UnenrolledWhy};
use mdm_core::random::Random;
use store::Tx;
use store::account_tokens::{self, Filter, Given, Row};
use store::sign_ins;
use uuid::Uuid;

use super::{at, authenticated, key, twice, word};

async fn sign_in(tx: &mut Tx) -> Uuid {
    super::sign_ins::sign_in(tx).await.id
}

fn row(sign_in: Uuid, seconds: i64) -> Row {
    Row {
        id: key(at(seconds)),
        sha256: Random::System.bytes::<32>().to_vec(),
        refresh_sha256: None,
        code_sha256: None,
        code_expires_at: None,
        code_challenge: None,
        redirect_uri: None,
        method: "apple-as-web".to_owned(),
        mode: "byod".to_owned(),
        managed_apple_account: format!("{}@example.org", word("Ada")),
        label: Some("staff".to_owned()),
        sign_in_id: Some(sign_in),
        enrollment_id: None,
        state: "live".to_owned(),
        expires_at: Some(at(3600).0),
        revoked_at: None,
        last_used_at: None,
        created_at: at(seconds).0,
    }
}

fn given() -> Given {
    Given { sha256: Random::System.bytes(), refresh_sha256: Random::System.bytes(), expires_at: at(600) }
}

fn hash(row: &Row) -> [u8; 32] {
    row.sha256.clone().try_into().unwrap()
}

#[tokio::test]
async fn a_token_is_bound_to_one_enrollment_for_its_life() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (ours, other) = (authenticated(&mut tx).await, authenticated(&mut tx).await);
        let token = row(sign_in(&mut tx).await, 0);
        account_tokens::insert(&mut tx, &token).await.unwrap();
        assert_eq!(account_tokens::find(&mut tx, hash(&token)).await.unwrap().as_ref(), Some(&token));
        assert!(account_tokens::find(&mut tx, Random::System.bytes()).await.unwrap().is_none());
        assert!(!account_tokens::was_bound(&mut tx, ours).await.unwrap());

        account_tokens::lock(&mut tx, token.id).await.unwrap();
        assert!(account_tokens::bind(&mut tx, token.id, ours, at(1)).await.unwrap());
        assert!(account_tokens::bind(&mut tx, token.id, ours, at(2)).await.unwrap(), "a repeated Authenticate");
        assert!(!account_tokens::bind(&mut tx, token.id, other, at(3)).await.unwrap(), "never another enrollment's");
        assert!(!account_tokens::bind(&mut tx, key(at(0)), ours, at(3)).await.unwrap(), "unknown");
        assert!(account_tokens::was_bound(&mut tx, ours).await.unwrap());
        let bound = account_tokens::get(&mut tx, token.id).await.unwrap().unwrap();
        assert_eq!((bound.enrollment_id, bound.expires_at, bound.state.as_str()), (Some(ours.0), None, "live"));

        // The person signed in again: the newer token takes the place of the older one.
        let again = row(sign_in(&mut tx).await, 10);
        account_tokens::insert(&mut tx, &again).await.unwrap();
        assert!(account_tokens::bind(&mut tx, again.id, ours, at(11)).await.unwrap());
        let before = account_tokens::get(&mut tx, token.id).await.unwrap().unwrap();
        assert_eq!((before.state.as_str(), before.revoked_at), ("replaced", Some(at(11).0)));
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_code_is_exchanged_once_and_a_refreshed_token_stays_in_its_family() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let enrollment = authenticated(&mut tx).await;
        let family = sign_in(&mut tx).await;
        let code: [u8; 32] = Random::System.bytes();
        let first = Row {
            code_sha256: Some(code.to_vec()),
            code_expires_at: Some(at(60).0),
            method: "apple-oauth2".to_owned(),
            state: "code".to_owned(),
            expires_at: None,
            ..row(family, 0)
        };
        account_tokens::insert(&mut tx, &first).await.unwrap();
        assert!(!account_tokens::bind(&mut tx, first.id, enrollment, at(1)).await.unwrap(), "not given out yet");
        assert_eq!(account_tokens::find_by_code(&mut tx, code).await.unwrap().as_ref(), Some(&first));
        assert!(!account_tokens::redeem(&mut tx, first.id, &given(), at(60)).await.unwrap(), "the code has ended");
        let tokens = given();
        assert!(account_tokens::redeem(&mut tx, first.id, &tokens, at(2)).await.unwrap());
        assert!(!account_tokens::redeem(&mut tx, first.id, &given(), at(3)).await.unwrap(), "once");
        assert!(account_tokens::bind(&mut tx, first.id, enrollment, at(4)).await.unwrap());

        let found = account_tokens::find_by_refresh(&mut tx, tokens.refresh_sha256).await.unwrap().unwrap();
        assert_eq!((found.id, found.expires_at), (first.id, Some(at(600).0)), "its access token still ends");
        assert!(account_tokens::replace(&mut tx, first.id, at(5)).await.unwrap());
        assert!(!account_tokens::replace(&mut tx, first.id, at(6)).await.unwrap());
        assert!(account_tokens::live_of(&mut tx, family).await.unwrap().is_none());
        let second = Row { enrollment_id: Some(enrollment.0), ..row(family, 5) };
        account_tokens::insert(&mut tx, &second).await.unwrap();
        assert_eq!(account_tokens::live_of(&mut tx, family).await.unwrap().unwrap().id, second.id);
        // What the profile was fetched with is the first; the whole family is bound by it.
        assert!(account_tokens::bind(&mut tx, first.id, enrollment, at(7)).await.unwrap());
        assert_eq!(account_tokens::get(&mut tx, second.id).await.unwrap().unwrap().state, "live");

        assert_eq!(account_tokens::revoke(&mut tx, second.id, at(8)).await.unwrap(), 2, "the whole family");
        assert_eq!(account_tokens::revoke(&mut tx, first.id, at(9)).await.unwrap(), 0);
        assert!(!account_tokens::bind(&mut tx, second.id, enrollment, at(10)).await.unwrap());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn tokens_are_listed_used_revoked_and_forgotten() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let enrollment = authenticated(&mut tx).await;
        let (bound, loose) = (row(sign_in(&mut tx).await, 100), row(sign_in(&mut tx).await, 101));
        account_tokens::insert(&mut tx, &bound).await.unwrap();
        account_tokens::insert(&mut tx, &loose).await.unwrap();
        assert!(account_tokens::bind(&mut tx, bound.id, enrollment, at(102)).await.unwrap());

        account_tokens::used(&mut tx, bound.id, at(110), at(50)).await.unwrap();
        account_tokens::used(&mut tx, bound.id, at(120), at(60)).await.unwrap();
        let of = |account: &str| Filter { account: Some(account.to_owned()), enrollment: None };
        let by_enrollment = Filter { enrollment: Some(enrollment), account: None };
        let listed = account_tokens::list(&mut tx, &by_enrollment, None, 10).await.unwrap();
        assert_eq!(listed.iter().map(|r| (r.id, r.last_used_at)).collect::<Vec<_>>(), [(bound.id, Some(at(110).0))]);
        let upper = loose.managed_apple_account.to_uppercase();
        assert_eq!(account_tokens::list(&mut tx, &of(&upper), None, 10).await.unwrap().len(), 1);
        let all = account_tokens::list(&mut tx, &Filter::default(), None, 1000).await.unwrap();
        let ours: Vec<Uuid> = all.iter().map(|r| r.id).filter(|id| [bound.id, loose.id].contains(id)).collect();
        assert_eq!(ours, [loose.id, bound.id]);
        let older = account_tokens::list(&mut tx, &Filter::default(), Some(loose.id), 1000).await.unwrap();
        assert!(older.iter().all(|r| r.id < loose.id));

        assert_eq!(account_tokens::revoke_account(&mut tx, &upper, at(130)).await.unwrap(), 1);
        assert_eq!(account_tokens::revoke_account(&mut tx, &upper, at(131)).await.unwrap(), 0);
        assert!(account_tokens::delete_unbound(&mut tx, at(102), 1000).await.unwrap() >= 1);
        assert!(account_tokens::get(&mut tx, loose.id).await.unwrap().is_none());
        assert!(account_tokens::get(&mut tx, bound.id).await.unwrap().is_some());
        // Its sign-in may go then too.
        assert!(sign_ins::get(&mut tx, loose.sign_in_id.unwrap()).await.unwrap().is_some());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn ended_tokens_are_deleted_but_not_the_last_of_an_enrollment() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (lives, ended) = (authenticated(&mut tx).await, authenticated(&mut tx).await);
        let tokens = [row(sign_in(&mut tx).await, 0), row(sign_in(&mut tx).await, 1), row(sign_in(&mut tx).await, 2)];
        for token in &tokens {
            account_tokens::insert(&mut tx, token).await.unwrap();
        }
        let [first, second, third] = tokens.map(|token| token.id);
        assert!(account_tokens::bind(&mut tx, first, lives, at(10)).await.unwrap());
        assert!(account_tokens::bind(&mut tx, second, lives, at(11)).await.unwrap(), "replaces the first");
        account_tokens::revoke(&mut tx, second, at(12)).await.unwrap();
        assert!(account_tokens::bind(&mut tx, third, ended, at(10)).await.unwrap());
        let over = EnrollmentState::Unenrolled { at: at(20), why: UnenrolledWhy::CheckOut };
        store::enrollments::end(&mut tx, ended, over).await.unwrap();

        account_tokens::delete_ended(&mut tx, at(11), 1000).await.unwrap();
        assert!(account_tokens::get(&mut tx, first).await.unwrap().is_some(), "too soon");
        account_tokens::delete_ended(&mut tx, at(20), 1000).await.unwrap();
        assert!(account_tokens::get(&mut tx, first).await.unwrap().is_none());
        assert!(account_tokens::get(&mut tx, third).await.unwrap().is_some(), "too soon");
        account_tokens::delete_ended(&mut tx, at(21), 1000).await.unwrap();
        assert!(account_tokens::get(&mut tx, third).await.unwrap().is_none());
        assert!(
            account_tokens::was_bound(&mut tx, lives).await.unwrap(),
            "the last one tells that one is to be asked for"
        );
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_mode_is_in_use_while_an_enrollment_of_it_goes_on() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let before = account_tokens::is_mode_in_use(&mut tx, "adde").await.unwrap();
        assert!(!before, "each story ends its enrollment");
        let id = authenticated(&mut tx).await;
        let entered = store::enrollments::Entered {
            door: Door::Adde,
            managed_apple_account: Some("ada@example.org"),
            server_url: None,
            anchors: None,
        };
        store::enrollments::entered(&mut tx, id, &entered).await.unwrap();
        assert!(account_tokens::is_mode_in_use(&mut tx, "adde").await.unwrap());
        let over = EnrollmentState::Unenrolled { at: at(20), why: UnenrolledWhy::CheckOut };
        store::enrollments::end(&mut tx, id, over).await.unwrap();
        assert!(!account_tokens::is_mode_in_use(&mut tx, "adde").await.unwrap());
        tx.commit().await.unwrap();
    })
    .await;
}
