//! `assay explain`: what a policy gives a device and why, quoting the rule; or what it gives a whole scope, counted by reason.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use serde_json::{Value as Json, json};

use super::client::{Client, Connection, escaped, printable};

/// Arguments of `assay explain`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    /// The policy's name.
    policy: String,
    /// The device, by the id of its enrollment.
    #[arg(long, value_name = "ID", conflicts_with_all = ["serial", "udid"])]
    enrollment: Option<String>,
    /// The device, by its serial number.
    #[arg(long, conflicts_with = "udid")]
    serial: Option<String>,
    /// The device, by its UDID or by Apple's EnrollmentID.
    #[arg(long)]
    udid: Option<String>,
}

/// Whom to explain a policy for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Everybody in the policy's scope, counted by reason.
    Everybody,
    /// One enrollment, by its id.
    Enrollment(String),
    /// A device and its users, by its serial number.
    Serial(String),
    /// A device and its users, by its UDID or Apple's EnrollmentID.
    Udid(String),
}

/// Runs `assay explain`.
pub async fn run(args: Args) -> Result<()> {
    let client = args.connection.client()?;
    let who = match (args.enrollment, args.serial, args.udid) {
        (Some(id), _, _) => Who::Enrollment(id),
        (None, Some(serial), _) => Who::Serial(serial),
        (None, None, Some(udid)) => Who::Udid(udid),
        (None, None, None) => Who::Everybody,
    };
    print!("{}", explain(&client, &args.policy, &who).await?);
    Ok(())
}

/// What a policy gives and why, in words.
pub async fn explain(client: &Client, policy: &str, who: &Who) -> Result<String> {
    let found = match who {
        Who::Everybody => {
            let path = format!("/api/v1/acme-policies/{}/dry-run", escaped(policy));
            return Ok(counts(policy, &client.post(&path, &json!({})).await?));
        }
        Who::Enrollment(id) => vec![id.clone()],
        Who::Serial(serial) => enrollments(client, "serial", serial).await?,
        Who::Udid(udid) => enrollments(client, "udid", udid).await?,
    };
    let mut out = String::new();
    for id in found {
        let path = format!("/api/v1/enrollments/{}/acme-decision?policy={}", escaped(&id), escaped(policy));
        out.push_str(&decision(policy, &id, &client.get(&path).await?));
    }
    Ok(out)
}

/// The enrollments of a device that are not over: its own and those of its users.
async fn enrollments(client: &Client, key: &str, value: &str) -> Result<Vec<String>> {
    let found = client.all(&format!("/api/v1/enrollments?{key}={}&state=enrolled", escaped(value))).await?;
    let ids: Vec<String> = found.iter().map(|e| text(e, "id")).collect();
    if ids.is_empty() {
        bail!("no device with this {key} is enrolled");
    }
    Ok(ids)
}

/// A text, fit for a terminal: some come from devices.
fn text(value: &Json, key: &str) -> String {
    printable(value.get(key).and_then(Json::as_str).unwrap_or_default())
}

/// A rule with its source and its remedy, indented.
fn rule(out: &mut String, title: &str, note: &Json) {
    let _ = writeln!(out, "  {title}: {}", text(note, "code"));
    for (name, key) in [("rule", "sentence"), ("source", "source"), ("to do", "remedy")] {
        let _ = writeln!(out, "    {name:<7} {}", text(note, key));
    }
}

fn form(form: &Json) -> String {
    let flag = |key: &str| form.get(key).and_then(Json::as_bool);
    let yes = |b: bool| if b { "true" } else { "false" };
    let mut words = vec![format!("HardwareBound={}", yes(flag("hardware_bound").unwrap_or(false)))];
    words.push(match text(form, "attest").as_str() {
        "leave_out" => "Attest left out".to_owned(),
        value => format!("Attest={value}"),
    });
    for (name, key) in [("KeyIsExtractable", "key_is_extractable"), ("AllowAllAppsAccess", "allow_all_apps_access")] {
        words.extend(flag(key).map(|b| format!("{name}={}", yes(b))));
    }
    words.join(", ")
}

fn decision(policy: &str, enrollment: &str, decision: &Json) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{policy} on {enrollment}");
    if let Some(device) = decision.get("device") {
        let model = [text(device, "product_name"), text(device, "marketing_name"), text(device, "chip")];
        let model: Vec<String> = model.into_iter().filter(|word| !word.is_empty()).collect();
        let _ = writeln!(out, "  device: {}", if model.is_empty() { "unknown".to_owned() } else { model.join(", ") });
        let (platform, os) = (text(device, "platform"), text(device, "os_version"));
        let _ = writeln!(out, "  system: {} {}", platform, if os.is_empty() { "(version unknown)" } else { &os });
        let (support, basis) = (text(device, "attest_support"), text(device, "basis"));
        let _ = writeln!(out, "  silicon: {support} ({basis})");
        let _ = writeln!(out, "  enrollment: {}, {} channel", text(device, "kind"), text(device, "channel"));
    }
    match text(decision, "outcome").as_str() {
        "open" => {
            let given = decision.get("form").map(form).unwrap_or_default();
            let _ = writeln!(out, "  gets the profile: {given}");
        }
        "need_facts" => {
            let missing = decision.get("missing").and_then(Json::as_array).into_iter().flatten();
            let missing: Vec<String> = missing.filter_map(Json::as_str).map(printable).collect();
            let _ = writeln!(out, "  is asked first: {}", missing.join(", "));
        }
        _ => {
            let _ = writeln!(out, "  gets nothing");
        }
    }
    if let Some(reason) = decision.get("reason") {
        rule(&mut out, "because", reason);
    }
    for (name, key) in [("demanded by", "demand"), ("detail", "detail")] {
        if !text(decision, key).is_empty() {
            let _ = writeln!(out, "    {name}: {}", text(decision, key));
        }
    }
    for note in decision.get("notes").and_then(Json::as_array).into_iter().flatten() {
        rule(&mut out, "note", note);
    }
    out
}

fn counts(policy: &str, run: &Json) -> String {
    let figure = |value: &Json, key: &str| value.get(key).and_then(Json::as_u64).unwrap_or(0);
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{policy}: {} enrollments in the scope: {} get the profile, {} get nothing, {} are asked first",
        figure(run, "total"),
        figure(run, "open"),
        figure(run, "closed"),
        figure(run, "need_facts")
    );
    for group in run.get("counts").and_then(Json::as_array).into_iter().flatten() {
        let what = match (text(group, "outcome").as_str(), group.get("form")) {
            ("open", Some(given)) => format!("get {}", form(given)),
            ("need_facts", _) => "are asked first".to_owned(),
            _ => "get nothing".to_owned(),
        };
        let _ = writeln!(out, "{:>8} {what}", figure(group, "count"));
        if let Some(reason) = group.get("rule") {
            rule(&mut out, "because", reason);
        }
        for note in group.get("notes").and_then(Json::as_array).into_iter().flatten() {
            rule(&mut out, "note", note);
        }
        let examples = group.get("examples").and_then(Json::as_array).into_iter().flatten();
        let examples: Vec<String> = examples.filter_map(Json::as_str).map(printable).collect();
        let _ = writeln!(out, "    such as {}", examples.join(", "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_quotes_its_rule() {
        let told = decision(
            "wifi",
            "id",
            &json!({"outcome": "closed", "demand": "attest", "notes": [],
                "reason": {"code": "attest_ignored_by_silicon", "sentence": "The chip ignores Attest.", "source": "table", "remedy": "Leave it out."},
                "device": {"product_name": "iPad7,5", "marketing_name": "iPad (6th generation)", "chip": "A10", "attest_support": "ignored",
                    "basis": "listed", "platform": "iPadOS", "os_version": "17.0", "kind": "device", "channel": "device"}}),
        );
        for line in [
            "  device: iPad7,5, iPad (6th generation), A10",
            "  system: iPadOS 17.0",
            "  silicon: ignored (listed)",
            "  gets nothing",
            "  because: attest_ignored_by_silicon",
            "    rule    The chip ignores Attest.",
            "    source  table",
            "    to do   Leave it out.",
            "    demanded by: attest",
        ] {
            assert!(told.lines().any(|l| l == line), "{line} is not in\n{told}");
        }
    }

    #[test]
    fn th_61_what_a_device_says_does_not_reach_the_terminal_raw() {
        let told = decision(
            "wifi",
            "id",
            &json!({"outcome": "closed", "detail": "\u{1b}]0;title\u{7}\nwifi on another",
                "missing": ["\u{9b}31m"], "device": {"product_name": "Mac14,2\u{1b}[2J", "os_version": "1\r4"}}),
        );
        assert!(!told.chars().any(|c| c.is_control() && c != '\n'), "{told:?}");
        assert!(told.contains("  device: Mac14,2\u{fffd}[2J\n"), "{told:?}");
        assert!(!told.lines().any(|line| line.starts_with("wifi on another")), "{told:?}");
    }

    #[test]
    fn an_open_gate_names_the_keys() {
        let told = decision(
            "wifi",
            "id",
            &json!({"outcome": "open", "form": {"hardware_bound": true, "attest": "leave_out", "key_is_extractable": false}}),
        );
        assert!(
            told.contains("gets the profile: HardwareBound=true, Attest left out, KeyIsExtractable=false"),
            "{told}"
        );
        let told = decision("wifi", "id", &json!({"outcome": "need_facts", "missing": ["OSVersion"]}));
        assert!(told.contains("is asked first: OSVersion"));
    }

    #[test]
    fn a_scope_is_counted_by_reason() {
        let run = json!({"total": 3, "open": 2, "closed": 1, "need_facts": 0, "counts": [
            {"outcome": "open", "form": {"hardware_bound": true, "attest": "true"}, "count": 2, "examples": ["a", "b"]},
            {"outcome": "closed", "reason": "virtual_machine", "rule": {"code": "virtual_machine", "sentence": "No."}, "count": 1, "examples": ["c"]}]});
        let told = counts("wifi", &run);
        assert!(
            told.starts_with("wifi: 3 enrollments in the scope: 2 get the profile, 1 get nothing, 0 are asked first\n")
        );
        assert!(told.contains("       2 get HardwareBound=true, Attest=true\n    such as a, b\n"), "{told}");
        assert!(told.contains("  because: virtual_machine\n    rule    No.\n"), "{told}");
    }
}
