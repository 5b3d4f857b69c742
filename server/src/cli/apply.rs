//! `assay apply`: writes certificate authorities, rules of labels and ACME policies from a file, after it has shown what changes.
//!
//! The differences are the server's, from a dry run; what is written is exactly what was shown, or nothing. The same file again changes
//! nothing.

use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use serde_json::Value as Json;

use super::client::{Client, Connection, escaped};
use super::file;

/// Arguments of `assay apply`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    /// The file: TOML, or JSON where its name ends in .json; - for the standard input.
    #[arg(long, short)]
    file: PathBuf,
    /// Write without asking.
    #[arg(long, short)]
    yes: bool,
    /// Only show what would change.
    #[arg(long)]
    dry_run: bool,
}

/// What became of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All is as the document says already.
    Nothing,
    /// What was shown is written.
    Written,
    /// Nothing was written, since nobody agreed.
    Declined,
}

/// Runs `assay apply`.
pub async fn run(args: Args) -> Result<ExitCode> {
    let document = file::read(&args.file)?;
    let client = args.connection.client()?;
    let agreed = |_: &str| -> Result<bool> {
        if args.dry_run {
            return Ok(false);
        }
        if args.yes {
            return Ok(true);
        }
        if !std::io::stdin().is_terminal() || args.file.as_os_str() == "-" {
            bail!("nothing was written: without a person to ask, --yes is needed");
        }
        print!("Write these changes? [y/N] ");
        std::io::stdout().flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    };
    let outcome = apply(&client, &document, |text| print!("{text}"), agreed).await?;
    Ok(match outcome {
        Outcome::Nothing | Outcome::Written => ExitCode::SUCCESS,
        Outcome::Declined if args.dry_run => ExitCode::SUCCESS,
        Outcome::Declined => {
            println!("Nothing was written.");
            ExitCode::FAILURE
        }
    })
}

/// Shows by `tell` what a document changes, and writes it where `agreed` says so. Nothing is written that was not shown.
pub async fn apply(
    client: &Client,
    document: &Json,
    tell: impl Fn(&str),
    agreed: impl FnOnce(&str) -> Result<bool>,
) -> Result<Outcome> {
    let seen = client.post("/api/v1/apply?dry_run=true", document).await?;
    let changes = seen.get("changes").and_then(Json::as_array).context("the answer has no changes")?;
    let text = describe(changes);
    tell(&text);
    if changes.iter().all(|change| text_of(change, "done") == "nothing") {
        return Ok(Outcome::Nothing);
    }
    if !agreed(&text)? {
        return Ok(Outcome::Declined);
    }
    let plan = text_of(&seen, "plan");
    client.post(&format!("/api/v1/apply?plan={}", escaped(plan)), document).await?;
    tell("Written.\n");
    Ok(Outcome::Written)
}

fn text_of<'a>(value: &'a Json, key: &str) -> &'a str {
    value.get(key).and_then(Json::as_str).unwrap_or_default()
}

/// The changes in words, one object after the other, and a line that counts them.
pub fn describe(changes: &[Json]) -> String {
    let mut out = String::new();
    let (mut new, mut changed, mut same) = (0, 0, 0);
    for change in changes {
        let mark = match text_of(change, "done") {
            "create" => {
                new += 1;
                '+'
            }
            "change" => {
                changed += 1;
                '~'
            }
            _ => {
                same += 1;
                '='
            }
        };
        let object = text_of(change, "object").replace('_', " ");
        let _ = writeln!(out, "{mark} {object} {}", text_of(change, "name"));
        for difference in change.get("differences").and_then(Json::as_array).into_iter().flatten() {
            let field = text_of(difference, "field");
            let _ = match (difference.get("before"), difference.get("after")) {
                (Some(before), Some(after)) => writeln!(out, "    {field}: {} -> {}", shown(before), shown(after)),
                (None, Some(after)) => writeln!(out, "    {field}: {}", shown(after)),
                (Some(before), None) => writeln!(out, "    {field}: {} -> (left out)", shown(before)),
                (None, None) => Ok(()),
            };
        }
        if let Some(scope) = change.get("scope") {
            let figure = |key: &str| scope.get(key).and_then(Json::as_u64).unwrap_or(0);
            let (targets, assigned, leaving) = (figure("targets"), figure("assigned"), figure("leaving"));
            let _ = writeln!(out, "    enrollments: {targets} in the scope, {assigned} come, {leaving} leave");
        }
        out.push_str(&findings(change));
    }
    let _ = writeln!(out, "{new} new, {changed} changed, {same} as they are");
    out
}

/// What a policy comes to, reason by reason: kinds of devices that it refuses or serves in a weaker form.
fn findings(change: &Json) -> String {
    let mut refused: Vec<(String, Vec<String>)> = Vec::new();
    let mut weaker: Vec<(String, Vec<String>)> = Vec::new();
    let add = |list: &mut Vec<(String, Vec<String>)>, why: String, device: String| match list
        .iter_mut()
        .find(|(known, _)| *known == why)
    {
        Some((_, devices)) if devices.contains(&device) => {}
        Some((_, devices)) => devices.push(device),
        None => list.push((why, vec![device])),
    };
    let why = |note: &Json| format!("{}: {}", text_of(note, "code"), text_of(note, "sentence"));
    for finding in change.get("findings").and_then(Json::as_array).into_iter().flatten() {
        let kind = text_of(finding, "kind").replace('_', " ");
        let device = format!("{} ({kind}, {} channel)", text_of(finding, "device"), text_of(finding, "channel"));
        if let Some(reason) = finding.get("reason") {
            add(&mut refused, why(reason), device);
        } else {
            for note in finding.get("notes").and_then(Json::as_array).into_iter().flatten() {
                add(&mut weaker, why(note), device.clone());
            }
        }
    }
    let mut out = String::new();
    for (title, list) in [("refused", refused), ("note", weaker)] {
        for (why, devices) in list {
            let _ = writeln!(out, "    {title}: {why}\n        {}", devices.join("; "));
        }
    }
    out
}

/// A value in one line; long texts, such as certificates, by their beginning.
fn shown(value: &Json) -> String {
    const MOST: usize = 100;
    let text = value.to_string();
    if text.chars().count() <= MOST {
        return text;
    }
    let start: String = text.chars().take(MOST).collect();
    format!("{start}… ({} characters)", text.chars().count())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_are_told_field_by_field() {
        let finding = |device: &str, reason: Json| json!({"device": device, "kind": "device", "channel": "device", "reason": reason});
        let reason = json!({"code": "virtual_machine", "sentence": "No."});
        let text = describe(&[
            json!({"object": "certificate_authority", "name": "step", "done": "create", "differences": [{"field": "kind", "after": "step_ca"}]}),
            json!({"object": "acme_policy", "name": "wifi", "done": "change",
                "differences": [{"field": "attest", "before": "when_supported", "after": "required"}, {"field": "usage_flags", "before": 1}],
                "scope": {"targets": 5, "assigned": 2, "leaving": 1},
                "findings": [finding("virtual Mac", reason.clone()), finding("Mac", reason)]}),
            json!({"object": "label_rule", "name": "macs", "done": "nothing"}),
        ]);
        assert_eq!(
            text,
            "+ certificate authority step\n    kind: \"step_ca\"\n\
             ~ acme policy wifi\n    attest: \"when_supported\" -> \"required\"\n    usage_flags: 1 -> (left out)\n    \
             enrollments: 5 in the scope, 2 come, 1 leave\n    \
             refused: virtual_machine: No.\n        virtual Mac (device, device channel); Mac (device, device channel)\n\
             = label rule macs\n1 new, 1 changed, 1 as they are\n"
        );
    }

    #[test]
    fn a_long_value_is_cut() {
        let text = shown(&json!("x".repeat(500)));
        assert!(text.len() < 160 && text.contains("502 characters"), "{text}");
    }
}
