//! Which outstanding command to hand out: a pure decision over rows.

use mdm_core::report::Status;
use mdm_core::time::Timestamp;
use store::commands::Outstanding;

use crate::Stall;

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Choice {
    /// Targets to be ended as stalled first: handed out often enough, over long enough, without any report (RG-07).
    pub(crate) stalled: Vec<i64>,
    /// The target to hand out, by sequence number.
    pub(crate) deliver: Option<i64>,
    /// Whether another target counts as in progress and must be taken back.
    pub(crate) others_sent: bool,
}

/// Chooses from `rows`, which are in the order of lane and sequence.
///
/// What was answered `NotNow` in this session is passed over while anything else waits. When nothing else does, it is
/// offered once more, unless `NotNow` was the report just given: a device polls again by itself only if `NotNow` was the
/// last status it sent (Apple, "Handling NotNow status responses"; RG-06).
pub(crate) fn choose(rows: &[Outstanding], status: Status, session: i64, stall: Stall, now: Timestamp) -> Choice {
    let (stalled, live): (Vec<_>, Vec<_>) = rows.iter().partition(|row| is_stalled(row, stall, now));
    let put_off = |row: &&&Outstanding| row.state == "not_now" && row.not_now_session == Some(session);
    let first = live.iter().find(|row| !put_off(row));
    let last_resort = || live.iter().find(put_off).filter(|_| status != Status::NotNow);
    let deliver = first.or_else(last_resort).map(|row| row.seq);
    Choice {
        stalled: stalled.iter().map(|row| row.seq).collect(),
        deliver,
        others_sent: live.iter().any(|row| row.state == "sent" && Some(row.seq) != deliver),
    }
}

/// Whether the first outstanding target is the one to hand out whatever comes after it: [`choose`] would choose it.
pub(crate) fn is_plain_turn(first: &Outstanding, stall: Stall, now: Timestamp) -> bool {
    first.state != "not_now" && !is_stalled(first, stall, now)
}

fn is_stalled(row: &Outstanding, stall: Stall, now: Timestamp) -> bool {
    row.state == "sent"
        && row.deliveries >= stall.deliveries
        && row.first_sent_at.is_some_and(|at| now.since(Timestamp(at)) >= stall.after)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(seq: i64, lane: i64, state: &str) -> Outstanding {
        Outstanding {
            seq,
            command_uuid: format!("c{seq}"),
            lane,
            state: state.to_owned(),
            deliveries: 0,
            first_sent_at: None,
            not_now_session: (state == "not_now").then_some(7),
        }
    }

    fn pick(rows: &[Outstanding], status: Status) -> Option<i64> {
        choose(rows, status, 7, Stall::default(), Timestamp(0)).deliver
    }

    #[test]
    fn rg_06_not_now_is_passed_over_then_offered_last_then_the_session_ends() {
        let rows = [row(1, 1, "not_now"), row(2, 1, "queued")];
        assert_eq!(pick(&rows, Status::NotNow), Some(2));
        assert_eq!(pick(&rows[..1], Status::Acknowledged), Some(1));
        assert_eq!(pick(&rows[..1], Status::NotNow), None);
    }

    #[test]
    fn rg_06_not_now_of_an_earlier_session_is_offered_in_its_turn() {
        let mut rows = [row(1, 1, "not_now"), row(2, 1, "queued")];
        rows[0].not_now_session = Some(6);
        assert_eq!(pick(&rows, Status::Idle), Some(1));
    }

    #[test]
    fn rg_03_what_was_sent_and_not_answered_is_sent_again() {
        assert_eq!(pick(&[row(1, 1, "sent"), row(2, 1, "queued")], Status::Idle), Some(1));
    }

    #[test]
    fn rg_08_an_urgent_command_takes_the_place_of_one_in_progress() {
        let choice = choose(&[row(9, 0, "queued"), row(1, 1, "sent")], Status::Idle, 7, Stall::default(), Timestamp(0));
        assert_eq!((choice.deliver, choice.others_sent), (Some(9), true));
    }

    #[test]
    fn rg_07_a_command_without_any_report_stops_blocking() {
        let mut stuck = row(1, 1, "sent");
        stuck.deliveries = 5;
        stuck.first_sent_at = Some(0);
        let hour = Timestamp(3_600_000);
        let rows = [stuck, row(2, 1, "queued")];
        let choice = choose(&rows, Status::Idle, 7, Stall::default(), hour);
        assert_eq!((choice.stalled, choice.deliver), (vec![1], Some(2)));
        let early = choose(&rows, Status::Idle, 7, Stall::default(), Timestamp(hour.0 - 1));
        assert_eq!((early.stalled, early.deliver), (vec![], Some(1)));
    }

    proptest! {
        #[test]
        fn one_of_the_rows_or_none_and_never_a_not_now_after_not_now(
            states in prop::collection::vec((0_i64..2, prop::sample::select(vec!["queued", "sent", "not_now"])), 0..12),
            status in prop::sample::select(vec![Status::Idle, Status::Acknowledged, Status::NotNow, Status::Error]),
        ) {
            let mut rows: Vec<_> = states.iter().enumerate()
                .map(|(n, (lane, state))| row(i64::try_from(n).unwrap(), *lane, state)).collect();
            rows.sort_by_key(|r| (r.lane, r.seq));
            let chosen = pick(&rows, status).map(|seq| rows.iter().find(|r| r.seq == seq).unwrap());
            let waiting = rows.iter().any(|r| r.state != "not_now");
            prop_assert_eq!(chosen.is_some(), waiting || (!rows.is_empty() && status != Status::NotNow));
            if let Some(first) = rows.first().filter(|first| is_plain_turn(first, Stall::default(), Timestamp(0))) {
                prop_assert_eq!(chosen.map(|c| c.seq), Some(first.seq));
            }
            if let Some(chosen) = chosen {
                prop_assert!(!(chosen.state == "not_now" && (waiting || status == Status::NotNow)));
                let same_lane_before = rows.iter().find(|r| r.lane <= chosen.lane && r.state != "not_now");
                if waiting {
                    prop_assert_eq!(same_lane_before.map(|r| r.seq), Some(chosen.seq));
                }
            }
        }
    }
}
