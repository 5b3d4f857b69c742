use serde_json::json;
use store::events::{self, Filter, NewEvent};

use super::{at, command_uuid, enrolled, twice};

#[tokio::test]
async fn events_are_read_from_either_end() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let (one, two) = (enrolled(&mut tx).await, enrolled(&mut tx).await);
        let command = command_uuid();
        let data = json!({ "why": "a test" });
        let newest = events::newest(&mut tx, &Filter::default(), None, 1).await.unwrap();
        let start = newest.first().map_or(0, |row| row.id);
        let kinds = [("enrollment.enrolled", one), ("enrollment.refused", two), ("command.cancelled", one)];
        for (n, (kind, enrollment)) in (1..).zip(kinds) {
            let event = NewEvent {
                at: at(n),
                kind,
                enrollment: Some(enrollment),
                command: Some(&command),
                actor: "device",
                summary: "Something happened.",
                data: &data,
            };
            events::record(&mut tx, &event).await.unwrap();
        }
        let kinds = |rows: &[events::Row]| rows.iter().map(|row| row.kind.clone()).collect::<Vec<_>>();
        let all = Filter::default();
        let since = events::since(&mut tx, &all, start, 10).await.unwrap();
        assert_eq!(kinds(&since), ["enrollment.enrolled", "enrollment.refused", "command.cancelled"]);
        assert_eq!(
            (since[0].command_uuid.as_deref(), since[0].data.as_str()),
            (Some(command.as_str()), r#"{"why":"a test"}"#)
        );
        let newest = events::newest(&mut tx, &all, Some(since[2].id), 2).await.unwrap();
        assert_eq!(kinds(&newest), ["enrollment.refused", "enrollment.enrolled"]);

        let of_one = Filter { enrollment: Some(one), kind: None };
        assert_eq!(
            kinds(&events::since(&mut tx, &of_one, start, 10).await.unwrap()),
            ["enrollment.enrolled", "command.cancelled"]
        );
        let family = Filter { enrollment: None, kind: Some("enrollment.".to_owned()) };
        assert_eq!(events::since(&mut tx, &family, start, 10).await.unwrap().len(), 2);
        let exact = Filter { enrollment: Some(two), kind: Some("enrollment.refused".to_owned()) };
        assert_eq!(events::newest(&mut tx, &exact, None, 10).await.unwrap().len(), 1);
        let start_of_a_kind = Filter { enrollment: Some(two), kind: Some("enrollment.ref".to_owned()) };
        assert!(events::newest(&mut tx, &start_of_a_kind, None, 10).await.unwrap().is_empty());
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_event_stands_alone_where_there_is_no_transaction() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let one = enrolled(&mut tx).await;
        tx.commit().await.unwrap();
        let data = json!({});
        let event = NewEvent {
            at: at(1),
            kind: "enrollment.refused",
            enrollment: Some(one),
            command: None,
            actor: "device",
            summary: "Something was refused.",
            data: &data,
        };
        events::record_alone(&store, &event).await;
        let of_one = Filter { enrollment: Some(one), kind: None };
        let mut tx = store.read().await.unwrap();
        assert_eq!(events::newest(&mut tx, &of_one, None, 10).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn many_events_are_written_in_their_order() {
    twice(|store| async move {
        let mut tx = store.begin().await.unwrap();
        let one = enrolled(&mut tx).await;
        let command = command_uuid();
        let summaries: Vec<_> = (0..20).map(|n| format!("The \"{n}th\" thing's happened.")).collect();
        let data = json!({"trace": "x", "quoted": "it's \"so\""});
        let many: Vec<_> = summaries
            .iter()
            .map(|summary| NewEvent {
                at: at(1),
                kind: "assignment.verified",
                enrollment: Some(one),
                command: Some(&command),
                actor: "server",
                summary,
                data: &data,
            })
            .collect();
        events::record_many(&mut tx, &many).await.unwrap();
        let of_one = Filter { enrollment: Some(one), kind: None };
        let read = events::since(&mut tx, &of_one, 0, 100).await.unwrap();
        assert_eq!(read.iter().map(|row| row.summary.clone()).collect::<Vec<_>>(), summaries);
        assert_eq!((read[0].actor.as_str(), read[0].at), ("server", at(1).0));
        assert_eq!(read[0].command_uuid.as_deref(), Some(command.as_str()));
        assert_eq!(read[0].data.parse::<serde_json::Value>().unwrap(), data);
        tx.commit().await.unwrap();
    })
    .await;
}
