//! `assay report`: how the policies fare, in words, or as one HTML page with charts.
//!
//! Everything comes from `GET /api/v1/acme-policies/{name}/report`. The page has no script and asks for nothing from elsewhere, so
//! that it can be put away or sent on.

mod chart;
mod html;
mod text;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use mdm_core::time::Timestamp;
use rollout::PolicyReport;

use super::client::{Client, Connection, escaped};

/// What `assay report` takes.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Only this policy; may be given more than once. All where it is left out.
    #[arg(long = "policy", value_name = "NAME")]
    policies: Vec<String>,
    /// Write an HTML page with charts into this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// The figures of some policies, taken at about the same time.
#[derive(Debug, Clone)]
pub struct Report {
    /// When the first were taken; none where there is no policy.
    pub at: Option<Timestamp>,
    /// One for each policy, in the order of their names.
    pub policies: Vec<PolicyReport>,
}

impl Report {
    /// Asks a server. Every policy where none is named.
    pub async fn fetch(client: &Client, names: &[String]) -> Result<Self> {
        let mut names = names.to_vec();
        if names.is_empty() {
            let all = client.all("/api/v1/acme-policies").await?;
            names = all.iter().filter_map(|p| p.get("name")?.as_str().map(str::to_owned)).collect();
        }
        let mut policies = Vec::new();
        for name in names {
            let path = format!("/api/v1/acme-policies/{}/report", escaped(&name));
            let answer = client.get(&path).await?;
            policies
                .push(serde_json::from_value::<PolicyReport>(answer).with_context(|| format!("{path}: not a report"))?);
        }
        Ok(Self { at: policies.iter().map(|p| p.at).min(), policies })
    }

    /// The report in words, for a terminal.
    pub fn text(&self) -> String {
        text::render(self)
    }

    /// The report as one HTML page.
    pub fn html(&self) -> String {
        html::render(self)
    }
}

/// Runs `assay report`.
pub async fn run(args: Args) -> Result<()> {
    let report = Report::fetch(&args.connection.client()?, &args.policies).await?;
    match &args.html {
        Some(file) => {
            std::fs::write(file, report.html()).with_context(|| format!("cannot write {}", file.display()))?;
            println!("{} policies: {}", report.policies.len(), file.display());
        }
        None => print!("{}", report.text()),
    }
    Ok(())
}

/// How many assignments are in which stage, in the order in which a chart has them: the key, its name, and the states that it
/// gathers.
const STAGES: [(&str, &str, &[&str]); 8] = [
    ("verified", "verified", &["verified"]),
    ("installed", "installed, not proved yet", &["installed"]),
    ("installing", "being installed", &["installing"]),
    ("waiting", "waiting", &["assigned", "awaiting_facts"]),
    ("held", "held by the rollout", &["held"]),
    ("refused", "refused", &["blocked"]),
    ("failing", "failing", &["failed"]),
    ("leaving", "leaving", &["removing"]),
];

/// The assignments of a policy by stage; of one class of silicon where one is given.
fn stages(policy: &PolicyReport, silicon: Option<&str>) -> Vec<(&'static str, &'static str, i64)> {
    let of = |states: &[&str]| {
        let counts = policy.states.iter().filter(|c| silicon.is_none_or(|s| c.silicon == s));
        counts.filter(|c| states.contains(&c.state.as_str())).map(|c| c.count).sum()
    };
    STAGES.iter().map(|(key, name, states)| (*key, *name, of(states))).collect()
}

/// The stages of a rollout, in the same order and by the same keys.
fn rollout_stages(s: &rollout::standing::Stages) -> Vec<(&'static str, &'static str, i64)> {
    let counts = [s.verified, s.installed, s.installing, s.waiting, s.held, s.refused, s.failing, 0];
    let mut named: Vec<_> = STAGES.iter().zip(counts).map(|((key, name, _), count)| (*key, *name, count)).collect();
    named.pop();
    named
}

/// The classes of silicon that a report knows, in the order of Apple's table.
fn silicon(policy: &PolicyReport) -> Vec<&str> {
    let order = ["supported", "ignored", "must_be_false", "unknown"];
    let place = |class: &str| order.iter().position(|known| *known == class).unwrap_or(order.len());
    let mut classes: Vec<&str> = policy.states.iter().map(|c| c.silicon.as_str()).collect();
    classes.sort_unstable_by_key(|class| (place(class), *class));
    classes.dedup();
    classes
}

/// What a class of silicon means, in a few words.
fn silicon_words(class: &str) -> &str {
    match class {
        "supported" => "attests (A11, A12X and later, Apple silicon)",
        "ignored" => "binds keys, ignores Attest (A10X and earlier, T2)",
        "must_be_false" => "software keys only (no Secure Enclave)",
        "unknown" => "unknown model",
        "not_decided" => "not decided yet",
        other => other,
    }
}

/// Who a step of a rollout admits, in words.
fn admits(step: &rollout::report::StepReport) -> String {
    match (step.percent, &step.label) {
        (Some(percent), _) => format!("{percent} %"),
        (None, Some(label)) => format!("label {label}"),
        (None, None) => String::new(),
    }
}

/// A moment to the minute, in UTC.
fn minute(at: Timestamp) -> String {
    let text = at.to_rfc3339();
    format!("{} UTC", text.get(..16).unwrap_or(&text).replace('T', " "))
}

/// How long a step waits, in words.
fn wait(minutes: u32) -> String {
    match minutes {
        0 => "no wait".to_owned(),
        m if m % 1440 == 0 => format!("{} d", m / 1440),
        m if m % 60 == 0 => format!("{} h", m / 60),
        m => format!("{m} min"),
    }
}

/// The renewals of the last 30 days: succeeded, failed, under way.
fn renewals(policy: &PolicyReport) -> [i64; 3] {
    let of = |states: &[&str]| states.iter().filter_map(|s| policy.renewals.get(*s)).sum();
    [of(&["proved"]), of(&["failed"]), of(&["queued", "delivered", "acknowledged"])]
}

/// How many of these days lie within so many days from the report; days that are over count.
fn within(policy: &PolicyReport, days: &[rollout::report::DayCount], ahead: i64) -> i64 {
    let today = policy.at.unix_seconds().div_euclid(86_400);
    days.iter().filter(|d| chart::day_number(&d.day).is_some_and(|day| day - today <= ahead)).map(|d| d.count).sum()
}

#[cfg(test)]
mod tests;
