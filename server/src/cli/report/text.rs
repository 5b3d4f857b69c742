//! The report in words.

use std::fmt::Write as _;

use rollout::{PolicyReport, RolloutReport};

use super::{Report, admits, minute, renewals, rollout_stages, silicon, silicon_words, stages, wait, within};

type Counts = Vec<(&'static str, &'static str, i64)>;

pub(super) fn render(report: &Report) -> String {
    let mut out = String::new();
    if report.policies.is_empty() {
        out.push_str("There is no ACME policy.\n");
    }
    for policy in &report.policies {
        one(&mut out, policy);
    }
    out
}

// Writing into a String cannot fail.
fn one(out: &mut String, p: &PolicyReport) {
    let _ = writeln!(out, "{}, revision {}, on {} enrollments, {}", p.policy, p.revision, p.total, minute(p.at));
    let _ = writeln!(out, "  authority     {}", p.authority);
    let _ = writeln!(out, "  state         {}", list(&stages(p, None)));
    for class in silicon(p) {
        let _ = writeln!(out, "  silicon       {}: {}", silicon_words(class), list(&stages(p, Some(class))));
    }
    for form in &p.forms {
        let bound = if form.hardware_bound { "hardware-bound" } else { "not hardware-bound" };
        let attested = if form.attested { "attested" } else { "not attested" };
        let _ = writeln!(out, "  certificates  {} {}, asked for as {bound}, {attested}", form.count, form.key_type);
    }
    if !p.ends.is_empty() {
        let soon = within(p, &p.ends, 30);
        let _ = writeln!(
            out,
            "  end           {soon} within 30 days; renewal due for {} within 30 days",
            within(p, &p.renewals_due, 30)
        );
    }
    let [proved, failed, open] = renewals(p);
    if proved + failed + open > 0 {
        let _ = writeln!(out, "  renewals      {proved} proved, {failed} failed, {open} under way in the last 30 days");
    }
    for reason in &p.reasons {
        let _ = writeln!(
            out,
            "  reason        {:>6}  {}: {} {}",
            reason.count, reason.code, reason.sentence, reason.remedy
        );
    }
    for note in &p.weaker {
        let _ = writeln!(out, "  weaker        {:>6}  {}: {}", note.count, note.code, note.sentence);
    }
    if let Some(rollout) = &p.rollout {
        steps(out, rollout);
    }
    out.push('\n');
}

fn steps(out: &mut String, r: &RolloutReport) {
    let why = r.why.as_deref().or(r.waits_for.as_deref()).map(|why| format!(": {why}")).unwrap_or_default();
    let _ = writeln!(
        out,
        "  rollout       revision {}, {}, step {} of {}{why}",
        r.revision,
        r.state,
        r.step,
        r.steps.len()
    );
    for step in &r.steps {
        let standing = step.standing.replace('_', " ");
        let (number, wait) = (step.number, wait(step.wait_minutes));
        let _ = writeln!(
            out,
            "    step {number}  {} ({standing}, {wait}): {}",
            admits(step),
            list(&rollout_stages(&step.stages))
        );
    }
    let _ = writeln!(out, "    failures  {} now, at most {} may", r.stages.failing, r.failures_borne);
    for happened in r.history.iter().rev() {
        let _ = writeln!(out, "    {}  {}", minute(happened.at), happened.summary);
    }
}

fn list(counts: &Counts) -> String {
    let named: Vec<String> =
        counts.iter().filter(|(.., count)| *count > 0).map(|(_, name, count)| format!("{count} {name}")).collect();
    if named.is_empty() { "nobody".to_owned() } else { named.join(", ") }
}
