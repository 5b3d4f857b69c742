use mdm_core::ids::{CommandUuid, EnrollmentId};
use store::commands::{self, Command, Final};
use store::{IdSet, Tx};

use super::{at, authenticated, command_uuid, enrolled, key, twice, word};

pub(crate) fn command(uuid: &CommandUuid) -> Command {
    Command {
        uuid: uuid.as_str().to_owned(),
        request_type: "DeviceInformation".to_owned(),
        rendering: "plain".to_owned(),
        body_sealed: b"body".to_vec(),
        body_sha256: vec![1; 32],
        lane: 1,
        coalescing_key: None,
        expires_at: None,
        created_by: "test".to_owned(),
        created_at: at(2).0,
    }
}

/// Stores a command for these targets.
pub(crate) async fn queued(tx: &mut Tx, command: &Command, targets: &[EnrollmentId]) {
    assert!(commands::insert(tx, command).await.unwrap());
    let count = commands::insert_targets(tx, &IdSet::new(targets), command, at(2)).await.unwrap();
    assert_eq!(count, targets.len() as u64);
}

async fn states(tx: &mut Tx, id: EnrollmentId) -> Vec<(String, String)> {
    let rows = commands::targets_of_enrollment(tx, id, None, 100).await.unwrap();
    rows.into_iter().rev().map(|target| (target.command_uuid, target.state)).collect()
}

#[tokio::test]
async fn a_body_is_stored_once_for_all_its_targets() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let uuid = command_uuid();
        let command = command(&uuid);
        let (one, two, not_yet) = (enrolled(&mut tx).await, enrolled(&mut tx).await, authenticated(&mut tx).await);
        let unknown = EnrollmentId(key(at(0)));
        queued(&mut tx, &command, &[one]).await;
        assert!(!commands::insert(&mut tx, &command).await.unwrap(), "the UUID is taken");
        assert_eq!(commands::get(&mut tx, &uuid).await.unwrap().as_ref(), Some(&command));
        assert_eq!(commands::kind(&mut tx, &uuid).await.unwrap().unwrap().created_by, "test");

        let asked = IdSet::new(&[one, two, not_yet, unknown]);
        let candidates = commands::lock_candidates(&mut tx, &asked, &uuid).await.unwrap();
        assert_eq!(candidates.len(), 3, "the unknown one is none");
        for candidate in candidates {
            assert_eq!(candidate.present, candidate.id == one.0);
            assert_eq!(candidate.state == "enrolled", candidate.id != not_yet.0);
        }
        let added = commands::insert_targets(&mut tx, &IdSet::new(&[two]), &command, at(3)).await.unwrap();
        assert_eq!(added, 1);
        let targets = commands::targets_of_command(&mut tx, &uuid, None, 10).await.unwrap();
        assert_eq!(targets.len(), 2);
        let after = EnrollmentId(targets[0].enrollment_id);
        let rest = commands::targets_of_command(&mut tx, &uuid, Some(after), 10).await.unwrap();
        assert_eq!(rest, targets[1..]);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn urgent_commands_come_first_then_the_order_of_commit() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let id = enrolled(&mut tx).await;
        let uuids = [command_uuid(), command_uuid(), command_uuid()];
        for (uuid, lane) in uuids.iter().zip([1, 1, 0]) {
            queued(&mut tx, &Command { lane, ..command(uuid) }, &[id]).await;
        }
        let order: Vec<_> =
            commands::outstanding(&mut tx, id, at(3), 10).await.unwrap().into_iter().map(|o| o.command_uuid).collect();
        assert_eq!(order, [uuids[2].as_str(), uuids[0].as_str(), uuids[1].as_str()]);
        assert_eq!(commands::outstanding(&mut tx, id, at(3), 1).await.unwrap().len(), 1);
        let first = commands::first(&mut tx, id, at(3)).await.unwrap().unwrap();
        assert_eq!(
            (first.waiting.command_uuid.as_str(), first.content.rendering.as_str()),
            (order[0].as_str(), "plain")
        );
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_target_goes_its_way_to_one_end() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let id = enrolled(&mut tx).await;
        let (one, two) = (command_uuid(), command_uuid());
        for uuid in [&one, &two] {
            queued(&mut tx, &command(uuid), &[id]).await;
        }
        assert_eq!(commands::session(&mut tx, id).await.unwrap(), 0);
        assert_eq!(commands::begin_session(&mut tx, id).await.unwrap(), 1);
        let seqs: Vec<_> = commands::outstanding(&mut tx, id, at(3), 10).await.unwrap().iter().map(|o| o.seq).collect();
        let content = commands::content(&mut tx, id, seqs[0]).await.unwrap().unwrap();
        assert_eq!((content.rendering.as_str(), content.body_sealed.as_slice()), ("plain", &b"body"[..]));

        // One is in progress at most: delivering the second puts the first back.
        commands::sent(&mut tx, id, seqs[0], false, Some(b"rendered"), at(4)).await.unwrap();
        commands::sent(&mut tx, id, seqs[1], true, None, at(5)).await.unwrap();
        let state = |uuid: &CommandUuid, state: &str| (uuid.as_str().to_owned(), state.to_owned());
        assert_eq!(states(&mut tx, id).await, [state(&one, "queued"), state(&two, "sent")]);
        let content = commands::content(&mut tx, id, seqs[0]).await.unwrap().unwrap();
        assert_eq!(content.rendered_sealed.as_deref(), Some(&b"rendered"[..]), "a repeat must be equal to it");

        assert_eq!(commands::unreadable(&mut tx, id).await.unwrap(), Some((seqs[1], 1)));
        assert!(commands::not_now(&mut tx, id, &two, 1, at(6)).await.unwrap());
        assert_eq!(commands::unreadable(&mut tx, id).await.unwrap(), None, "nothing is in progress");
        let waiting = commands::outstanding(&mut tx, id, at(7), 10).await.unwrap();
        assert_eq!((waiting[1].state.as_str(), waiting[1].not_now_session), ("not_now", Some(1)));

        let done = Final { state: "acknowledged", error_chain: None, result_sealed: b"report" };
        let ended = commands::finish(&mut tx, id, &two, &done, at(8)).await.unwrap().unwrap();
        assert_eq!(Some(ended), commands::kind(&mut tx, &two).await.unwrap());
        let failed = Final { state: "error", error_chain: Some("[]"), result_sealed: b"late" };
        assert_eq!(commands::finish(&mut tx, id, &two, &failed, at(9)).await.unwrap(), None, "an end is an end");
        assert!(!commands::not_now(&mut tx, id, &two, 2, at(9)).await.unwrap());
        assert_eq!(commands::finish(&mut tx, id, &command_uuid(), &done, at(9)).await.unwrap(), None);
        assert!(commands::extra_report(&mut tx, id, &two).await.unwrap());
        assert!(!commands::extra_report(&mut tx, id, &command_uuid()).await.unwrap());
        let target = commands::target(&mut tx, id, &two).await.unwrap().unwrap();
        assert_eq!((target.state.as_str(), target.finished_at), ("acknowledged", Some(at(8).0)));
        assert_eq!((target.result_sealed.as_deref(), target.extra_reports), (Some(&b"report"[..]), 2));

        assert!(commands::end(&mut tx, id, seqs[0], "refused", "gate", at(10)).await.unwrap());
        assert!(!commands::end(&mut tx, id, seqs[0], "cancelled", "again", at(11)).await.unwrap());
        let target = commands::target(&mut tx, id, &one).await.unwrap().unwrap();
        assert_eq!((target.state.as_str(), target.why.as_deref()), ("refused", Some("gate")));
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_waits_can_be_replaced_cleared_and_can_expire() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (id, other) = (enrolled(&mut tx).await, enrolled(&mut tx).await);
        let refetch = |uuid: &CommandUuid| Command { coalescing_key: Some("facts".to_owned()), ..command(uuid) };
        let (old, new) = (command_uuid(), command_uuid());
        queued(&mut tx, &refetch(&old), &[id, other]).await;
        let replaced = commands::supersede(&mut tx, &IdSet::new(&[id]), "facts", &new, at(3)).await.unwrap();
        assert_eq!(replaced, 1, "on the named enrollment only");
        queued(&mut tx, &refetch(&new), &[id]).await;
        assert_eq!(commands::supersede(&mut tx, &IdSet::new(&[id]), "facts", &new, at(3)).await.unwrap(), 0);

        let short = command_uuid();
        queued(&mut tx, &Command { expires_at: Some(at(10).0), ..command(&short) }, &[id]).await;
        assert_eq!(commands::outstanding(&mut tx, id, at(9), 10).await.unwrap().len(), 2);
        assert_eq!(commands::outstanding(&mut tx, id, at(10), 10).await.unwrap().len(), 1);
        assert!(commands::expire(&mut tx, at(10), 100).await.unwrap() >= 1);
        let target = commands::target(&mut tx, id, &short).await.unwrap().unwrap();
        assert_eq!(target.state, "expired");

        assert_eq!(commands::clear(&mut tx, id, "reenrolled", at(11)).await.unwrap(), 1);
        assert_eq!(commands::clear(&mut tx, id, "reenrolled", at(12)).await.unwrap(), 0);
        let target = commands::target(&mut tx, id, &new).await.unwrap().unwrap();
        assert_eq!((target.state.as_str(), target.why.as_deref()), ("cancelled", Some("reenrolled")));
        assert_eq!(commands::outstanding(&mut tx, other, at(11), 10).await.unwrap().len(), 1);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn one_part_of_the_server_finds_what_it_has_outstanding() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (one, two, other) = (enrolled(&mut tx).await, enrolled(&mut tx).await, enrolled(&mut tx).await);
        let (mine, theirs) = (command_uuid(), command_uuid());
        let me = word("me");
        let key = Some("facts".to_owned());
        let ours = Command { created_by: me.clone(), coalescing_key: key.clone(), ..command(&mine) };
        queued(&mut tx, &ours, &[one, two, other]).await;
        queued(&mut tx, &command(&theirs), &[one]).await;
        let waiting = commands::outstanding_by(&mut tx, &IdSet::new(&[one, two]), &me).await.unwrap();
        assert_eq!(waiting.len(), 2);
        assert!(
            waiting
                .iter()
                .all(|w| w.command_uuid == mine.as_str() && w.coalescing_key == key && w.first_sent_at.is_none())
        );
        let seq = commands::outstanding(&mut tx, one, at(3), 1).await.unwrap()[0].seq;
        commands::sent(&mut tx, one, seq, false, None, at(4)).await.unwrap();
        let waiting = commands::outstanding_by(&mut tx, &IdSet::new(&[one]), &me).await.unwrap();
        assert_eq!(waiting[0].first_sent_at, Some(at(4).0));
        let some = IdSet::new(&[one, two]);
        assert_eq!(commands::cancel_many(&mut tx, &some, &mine, "test", at(5)).await.unwrap(), 2);
        assert_eq!(commands::cancel_many(&mut tx, &some, &mine, "test", at(6)).await.unwrap(), 0);
        assert_eq!(commands::outstanding_by(&mut tx, &IdSet::new(&[other]), &me).await.unwrap().len(), 1);
        assert!(commands::outstanding_by(&mut tx, &IdSet::new(&[one]), &me).await.unwrap().is_empty());
        tx.commit().await.unwrap();
    })
    .await;
}
