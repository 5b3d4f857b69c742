//! Comparing three stories of each channel: what Apple's pages demand, what the device saw, what the REST API says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;
use simulator::fleet::{Attest, Because, Expected};

use super::board::{Board, Stage, Verdict};
use super::drive::{Fleet, Held, Line, Seen};
use super::operator::Operator;

/// How often the REST API is asked.
const EVERY: Duration = Duration::from_millis(250);
/// States of an assignment in which nothing more happens by itself.
const SETTLED: [&str; 3] = ["verified", "blocked", "failed"];

/// What is watched.
pub(super) struct Watched<'a> {
    pub(super) operator: &'a Operator,
    pub(super) fleet: &'a Fleet,
    /// The policy's name.
    pub(super) policy: &'a str,
    /// `DirectoryURL` of its authority.
    pub(super) directory: &'a str,
    /// The lines whose certificate is renewed.
    pub(super) renewed: &'a [usize],
}

/// Waits until every assignment is settled, then judges each line.
pub(super) async fn watch(watched: &Watched<'_>, board: &Board, patience: Duration) -> Result<Vec<Verdict>> {
    let Watched { operator, fleet, policy, directory, renewed } = *watched;
    let start = Instant::now();
    loop {
        let enrollments = enrollments(operator, &fleet.lines).await?;
        let assignments = by_enrollment(operator.assignments(policy).await?);
        let certificates = operator.certificates(policy).await?;
        let mut open = 0;
        let mut verdicts = Vec::new();
        for (number, (line, enrollment)) in fleet.lines.iter().zip(&enrollments).enumerate() {
            let assignment = enrollment.as_ref().and_then(|id| assignments.get(id));
            let state = assignment.map(|a| text(a, "/state")).unwrap_or_default();
            if let Some(assignment) = assignment {
                if !["assigned", "held", "awaiting_facts"].contains(&state.as_str()) {
                    board.decided(number, &decision(assignment));
                }
                if ["installed", "verified"].contains(&state.as_str()) {
                    board.reached(number, Stage::Acknowledged);
                }
                if state == "verified" {
                    board.reached(number, Stage::Verified);
                }
            }
            let seen = fleet.seen(number);
            let must_come = usize::from(matches!(line.expected, Expected::Profile { .. }));
            let must_come = must_come + usize::from(renewed.contains(&number));
            let came = seen.came.get(directory).copied().unwrap_or_default();
            open += usize::from(!SETTLED.contains(&state.as_str()) || came < must_come);
            let of_line: Vec<&Value> =
                certificates.iter().filter(|c| Some(text(c, "/enrollment_id")) == *enrollment).collect();
            let story = Story { enrollment: enrollment.as_deref(), assignment, certificates: &of_line };
            let mut verdict = judge(line, &seen, directory, &story);
            if came != must_come {
                verdict.wrong.push(format!("{came} certificates came, {must_come} must"));
            }
            verdicts.push(verdict);
        }
        if open == 0 || start.elapsed() > patience {
            return Ok(verdicts);
        }
        tokio::time::sleep(EVERY).await;
    }
}

pub(super) fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// How many certificates of a policy the server has seen replaced by newer ones before their end.
pub(super) async fn renewals(operator: &Operator, policy: &str) -> Result<usize> {
    let certificates = operator.certificates(policy).await?;
    Ok(certificates.iter().filter(|certificate| text(certificate, "/state") == "replaced").count())
}

/// The id of each line's enrollment in the REST API, found by what the device calls itself.
pub(super) async fn enrollments(operator: &Operator, lines: &[Line]) -> Result<Vec<Option<String>>> {
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

pub(super) fn by_enrollment(assignments: Vec<Value>) -> BTreeMap<String, Value> {
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

/// What the REST API says of a line.
struct Story<'a> {
    enrollment: Option<&'a str>,
    assignment: Option<&'a Value>,
    certificates: &'a [&'a Value],
}

fn judge(line: &Line, seen: &Seen, directory: &str, story: &Story<'_>) -> Verdict {
    let mut wrong = seen.complaints.clone();
    let held = seen.held.get(directory);
    if let Err(why) = line.expected.check(line.mac, held.map(|held| &held.acme)) {
        wrong.push(why);
    }
    if let (Expected::Profile { attest, .. }, Some(held)) = (line.expected, held)
        && held.attested != (attest == Attest::True)
    {
        wrong.push(format!("its key is {}attested", if held.attested { "" } else { "not " }));
    }
    match (story.assignment, story.enrollment) {
        (None, Some(id)) => wrong.push(format!("the API knows no assignment of enrollment {id}")),
        (None, None) => wrong.push(format!("the API knows no enrollment of «{}»", line.device_id)),
        (Some(assignment), _) => compare(line, held, assignment, &mut wrong),
    }
    prove(held, story.certificates, &mut wrong);
    let decided = story.assignment.map(decision).unwrap_or_default();
    let reason = line.expected.because().map_or("as the policy wishes", code);
    Verdict { silicon: line.silicon, decided, reason, wrong }
}

/// The one certificate that the API calls verified is the one on the device.
fn prove(held: Option<&Held>, certificates: &[&Value], wrong: &mut Vec<String>) {
    let verified: Vec<&&Value> = certificates.iter().filter(|c| text(c, "/state") == "verified").collect();
    match (held, verified.as_slice()) {
        (None, []) => {}
        (None, _) => wrong.push("the API calls a certificate verified that is not on the device".to_owned()),
        (Some(_), []) => wrong.push("the API has verified no certificate".to_owned()),
        (Some(held), [one]) => {
            let flag = |key: &str| one.get(key).and_then(Value::as_bool).unwrap_or_default();
            let same = text(one, "/certificate_sha256") == held.sha256
                && flag("hardware_bound") == held.acme.hardware_bound
                && flag("attested") == held.attested;
            if !same {
                wrong.push(format!("the API has verified {one}, the device has {held:?}"));
            }
        }
        (Some(_), more) => wrong.push(format!("the API calls {} certificates verified", more.len())),
    }
}

/// The API must say what the device saw.
fn compare(line: &Line, held: Option<&Held>, assignment: &Value, wrong: &mut Vec<String>) {
    let decision = assignment.get("decision").unwrap_or(&Value::Null);
    let (state, outcome) = (text(assignment, "/state"), text(decision, "/outcome"));
    let (must_be, must_decide) = match line.expected {
        Expected::Profile { .. } => ("verified", "open"),
        Expected::Refused(_) => ("blocked", "closed"),
    };
    if state != must_be || outcome != must_decide {
        let why = text(assignment, "/reason");
        wrong.push(format!("the API says «{state}» {why}, decided «{outcome}»; must be «{must_be}», «{must_decide}»"));
    }
    let codes = reasons(decision);
    if let Some(because) = line.expected.because()
        && !codes.iter().any(|found| found == code(because))
    {
        wrong.push(format!("the API's reasons are {codes:?}; {} is missing", code(because)));
    }
    let Some(acme) = held.map(|held| &held.acme) else { return };
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

    use super::*;

    const CA: &str = "https://ca.example/";

    fn line(expected: Expected) -> Line {
        let label = "iPhone17,2".to_owned();
        let (product, serial_number) = (("iPhone17,2", "18.1"), "S".to_owned());
        Line { label, silicon: "", mac: false, device_id: "U".to_owned(), user: None, product, serial_number, expected }
    }

    fn seen(attest: Option<bool>, attested: bool) -> Seen {
        let acme = Acme {
            directory_url: CA.to_owned(),
            client_identifier: "x".to_owned(),
            key_type: "ECSECPrimeRandom".to_owned(),
            key_size: 256,
            hardware_bound: true,
            attest,
            key_is_extractable: None,
            allow_all_apps_access: None,
        };
        let held = Held { acme, sha256: "aa".to_owned(), attested };
        Seen { held: [(CA.to_owned(), held)].into(), ..Seen::default() }
    }

    fn open(attest: &str) -> Value {
        json!({ "state": "verified", "decision": { "outcome": "open", "form": { "hardware_bound": true, "attest": attest } } })
    }

    fn verified(sha256: &str) -> Value {
        json!({ "state": "verified", "certificate_sha256": sha256, "hardware_bound": true, "attested": true })
    }

    fn wrong(expected: Expected, seen: &Seen, assignment: &Value, certificate: Option<&Value>) -> usize {
        let certificates: Vec<&Value> = certificate.into_iter().collect();
        let story = Story { enrollment: Some("id"), assignment: Some(assignment), certificates: &certificates };
        judge(&line(expected), seen, CA, &story).wrong.len()
    }

    const FULL: Expected = Expected::Profile { hardware_bound: true, attest: Attest::True, because: None };

    #[test]
    fn stories_that_agree_are_right() {
        assert_eq!(wrong(FULL, &seen(Some(true), true), &open("true"), Some(&verified("aa"))), 0);
        let closed = json!({ "state": "blocked", "decision": { "outcome": "closed", "reason": { "code": "payload_needs_newer_os" } } });
        assert_eq!(wrong(Expected::Refused(Because::OldSystem), &Seen::default(), &closed, None), 0);
    }

    #[test]
    fn any_story_that_differs_is_wrong() {
        let (good, one) = (seen(Some(true), true), verified("aa"));
        assert_eq!(wrong(FULL, &seen(None, false), &open("leave_out"), Some(&one)), 3, "Apple's table demands Attest");
        assert_eq!(wrong(FULL, &good, &open("false"), Some(&one)), 1, "the API says something else");
        assert_eq!(wrong(FULL, &Seen::default(), &open("true"), None), 1, "the device has no certificate");
        assert_eq!(wrong(FULL, &good, &open("true"), None), 1, "the API has seen none");
        assert_eq!(wrong(FULL, &good, &open("true"), Some(&verified("bb"))), 1, "the API has seen another");
        assert_eq!(wrong(FULL, &seen(Some(true), false), &open("true"), Some(&one)), 2, "the key is not attested");
        assert!(wrong(Expected::Refused(Because::OldSystem), &good, &open("true"), Some(&one)) > 2);
        let unexplained = json!({ "state": "blocked", "decision": { "outcome": "closed", "reason": { "code": "hardware_unknown" } } });
        assert_eq!(wrong(Expected::Refused(Because::OldSystem), &Seen::default(), &unexplained, None), 1);
        let nobody = Story { enrollment: None, assignment: None, certificates: &[] };
        assert_eq!(judge(&line(FULL), &Seen::default(), CA, &nobody).wrong.len(), 2);
    }
}
