//! Comparing three stories of each channel: what Apple's pages demand, what the device saw, what the REST API says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;
use simulator::fleet::{Because, Expected};

use super::board::{Board, Stage, Verdict};
use super::drive::{Fleet, Line, Seen};
use super::operator::Operator;

/// How often the REST API is asked.
const EVERY: Duration = Duration::from_millis(250);
/// States of an assignment in which nothing more happens by itself.
const SETTLED: [&str; 3] = ["installed", "blocked", "failed"];

/// Waits until every assignment is settled, then judges each line.
pub(super) async fn watch(
    operator: &Operator,
    fleet: &Fleet,
    policy: &str,
    board: &Board,
    patience: Duration,
) -> Result<Vec<Verdict>> {
    let start = Instant::now();
    loop {
        let enrollments = enrollments(operator, &fleet.lines).await?;
        let assignments = by_enrollment(operator.assignments(policy).await?);
        let mut open = 0;
        let mut verdicts = Vec::new();
        for (number, (line, enrollment)) in fleet.lines.iter().zip(&enrollments).enumerate() {
            let assignment = enrollment.as_ref().and_then(|id| assignments.get(id));
            let state = assignment.map(|a| text(a, "/state")).unwrap_or_default();
            if let Some(assignment) = assignment {
                if ["blocked", "installing", "installed", "failed"].contains(&state.as_str()) {
                    board.decided(number, &decision(assignment));
                }
                if state == "installed" {
                    board.reached(number, Stage::Acknowledged);
                }
            }
            open += usize::from(!SETTLED.contains(&state.as_str()));
            verdicts.push(judge(line, &fleet.seen(number), enrollment.as_deref(), assignment));
        }
        if open == 0 || start.elapsed() > patience {
            return Ok(verdicts);
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The id of each line's enrollment in the REST API, found by what the device calls itself.
async fn enrollments(operator: &Operator, lines: &[Line]) -> Result<Vec<Option<String>>> {
    let all = operator.all("/api/v1/enrollments").await?;
    let of = |line: &Line, enrollment: &&Value| {
        let same = |key: &str| text(enrollment, key) == line.device_id;
        match &line.user {
            None => text(enrollment, "/channel") == "device" && (same("/udid") || same("/apple_enrollment_id")),
            Some(user) => {
                text(enrollment, "/channel") == "user" && text(enrollment, "/user_short_name") == *user && same("/udid")
            }
        }
    };
    Ok(lines.iter().map(|line| all.iter().find(|e| of(line, e)).map(|e| text(e, "/id"))).collect())
}

fn by_enrollment(assignments: Vec<Value>) -> BTreeMap<String, Value> {
    assignments.into_iter().map(|assignment| (text(&assignment, "/enrollment_id"), assignment)).collect()
}

/// The decision in a few words: what is sent, and why it is not more.
fn decision(assignment: &Value) -> String {
    let decision = assignment.get("decision").unwrap_or(&Value::Null);
    let why = reasons(decision).join(", ");
    match text(decision, "/outcome").as_str() {
        "open" => {
            let form = |key: &str| decision.pointer(&format!("/form/{key}")).cloned().unwrap_or_default();
            let bound = if form("hardware_bound") == true { "hardware-bound" } else { "software key" };
            let attest = if form("attest") == "true" { "attested" } else { "not attested" };
            if why.is_empty() { format!("{bound}, {attest}") } else { format!("{bound}, {attest}: {why}") }
        }
        "closed" => format!("no profile: {why}"),
        other => other.to_owned(),
    }
}

/// Every reason code of a decision.
fn reasons(decision: &Value) -> Vec<String> {
    let notes = decision.get("notes").and_then(Value::as_array).into_iter().flatten();
    decision
        .get("reason")
        .into_iter()
        .chain(notes)
        .map(|note| text(note, "/code"))
        .filter(|code| !code.is_empty())
        .collect()
}

/// The reason code by which the REST API must explain each of the fleet's reasons.
fn code(because: Because) -> &'static str {
    match because {
        Because::OldSystem => "payload_needs_newer_os",
        Because::MacBefore14 => "hardware_bound_needs_macos_14",
        Because::NoSecureEnclave => "hardware_bound_needs_t2_or_apple_silicon",
        Because::VirtualMac => "virtual_machine",
        Because::IgnoredBySilicon => "attest_ignored_by_silicon",
        Because::IPadBefore161 => "attest_needs_ipados_16_1",
        Because::WatchBefore10 => "attest_needs_watchos_10",
        Because::UnknownModel => "hardware_unknown",
        Because::UserChannel => "user_channel_hardware_bound_off",
        Because::SharedIPadUser => "shared_ipad_user_channel",
    }
}

fn judge(line: &Line, seen: &Seen, enrollment: Option<&str>, assignment: Option<&Value>) -> Verdict {
    let mut wrong = seen.complaints.clone();
    if let Err(why) = line.expected.check(line.mac, seen.acme.as_ref()) {
        wrong.push(why);
    }
    match assignment {
        None => wrong.push(match enrollment {
            Some(id) => format!("the API knows no assignment of enrollment {id}"),
            None => format!("the API knows no enrollment of «{}»", line.device_id),
        }),
        Some(assignment) => compare(line, seen, assignment, &mut wrong),
    }
    let decided = assignment.map(decision).unwrap_or_default();
    let reason = line.expected.because().map_or("as the policy wishes", code);
    Verdict { silicon: line.silicon, decided, reason, wrong }
}

/// The API must say what the device saw.
fn compare(line: &Line, seen: &Seen, assignment: &Value, wrong: &mut Vec<String>) {
    let decision = assignment.get("decision").unwrap_or(&Value::Null);
    let (state, outcome) = (text(assignment, "/state"), text(decision, "/outcome"));
    let (must_be, must_decide) = match line.expected {
        Expected::Profile { .. } => ("installed", "open"),
        Expected::Refused(_) => ("blocked", "closed"),
    };
    if state != must_be || outcome != must_decide {
        wrong.push(format!("the API says «{state}», decided «{outcome}»; must be «{must_be}», «{must_decide}»"));
    }
    let codes = reasons(decision);
    if let Some(because) = line.expected.because()
        && !codes.iter().any(|found| found == code(because))
    {
        wrong.push(format!("the API's reasons are {codes:?}; {} is missing", code(because)));
    }
    let Some(acme) = &seen.acme else { return };
    let form = |key: &str| decision.pointer(&format!("/form/{key}"));
    let attest = match acme.attest {
        Some(true) => "true",
        Some(false) => "false",
        None => "leave_out",
    };
    let same = form("hardware_bound").and_then(Value::as_bool) == Some(acme.hardware_bound)
        && form("attest").and_then(Value::as_str) == Some(attest)
        && form("key_is_extractable").and_then(Value::as_bool) == acme.key_is_extractable
        && form("allow_all_apps_access").and_then(Value::as_bool) == acme.allow_all_apps_access;
    if !same {
        wrong.push(format!("the API says {}, the device saw {acme:?}", decision.get("form").unwrap_or(&Value::Null)));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use simulator::acme::Acme;
    use simulator::fleet::Attest;

    use super::*;

    fn line(expected: Expected) -> Line {
        let label = "iPhone17,2".to_owned();
        Line { label, silicon: "", mac: false, device_id: "U".to_owned(), user: None, expected }
    }

    fn seen(attest: Option<bool>) -> Seen {
        let acme = Acme {
            directory_url: "https://ca.example/".to_owned(),
            client_identifier: "x".to_owned(),
            key_type: "ECSECPrimeRandom".to_owned(),
            key_size: 256,
            hardware_bound: true,
            attest,
            key_is_extractable: None,
            allow_all_apps_access: None,
        };
        Seen { acme: Some(acme), complaints: Vec::new() }
    }

    fn open(attest: &str) -> Value {
        json!({ "state": "installed", "decision": { "outcome": "open", "form": { "hardware_bound": true, "attest": attest } } })
    }

    fn wrong(expected: Expected, seen: &Seen, assignment: &Value) -> Vec<String> {
        judge(&line(expected), seen, Some("id"), Some(assignment)).wrong
    }

    const FULL: Expected = Expected::Profile { hardware_bound: true, attest: Attest::True, because: None };

    #[test]
    fn three_stories_that_agree_are_right() {
        assert_eq!(wrong(FULL, &seen(Some(true)), &open("true")), [""; 0]);
        let closed = json!({ "state": "blocked", "decision": { "outcome": "closed", "reason": { "code": "payload_needs_newer_os" } } });
        assert_eq!(wrong(Expected::Refused(Because::OldSystem), &Seen::default(), &closed), [""; 0]);
    }

    #[test]
    fn any_story_that_differs_is_wrong() {
        assert_eq!(wrong(FULL, &seen(None), &open("leave_out")).len(), 1, "Apple's table demands Attest");
        assert_eq!(wrong(FULL, &seen(Some(true)), &open("false")).len(), 1, "the API says something else");
        assert_eq!(wrong(FULL, &Seen::default(), &open("true")).len(), 1, "the device saw no profile");
        assert_eq!(wrong(Expected::Refused(Because::OldSystem), &seen(Some(true)), &open("true")).len(), 3);
        let unexplained = json!({ "state": "blocked", "decision": { "outcome": "closed", "reason": { "code": "hardware_unknown" } } });
        assert_eq!(wrong(Expected::Refused(Because::OldSystem), &Seen::default(), &unexplained).len(), 1);
        assert_eq!(judge(&line(FULL), &seen(Some(true)), Some("id"), None).wrong.len(), 1);
    }
}
