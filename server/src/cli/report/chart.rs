//! Charts as inline SVG: pure functions from counts to markup. Whatever a chart shows by colour also stands beside it in words.

use maud::{Markup, html};
use mdm_core::time::Timestamp;
use rollout::report::DayCount;

/// The width of every chart, in its own units.
const WIDTH: f64 = 720.0;
/// The most columns of a chart over time.
const COLUMNS: i64 = 36;

fn float(n: i64) -> f64 {
    f64::from(i32::try_from(n).unwrap_or(i32::MAX))
}

fn number(n: f64) -> String {
    format!("{n:.1}")
}

/// One bar, made of parts: the class of each, its name and its count.
pub(super) fn bar(label: &str, parts: &[(&str, &str, i64)], height: u32) -> Markup {
    let total: i64 = parts.iter().map(|(.., count)| *count).sum();
    let named: Vec<String> =
        parts.iter().filter(|p| p.2 > 0).map(|(_, name, count)| format!("{count} {name}")).collect();
    let words = format!("{label}: {}", if named.is_empty() { "nobody".to_owned() } else { named.join(", ") });
    let mut x = 0.0;
    let mut rects = Vec::new();
    for (class, name, count) in parts.iter().filter(|p| p.2 > 0) {
        let width = WIDTH * float(*count) / float(total.max(1));
        rects.push((*class, format!("{count} {name}"), x, width));
        x += width;
    }
    html! {
        svg.bar viewBox=(format!("0 0 {WIDTH} {height}")) preserveAspectRatio="none" role="img" aria-label=(words) {
            rect.ground width=(WIDTH) height=(height) {}
            @for (class, words, x, width) in rects {
                rect class=(class) x=(number(x)) width=(number(width)) height=(height) { title { (words) } }
            }
        }
    }
}

/// What the parts of bars mean, with their counts.
pub(super) fn legend(parts: &[(&str, &str, i64)]) -> Markup {
    html! {
        ul.legend {
            @for (class, name, count) in parts.iter().filter(|p| p.2 > 0) {
                li { span.swatch.(class) {} strong { (count) } " " (name) }
            }
        }
    }
}

/// Days since 1970 of a day such as `2026-11-22`.
pub(super) fn day_number(day: &str) -> Option<i64> {
    Timestamp::from_rfc3339(&format!("{day}T00:00:00Z")).map(|at| at.unix_seconds().div_euclid(86_400))
}

fn day_text(day: i64) -> String {
    Timestamp::from_unix_seconds(day.saturating_mul(86_400)).to_rfc3339().chars().take(10).collect()
}

/// One column of a chart over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    /// Its first day.
    pub(super) from: String,
    /// Its last day.
    pub(super) to: String,
    /// How many.
    pub(super) count: i64,
    /// It is over.
    pub(super) past: bool,
}

/// Gathers days into at most 36 columns of equally many days.
pub(super) fn columns(days: &[DayCount], today: i64) -> Vec<Column> {
    let known: Vec<(i64, i64)> = days.iter().filter_map(|d| Some((day_number(&d.day)?, d.count))).collect();
    let (Some(first), Some(last)) = (known.iter().map(|d| d.0).min(), known.iter().map(|d| d.0).max()) else {
        return Vec::new();
    };
    let span = last - first + 1;
    let wide = [1, 7, 14, 30, 91, 365].into_iter().find(|wide| span <= wide * COLUMNS).unwrap_or(span / COLUMNS + 1);
    let mut from = first;
    let mut columns = Vec::new();
    while from <= last {
        let to = from + wide - 1;
        let count = known.iter().filter(|(day, _)| (from..=to).contains(day)).map(|(_, count)| count).sum();
        columns.push(Column { from: day_text(from), to: day_text(to), count, past: to < today });
        from = to + 1;
    }
    columns
}

/// Columns over time.
pub(super) fn over_time(label: &str, class: &str, days: &[DayCount], today: i64) -> Markup {
    let columns = columns(days, today);
    let most = columns.iter().map(|c| c.count).max().unwrap_or(0).max(1);
    let (top, ground, height) = (18.0, 138.0, 160.0);
    let slot = WIDTH / float(i64::try_from(columns.len().max(8)).unwrap_or(COLUMNS));
    let wide = (slot * 0.7).min(48.0);
    let words = format!("{label}: {} in all", columns.iter().map(|c| c.count).sum::<i64>());
    let every = (columns.len() / 6).max(1);
    let over: i64 = columns.iter().filter(|c| c.past).map(|c| c.count).sum();
    let room = |c: &Column| c.count == most || float(i64::from(c.count.max(1).ilog10()) + 1) * 8.0 < slot;
    html! {
        svg.time viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-label=(words) {
            line.axis x1="0" x2=(WIDTH) y1=(ground) y2=(ground) {}
            @for (n, c) in columns.iter().enumerate() {
                @let x = slot * float(i64::try_from(n).unwrap_or(0));
                @let tall = (ground - top) * float(c.count) / float(most);
                @let dates = if c.from == c.to { c.from.clone() } else { format!("{} to {}", c.from, c.to) };
                @if c.count > 0 {
                    rect class=(if c.past { "failing" } else { class }) x=(number(x)) y=(number(ground - tall)) width=(number(wide)) height=(number(tall)) rx="2" {
                        title { (dates) ": " (c.count) }
                    }
                    @if room(c) {
                        text x=(number(x + wide / 2.0)) y=(number(ground - tall - 5.0)) text-anchor="middle" { (c.count) }
                    }
                }
                @if n % every == 0 && x < WIDTH - 70.0 {
                    text.date x=(number(x)) y=(height - 6.0) { (c.from) }
                }
            }
        }
        @if over > 0 { p.fine { "In red: " (over) " on days that are over." } }
    }
}
