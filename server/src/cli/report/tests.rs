use std::collections::BTreeMap;

use proptest::prelude::*;
use rollout::report::{DayCount, FormCount, Happened, ReasonCount, StateCount, StepReport};
use rollout::standing::Stages;
use rollout::{PolicyReport, RolloutReport};

use super::*;

const AT: Timestamp = Timestamp(1_795_320_000_000);

fn step(number: i64, standing: &str, percent: u8, stages: Stages) -> StepReport {
    StepReport {
        number,
        standing: standing.to_owned(),
        percent: Some(percent),
        label: None,
        wait_minutes: 1440,
        stages,
        silicon: Vec::new(),
        reasons: Vec::new(),
    }
}

fn policy(name: &str) -> PolicyReport {
    let state = |state: &str, silicon: &str, count| StateCount { state: state.into(), silicon: silicon.into(), count };
    let day = |day: &str, count| DayCount { day: day.into(), count };
    let first = Stages { verified: 40, failing: 6, installing: 3, refused: 1, ..Stages::default() };
    let second = Stages { held: 450, ..Stages::default() };
    PolicyReport {
        policy: name.to_owned(),
        revision: 2,
        at: AT,
        authority: "step-ca <pilot>".to_owned(),
        total: 500,
        states: vec![
            state("verified", "supported", 410),
            state("verified", "ignored", 40),
            state("failed", "supported", 6),
            state("installing", "supported", 3),
            state("blocked", "must_be_false", 31),
            state("awaiting_facts", "not_decided", 10),
        ],
        reasons: vec![ReasonCount {
            code: "install_failed".into(),
            sentence: "The device answered the profile with an error.".into(),
            remedy: "Read the error chain.".into(),
            count: 6,
        }],
        weaker: vec![ReasonCount {
            code: "attest_ignored_by_silicon".into(),
            sentence: "The chip ignores Attest.".into(),
            remedy: "Nothing.".into(),
            count: 40,
        }],
        forms: vec![
            FormCount { key_type: "ECSECPrimeRandom 256".into(), hardware_bound: true, attested: true, count: 410 },
            FormCount { key_type: "ECSECPrimeRandom 256".into(), hardware_bound: true, attested: false, count: 40 },
        ],
        ends: vec![day("2026-11-20", 4), day("2026-12-01", 120), day("2027-02-14", 226), day("2027-03-01", 100)],
        renewals_due: vec![day("2026-11-30", 20), day("2026-12-24", 430)],
        renewals: BTreeMap::from([
            ("proved".into(), 12),
            ("failed".into(), 2),
            ("delivered".into(), 1),
            ("void".into(), 7),
        ]),
        rollout: Some(RolloutReport {
            policy: name.to_owned(),
            revision: 2,
            from_revision: Some(1),
            state: "paused".into(),
            why: Some("6 of 50 admitted devices failed; at most 1 may. Most often: install_failed (6)".into()),
            waits_for: None,
            step: 1,
            step_at: AT,
            next_step_at: None,
            failures_borne: 1,
            failures_forgiven: 0,
            verified_percent: 50,
            stages: Stages { held: 450, ..first },
            silicon: Vec::new(),
            reasons: Vec::new(),
            steps: vec![step(1, "under_way", 10, first), step(2, "to_come", 100, second)],
            unsorted: 0,
            history: vec![Happened {
                at: AT,
                kind: "rollout.paused".into(),
                summary: "The rollout has paused by itself: 6 of 50".into(),
                actor: "server".into(),
            }],
            started_by: "token:ops".into(),
            started_at: AT,
            updated_at: AT,
        }),
    }
}

fn report(names: &[&str]) -> Report {
    Report { at: Some(AT), policies: names.iter().map(|name| policy(name)).collect() }
}

#[test]
fn the_words_name_states_silicon_reasons_and_the_rollout() {
    let text = report(&["wifi"]).text();
    for words in [
        "wifi, revision 2, on 500 enrollments, 2026-11-22 04:00 UTC",
        "450 verified, 3 being installed, 10 waiting, 31 refused, 6 failing",
        "attests (A11, A12X and later, Apple silicon): 410 verified, 3 being installed, 6 failing",
        "410 ECSECPrimeRandom 256, asked for as hardware-bound, attested",
        "124 within 30 days; renewal due for 20 within 30 days",
        "12 proved, 2 failed, 1 under way",
        "6  install_failed: The device answered the profile with an error. Read the error chain.",
        "40  attest_ignored_by_silicon: The chip ignores Attest.",
        "revision 2, paused, step 1 of 2: 6 of 50 admitted devices failed",
        "step 2  100 % (to come, 1 d): 450 held by the rollout",
        "The rollout has paused by itself",
    ] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    assert_eq!(Report { at: None, policies: vec![] }.text(), "There is no ACME policy.\n");
}

#[test]
fn the_page_has_charts_no_script_and_nothing_from_elsewhere() {
    let page = report(&["wifi", "vpn"]).html();
    if let Some(file) = std::env::var_os("ASSAY_REPORT_SAMPLE") {
        std::fs::write(file, &page).unwrap();
    }
    assert!(page.matches("<svg").count() > 10 && page.contains("id=\"vpn\""));
    assert!(page.contains("6 of 50 admitted devices failed") && page.contains("badge paused"));
    for never in ["<script", "http://", "https://", "src=", "url(", "@import", "javascript:"] {
        assert!(!page.contains(never), "{never}");
    }
    assert!(page.contains("step-ca &lt;pilot&gt;"), "what comes from the server is escaped");
    assert!(Report { at: None, policies: vec![] }.html().contains("There is no ACME policy"));
}

#[test]
fn days_are_gathered_into_columns_and_none_is_lost() {
    let day = |day: &str, count| DayCount { day: day.into(), count };
    let today = chart::day_number("2026-11-22").unwrap();
    let few = chart::columns(&[day("2026-11-21", 1), day("2026-11-23", 2)], today);
    let told: Vec<_> = few.iter().map(|c| (c.from.as_str(), c.count, c.past)).collect();
    assert_eq!(told, [("2026-11-21", 1, true), ("2026-11-22", 0, false), ("2026-11-23", 2, false)]);
    assert_eq!(chart::columns(&[], today), []);
}

proptest! {
    #[test]
    fn a_chart_holds_every_count_in_few_columns(days in prop::collection::vec((0i64..4000, 1i64..100), 1..60)) {
        let counts: Vec<DayCount> = days.iter().map(|(day, count)| {
            let at = Timestamp::from_unix_seconds((20_000 + day) * 86_400).to_rfc3339();
            DayCount { day: at[..10].to_owned(), count: *count }
        }).collect();
        let columns = chart::columns(&counts, 20_000);
        prop_assert!(columns.len() <= 36);
        prop_assert_eq!(columns.iter().map(|c| c.count).sum::<i64>(), days.iter().map(|d| d.1).sum::<i64>());
    }
}
