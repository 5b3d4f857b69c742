//! What people see: a live table on a terminal, plain lines elsewhere, and the summary.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::drive::Line;
use super::took;

/// How far a channel has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its first TokenUpdate was taken.
    Enrolled,
    /// It has said `NotNow`.
    NotNow,
    /// It has answered a DeviceInformation.
    Asked,
    /// It has taken a profile.
    Sent,
    /// The server has seen the acknowledgement.
    Acknowledged,
    /// The server has seen the certificate.
    Verified,
}

/// The outcome of one line.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    pub(super) silicon: &'static str,
    pub(super) decided: String,
    pub(super) reason: &'static str,
    pub(super) wrong: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct Row {
    label: String,
    enrolled: bool,
    not_now: bool,
    asked: bool,
    decided: Option<String>,
    sent: bool,
    acknowledged: bool,
    verified: bool,
    bar: Option<ProgressBar>,
}

impl Row {
    fn text(&self) -> String {
        let mark = |on: bool, word: &'static str| if on { word } else { "·" };
        format!(
            "{:<54} {:<8} {:<7} {:<5} {:<4} {:<3} {:<8} {}",
            self.label,
            mark(self.enrolled, "enrolled"),
            mark(self.not_now, "NotNow"),
            mark(self.asked, "asked"),
            mark(self.sent, "sent"),
            mark(self.acknowledged, "ack"),
            mark(self.verified, "verified"),
            self.decided.as_deref().unwrap_or("·"),
        )
    }
}

struct State {
    start: Instant,
    rows: Vec<Row>,
    screen: Option<(MultiProgress, ProgressBar)>,
}

/// The table.
#[derive(Clone)]
pub(super) struct Board(Arc<Mutex<State>>);

impl Board {
    /// Live on a terminal, otherwise lines.
    pub(super) fn new() -> Self {
        let screen = std::io::stderr().is_terminal().then(|| {
            let all = MultiProgress::new();
            let style = ProgressStyle::with_template("{elapsed_precise} [{bar:40}] {pos}/{len} {msg}");
            let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            let bar = all.add(bar);
            (all, bar)
        });
        Self(Arc::new(Mutex::new(State { start: Instant::now(), rows: Vec::new(), screen })))
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One line of text above the table.
    pub(super) fn say(&self, text: &str) {
        self.with(|state| match &state.screen {
            // A terminal that is gone takes nothing more.
            Some((all, _)) => drop(all.println(text)),
            None => eprintln!("{text}"),
        });
    }

    /// Adds a device's lines.
    pub(super) fn add(&self, lines: &[Line]) {
        self.with(|state| {
            for line in lines {
                let mut row = Row { label: line.label.clone(), ..Row::default() };
                if let Some((all, bar)) = &state.screen {
                    let style = ProgressStyle::with_template("{msg}");
                    let own = ProgressBar::new(1).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                    let own = all.add(own);
                    own.set_message(row.text());
                    row.bar = Some(own);
                    bar.inc_length(1);
                }
                state.rows.push(row);
            }
        });
    }

    /// A channel has come further.
    pub(super) fn reached(&self, line: usize, stage: Stage) {
        self.change(line, |row| {
            let flag = match stage {
                Stage::Enrolled => &mut row.enrolled,
                Stage::NotNow => &mut row.not_now,
                Stage::Asked => &mut row.asked,
                Stage::Sent => &mut row.sent,
                Stage::Acknowledged => &mut row.acknowledged,
                Stage::Verified => &mut row.verified,
            };
            !std::mem::replace(flag, true)
        });
    }

    /// The server has decided.
    pub(super) fn decided(&self, line: usize, decision: &str) {
        self.change(line, |row| {
            let new = row.decided.as_deref() != Some(decision);
            row.decided = Some(decision.to_owned());
            new
        });
    }

    fn change(&self, line: usize, change: impl FnOnce(&mut Row) -> bool) {
        self.with(|state| {
            let Some(row) = state.rows.get_mut(line) else { return };
            if !change(row) {
                return;
            }
            match &row.bar {
                Some(bar) => bar.set_message(row.text()),
                None => eprintln!("{:>6.1}s {}", state.start.elapsed().as_secs_f64(), row.text()),
            }
            let count = |of: fn(&Row) -> bool| state.rows.iter().filter(|row| of(row)).count();
            let done = count(|row| row.verified || row.decided.as_deref().is_some_and(|d| d.starts_with("no profile")));
            if let Some((_, bar)) = &state.screen {
                bar.set_position(done as u64);
                bar.set_message(format!(
                    "enrolled {}  asked {}  decided {}  sent {}  acknowledged {}  verified {}",
                    count(|row| row.enrolled),
                    count(|row| row.asked),
                    count(|row| row.decided.is_some()),
                    count(|row| row.sent),
                    count(|row| row.acknowledged),
                    count(|row| row.verified),
                ));
            }
        });
    }

    /// Prints the table and the summary; true where nothing is wrong.
    pub(super) fn finish(&self, verdicts: &[Verdict], pushes: u64) -> bool {
        self.with(|state| {
            if let Some((all, bar)) = state.screen.take() {
                for own in state.rows.iter_mut().filter_map(|row| row.bar.take()) {
                    own.finish_and_clear();
                }
                bar.finish_and_clear();
                // A terminal that is gone needs no clearing.
                let _ = all.clear();
            }
            println!(
                "{:<54} {:<8} {:<7} {:<5} {:<4} {:<3} {:<8} decision and reason",
                "device", "", "", "asked", "sent", "ack", ""
            );
            for (row, verdict) in state.rows.iter().zip(verdicts) {
                println!("{}", row.text());
                for wrong in &verdict.wrong {
                    println!("    WRONG: {wrong}");
                }
            }
            summary(verdicts);
            let bad = verdicts.iter().filter(|verdict| !verdict.wrong.is_empty()).count();
            let all = verdicts.len();
            println!();
            println!("{pushes} pushes were accepted by the stand-in of APNs; {} in all.", took(state.start));
            if bad == 0 {
                println!(
                    "All {all} outcomes are those that Apple's table demands; each certificate that the API calls verified is on its device."
                );
            } else {
                println!("{bad} of {all} outcomes are wrong.");
            }
            bad == 0
        })
    }
}

/// Counts by class of silicon and reason.
fn summary(verdicts: &[Verdict]) {
    let mut counts: BTreeMap<(&str, &str, &str), (usize, usize)> = BTreeMap::new();
    for verdict in verdicts {
        let what = verdict.decided.split(':').next().unwrap_or_default();
        let entry = counts.entry((verdict.silicon, what, verdict.reason)).or_default();
        entry.0 += 1;
        entry.1 += usize::from(verdict.wrong.is_empty());
    }
    println!();
    println!("{:<40} {:<32} {:<44} right/all", "silicon", "outcome", "reason");
    for ((silicon, what, reason), (all, right)) in counts {
        println!("{silicon:<40} {what:<32} {reason:<44} {right}/{all}");
    }
}
