//! The report as one HTML page: no script, nothing from elsewhere, readable on paper too.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use rollout::report::ReasonCount;
use rollout::{PolicyReport, RolloutReport};

use super::{Report, admits, chart, minute, renewals, rollout_stages, silicon, silicon_words, stages, wait, within};

const STYLE: &str = include_str!("style.css");

pub(super) fn render(report: &Report) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { "Assay report" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "ACME certificates" }
                    p.lead {
                        @match report.at {
                            Some(at) => { "As of " (minute(at)) "." }
                            None => { "There is no ACME policy." }
                        }
                    }
                    (tiles(&report.policies))
                    @if report.policies.len() > 1 { (contents(&report.policies)) }
                }
                @for policy in &report.policies { (section(policy)) }
                footer { p { "Made by " code { "assay report --html" } ". States, stages and reasons are those of the REST API." } }
            }
        }
    };
    page.into_string()
}

/// The figures of all policies together.
fn tiles(policies: &[PolicyReport]) -> Markup {
    let mut sums = [0; 5];
    for policy in policies {
        let counts = stages(policy, None);
        let of = |key: &str| counts.iter().filter(|c| c.0 == key).map(|c| c.2).sum::<i64>();
        let figures = [policy.total, of("verified"), of("refused"), of("failing"), within(policy, &policy.ends, 30)];
        for (sum, figure) in sums.iter_mut().zip(figures) {
            *sum += figure;
        }
    }
    let names = ["assignments", "verified", "refused", "failing", "certificates end within 30 days"];
    let classes = ["", "verified", "refused", "failing", ""];
    html! {
        ul.tiles {
            @for ((sum, name), class) in sums.iter().zip(names).zip(classes) {
                li.(class) { strong { (sum) } " " (name) }
            }
        }
    }
}

fn contents(policies: &[PolicyReport]) -> Markup {
    html! {
        table.contents {
            thead { tr { th { "Policy" } th { "State" } th.n { "Assignments" } th { "Rollout" } } }
            tbody {
                @for p in policies {
                    tr {
                        td { a href=(format!("#{}", p.policy)) { (p.policy) } }
                        td.wide { (chart::bar(&p.policy, &stages(p, None), 14)) }
                        td.n { (p.total) }
                        td { @if let Some(r) = &p.rollout { (badge(r)) } }
                    }
                }
            }
        }
    }
}

fn section(p: &PolicyReport) -> Markup {
    let counts = stages(p, None);
    html! {
        section id=(p.policy) {
            h2 { (p.policy) " " small { "revision " (p.revision) } }
            p.fine { "Certificate authority: " code { (p.authority) } }
            @if p.total == 0 { p { "The policy is on no device." } }
            @if p.total > 0 {
                h3 { "Where the devices stand" }
                (chart::bar("Assignments by state", &counts, 28))
                (chart::legend(&counts))
                (by_silicon(p))
            }
            @if let Some(r) = &p.rollout { (rollout_section(r)) }
            (reasons("Why devices are refused or failing", "refused", &p.reasons))
            (reasons("Why devices get a weaker form", "installing", &p.weaker))
            (certificates(p))
            (renewals_section(p))
        }
    }
}

fn by_silicon(p: &PolicyReport) -> Markup {
    html! {
        h3 { "By class of silicon" }
        table.bars {
            tbody {
                @for class in silicon(p) {
                    @let counts = stages(p, Some(class));
                    tr {
                        th scope="row" { (silicon_words(class)) }
                        td.wide { (chart::bar(silicon_words(class), &counts, 18)) }
                        td.n { (counts.iter().map(|c| c.2).sum::<i64>()) }
                    }
                }
            }
        }
    }
}

fn badge(r: &RolloutReport) -> Markup {
    html! { span.badge.(r.state) { (r.state.replace('_', " ")) } }
}

fn rollout_section(r: &RolloutReport) -> Markup {
    let admitted = r.stages.total() - r.stages.held;
    html! {
        h3 { "Rollout of revision " (r.revision) " " (badge(r)) }
        @if let Some(why) = &r.why { p.why { (why) "." } }
        @if let Some(waits) = &r.waits_for { p.fine { "It waits for " (waits) "." } }
        p.fine {
            @match r.from_revision {
                Some(from) => { "Devices that are not admitted yet keep revision " (from) "." }
                None => { "Devices that are not admitted yet have nothing of this policy." }
            }
            " Failures: " (r.stages.failing) " of " (admitted) " admitted devices; at most " (r.failures_borne) " may."
        }
        table.bars {
            thead { tr { th { "Step" } th { "Devices by stage" } th.n { "Devices" } th { "Wait" } } }
            tbody {
                @for step in &r.steps {
                    @let counts = rollout_stages(&step.stages);
                    tr.(step.standing) {
                        th scope="row" { (step.number) ". " (admits(step)) br; small { (step.standing.replace('_', " ")) } }
                        td.wide { (chart::bar(&format!("Step {}", step.number), &counts, 18)) }
                        td.n { (step.stages.total()) }
                        td { (wait(step.wait_minutes)) }
                    }
                }
            }
        }
        (chart::legend(&rollout_stages(&r.stages)))
        @if !r.history.is_empty() {
            ol.history {
                @for happened in r.history.iter().rev() {
                    li { time { (minute(happened.at)) } " " (happened.summary) " " small { (happened.actor) } }
                }
            }
        }
    }
}

fn reasons(title: &str, class: &str, reasons: &[ReasonCount]) -> Markup {
    let most = reasons.iter().map(|r| r.count).max().unwrap_or(1);
    html! {
        @if !reasons.is_empty() {
            h3 { (title) }
            table.bars {
                thead { tr { th { "Reason" } th { "Devices" } th.n { "" } th { "What to do" } } }
                tbody {
                    @for r in reasons {
                        tr {
                            th scope="row" { code { (r.code) } br; small { (r.sentence) } }
                            td.some { (chart::bar(&r.code, &[(class, "devices", r.count), ("none", "less", most - r.count)], 14)) }
                            td.n { (r.count) }
                            td.text { (r.remedy) }
                        }
                    }
                }
            }
        }
    }
}

fn certificates(p: &PolicyReport) -> Markup {
    let form = |hardware: bool, attested: bool| -> i64 {
        p.forms.iter().filter(|f| f.hardware_bound == hardware && f.attested == attested).map(|f| f.count).sum()
    };
    let parts = [
        ("verified", "asked for as hardware-bound and attested", form(true, true)),
        ("installing", "asked for as hardware-bound, not attested", form(true, false)),
        ("held", "asked for with a software key", form(false, false) + form(false, true)),
    ];
    let today = p.at.unix_seconds().div_euclid(86_400);
    html! {
        @if !p.forms.is_empty() {
            h3 { "Certificates that were seen on devices" }
            (chart::bar("Certificates by form", &parts, 18))
            (chart::legend(&parts))
            @if !p.ends.is_empty() {
                h4 { "When they end" }
                (chart::over_time("Ends of certificates", "verified", &p.ends, today))
            }
            @if !p.renewals_due.is_empty() {
                h4 { "When they are to be renewed" }
                (chart::over_time("Renewals to come", "installing", &p.renewals_due, today))
            }
        }
    }
}

fn renewals_section(p: &PolicyReport) -> Markup {
    let [proved, failed, open] = renewals(p);
    let parts = [("verified", "proved", proved), ("installing", "under way", open), ("failing", "failed", failed)];
    html! {
        @if proved + failed + open > 0 {
            h3 { "Renewals of the last 30 days" }
            (chart::bar("Renewals", &parts, 18))
            (chart::legend(&parts))
        }
    }
}
