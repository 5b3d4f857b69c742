//! A policy that reaches its devices ring by ring: the first ring fails, because the certificate authority is down, and the
//! rollout pauses by itself; it is mended, resumed, and ends.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::authorities::FACTORY;
use super::board::Board;
use super::drive::{Fleet, Line};
use super::judge::{by_enrollment, enrollments, text};
use super::operator::Operator;
use super::services::Services;

/// The policy's name.
pub(super) const POLICY: &str = "rings";
/// The label of its devices.
const LABEL: &str = "rings";
/// The label of those that are first.
const FIRST: &str = "first-ring";
/// How often the REST API is asked.
const EVERY: Duration = Duration::from_millis(500);

/// What must become of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Must {
    /// In the first ring: its profile fails at first, then it has a certificate.
    First,
    /// It has a certificate.
    Have,
    /// It is refused with this reason code.
    Refused(&'static str),
}

/// `ProductName` and `OSVersion` of a device of the fleet, and what must become of it.
type Member = (&'static str, &'static str, Must);

/// A device in User Enrollment.
const OWN: Member = ("iPhone18,4", "26.1", Must::Refused("template_not_in_user_enrollment"));

/// The devices of the policy, and what Apple's pages, step-ca's rules and the policy's own demands make of each.
const MEMBERS: [Member; 12] = [
    ("iPhone12,8", "17.6.1", Must::First),
    ("iPad16,3", "18.5", Must::First),
    ("iPhone14,5", "18.1", Must::Have),
    ("iPhone17,2", "26.1", Must::Have),
    ("Mac16,10", "15.6", Must::Have),
    ("Mac17,5", "26.4", Must::Have),
    ("AppleTV14,1", "18.5", Must::Have),
    ("RealityDevice14,1", "26.1", Must::Have),
    ("iPad7,11", "18.5", Must::Refused("attest_ignored_by_silicon")),
    ("Macmini8,1", "15.1", Must::Refused("attest_ignored_by_silicon")),
    // Apple attests the state of a Mac from macOS 14.2 on.
    ("MacBookAir10,1", "14.0", Must::Refused("value_not_attested")),
    OWN,
];

/// What the phase needs.
pub(super) struct Rings<'a> {
    pub(super) operator: &'a Operator,
    pub(super) services: &'a Services,
    pub(super) fleet: &'a Fleet,
    pub(super) board: &'a Board,
    pub(super) patience: Duration,
}

impl Rings<'_> {
    /// The whole phase; prints what came of it, and is true where nothing is wrong.
    pub(super) async fn run(&self) -> Result<bool> {
        let mut wrong = Vec::new();
        self.services.factory.set_down(true);
        self.assign().await.context("assigning the policy of the rings")?;
        self.board.say(&format!("the policy «{POLICY}» begins with its first ring; its certificate authority is down"));

        let paused = self.until("the rollout to pause by itself", "paused").await?;
        let why = text(&paused, "/why");
        self.board.say(&format!("the rollout has paused by itself: {why}"));
        self.held_back(&mut wrong)?;

        self.services.factory.set_down(false);
        let because = json!({ "why": "the certificate authority answers again" });
        self.operator.post(&format!("/api/v1/acme-policies/{POLICY}/rollout/resume"), &because).await?;
        self.board.say("the certificate authority answers again; the rollout is resumed");
        self.until("the end of the rollout", "done").await?;
        let stories = self.settled().await?;
        print(&why, &stories);
        wrong.extend(stories.into_iter().flat_map(|story| story.wrong));
        for wrong in &wrong {
            println!("    WRONG: {wrong}");
        }
        println!();
        Ok(wrong.is_empty())
    }

    /// The line of a device's own channel, and its number.
    fn line(&self, (product, os, _): Member) -> Result<(usize, &Line)> {
        let of = |(_, line): &(usize, &Line)| line.product == (product, os) && line.user.is_none();
        let found = self.fleet.lines.iter().enumerate().find(of);
        found.with_context(|| format!("the fleet has no {product} with {os}"))
    }

    /// Two labels that follow from serial numbers, a policy with two steps, a scope of a label and of one enrollment: the device in
    /// User Enrollment tells no serial number.
    async fn assign(&self) -> Result<()> {
        for (label, only_first) in [(LABEL, false), (FIRST, true)] {
            let mut serials = Vec::new();
            for member in MEMBERS {
                let wanted = !only_first || member.2 == Must::First;
                if wanted && member != OWN {
                    serials.push(self.line(member)?.1.serial_number.clone());
                }
            }
            let path = format!("/api/v1/label-rules/{label}");
            self.operator.put(&path, &json!({ "serial_numbers": serials })).await?;
            self.wait("a label to follow from its rule", async || {
                let rule = self.operator.get(&path).await?;
                let on = rule.get("enrollments").and_then(Value::as_u64).and_then(|on| usize::try_from(on).ok());
                Ok((on == Some(serials.len())).then_some(()))
            })
            .await?;
        }
        let ids = enrollments(self.operator, &self.fleet.lines).await?;
        let own = ids.get(self.line(OWN)?.0).cloned().flatten().context("the API does not know the own device")?;
        self.operator.create_policy(POLICY, &policy()).await?;
        let scope = json!({ "labels": [LABEL], "enrollment_ids": [own] });
        self.operator.put(&format!("/api/v1/acme-policies/{POLICY}/assignments"), &scope).await?;
        Ok(())
    }

    /// While the rollout is paused, only the first ring has tried, and nobody has a certificate.
    fn held_back(&self, wrong: &mut Vec<String>) -> Result<()> {
        let directory = self.services.factory.directory_url();
        for member in MEMBERS {
            let seen = self.fleet.seen(self.line(member)?.0);
            if seen.held.contains_key(&directory) {
                wrong.push(format!("{} has a certificate of an authority that is down", member.0));
            }
            if (seen.failed > 0) != (member.2 == Must::First) {
                wrong.push(format!("{} had {} failures in the first ring", member.0, seen.failed));
            }
        }
        Ok(())
    }

    /// Waits until every device is what it must be, or patience ends; tells what became of each.
    async fn settled(&self) -> Result<Vec<Story>> {
        let start = Instant::now();
        loop {
            let stories = self.stories().await?;
            if stories.iter().all(|story| story.wrong.is_empty()) || start.elapsed() > self.patience {
                return Ok(stories);
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn stories(&self) -> Result<Vec<Story>> {
        let ids = enrollments(self.operator, &self.fleet.lines).await?;
        let assignments = by_enrollment(self.operator.assignments(POLICY).await?);
        let certificates = self.operator.certificates(POLICY).await?;
        let directory = self.services.factory.directory_url();
        let mut stories = Vec::new();
        for member in MEMBERS {
            let (number, line) = self.line(member)?;
            let id = ids.get(number).cloned().flatten().unwrap_or_default();
            let assignment = assignments.get(&id).cloned().unwrap_or_default();
            let (state, reason) = (text(&assignment, "/state"), text(&assignment, "/reason"));
            let verified =
                certificates.iter().find(|c| text(c, "/enrollment_id") == id && text(c, "/state") == "verified");
            let held = self.fleet.seen(number).held.get(&directory).cloned();
            let mut wrong = Vec::new();
            let mut is = |good: bool, what: String| wrong.extend((!good).then_some(format!("{}: {what}", member.0)));
            match member.2 {
                Must::First | Must::Have => {
                    is(state == "verified", format!("the API says «{state}» {reason}"));
                    let same = held.as_ref().is_some_and(|held| {
                        held.attested
                            && held.acme.client_identifier == line.serial_number
                            && verified.is_some_and(|found| text(found, "/certificate_sha256") == held.sha256)
                    });
                    is(same, format!("the device has {held:?}, the API has verified {verified:?}"));
                }
                Must::Refused(code) => {
                    is(
                        state == "blocked" && reason == code,
                        format!("the API says «{state}» {reason}, must be {code}"),
                    );
                    is(held.is_none() && verified.is_none(), "it has a certificate".to_owned());
                }
            }
            let outcome = if reason.is_empty() { state } else { format!("{state}: {reason}") };
            stories.push(Story { label: line.label.clone(), first: member.2 == Must::First, outcome, wrong });
        }
        Ok(stories)
    }

    async fn until(&self, what: &str, state: &str) -> Result<Value> {
        self.wait(what, async || {
            let rollout = self.operator.get(&format!("/api/v1/acme-policies/{POLICY}/rollout")).await?;
            Ok((text(&rollout, "/state") == state).then_some(rollout))
        })
        .await
    }

    async fn wait<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            if start.elapsed() > self.patience {
                bail!("waited for {what} for {} s in vain", self.patience.as_secs());
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// What became of one device.
struct Story {
    label: String,
    first: bool,
    outcome: String,
    wrong: Vec<String>,
}

/// As step-ca wants it: the identifier and the common name are the serial number, and nothing goes without an attestation. The
/// policy itself wants the device's own state attested too.
fn policy() -> Value {
    json!({
        "name": POLICY,
        "certificate_authority": FACTORY,
        "client_identifier": "{serial}",
        "subject": [[["CN", "{serial}"]]],
        "hardware_bound": "required",
        "attest": "required",
        "require": { "identity": true, "sip_enabled": true, "secure_boot": "full", "no_third_party_kexts": true },
        "rollout": {
            "steps": [{ "label": FIRST, "wait_minutes": 0 }, { "percent": 100, "wait_minutes": 0 }],
            "failure_budget": { "devices": 0, "percent": 0 },
            "verified_percent": 100,
        },
    })
}

fn print(why: &str, stories: &[Story]) {
    println!();
    println!("Rings: the first one failed, the rollout paused by itself ({why}), was resumed, and is done.");
    for story in stories {
        println!("{:<54} {:<6} {}", story.label, if story.first { "first" } else { "rest" }, story.outcome);
    }
}
