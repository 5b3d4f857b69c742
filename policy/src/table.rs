//! The decision for every listed model, on both sides of every boundary of its operating system, in every kind of enrollment and on
//! every channel: `docs/acme-decision-table.md`, made by asking the gate. Models that are never told apart share a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mdm_core::enrollment::{Channel, EnrollmentKind};
use mdm_core::hardware::{self, AttestSupport, Claims, Model, OsVersion, Platform};
use mdm_core::profile::acme::{Attest, KeyKind};

use crate::gate::{Ask, GateFacts, Verdict, Wish, gate};

/// The versions at which Apple's pages change something for the payload, from the first that counts.
fn boundaries(platform: Platform) -> &'static [(u16, u16)] {
    match platform {
        Platform::Ios | Platform::Tvos => &[(0, 0), (16, 0)],
        Platform::Ipados => &[(0, 0), (16, 0), (16, 1)],
        Platform::Macos => &[(0, 0), (13, 1), (14, 0)],
        Platform::Visionos => &[(1, 0)],
        Platform::Watchos => &[(0, 0), (9, 0), (10, 0)],
    }
}

/// A stretch of versions in which nothing changes.
#[derive(Debug, Clone, Copy)]
struct Band {
    from: OsVersion,
    before: Option<OsVersion>,
}

impl Band {
    fn of(platform: Platform) -> Vec<Self> {
        let versions: Vec<_> =
            boundaries(platform).iter().map(|(major, minor)| OsVersion::new(*major, *minor)).collect();
        let next = versions.iter().skip(1).copied().map(Some).chain([None]);
        versions.iter().zip(next).map(|(from, before)| Self { from: *from, before }).collect()
    }

    fn text(self) -> String {
        match (self.from == OsVersion::new(0, 0), self.before) {
            (true, Some(before)) => format!("before {before}"),
            (true, None) => "any".to_owned(),
            (false, Some(before)) => format!("{}, before {before}", self.from),
            (false, None) => format!("{} and later", self.from),
        }
    }
}

/// How a device is enrolled, and on which channel the profile would come.
#[derive(Debug, Clone, Copy)]
struct Way {
    kind: EnrollmentKind,
    channel: Channel,
    /// The policy uses `HardwareBound` and `Attest` on the user channel of Macs.
    switched_on: bool,
}

/// Every way that there is on a platform.
fn ways(platform: Platform) -> Vec<Way> {
    let kinds: &[EnrollmentKind] = match platform {
        Platform::Ipados => {
            &[EnrollmentKind::Device, EnrollmentKind::Automated, EnrollmentKind::User, EnrollmentKind::SharedIpad]
        }
        _ => &[EnrollmentKind::Device, EnrollmentKind::Automated, EnrollmentKind::User],
    };
    let channels: &[(Channel, bool)] = match platform {
        Platform::Macos => &[(Channel::Device, false), (Channel::User, false), (Channel::User, true)],
        _ => &[(Channel::Device, false), (Channel::User, false)],
    };
    channels
        .iter()
        .flat_map(|(channel, switched_on)| {
            kinds.iter().map(|kind| Way { kind: *kind, channel: *channel, switched_on: *switched_on })
        })
        .collect()
}

/// What is decided for one device, as the table shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cells {
    /// Where the authority issues without an attestation.
    profile: String,
    /// Why it is no more than that.
    because: String,
    /// Where the authority wants an attestation.
    attested_only: String,
}

fn facts(model: &Model, platform: Platform, os: OsVersion, way: Way) -> GateFacts<'_> {
    let virtual_mac = model.product_name.starts_with("VirtualMac") || model.product_name.starts_with("ADP");
    let apple_silicon = virtual_mac || model.attest == AttestSupport::Supported;
    GateFacts {
        product_name: Some(&model.product_name),
        model: None,
        model_name: None,
        is_apple_silicon: (platform == Platform::Macos && os >= OsVersion::new(12, 0)).then_some(apple_silicon),
        os_version: Some(os),
        kind: way.kind,
        channel: way.channel,
        asked: true,
    }
}

fn cells(model: &Model, platform: Platform, os: OsVersion, way: Way) -> Cells {
    let ask = Ask {
        hardware_bound: Wish::WhenSupported,
        attest: Wish::WhenSupported,
        key: KeyKind::EcsecPrimeRandom(256),
        ca_accepts_unattested: true,
        user_channel_hardware_bound: way.switched_on,
        key_is_extractable: false,
        allow_all_apps_access: false,
    };
    let facts = facts(model, platform, os, way);
    let refused = "no profile".to_owned();
    let (profile, because) = match gate(&ask, &facts) {
        Verdict::Open(open) => {
            let attest = match open.attest {
                Attest::True => "true",
                Attest::False => "false",
                Attest::LeaveOut => "left out",
            };
            let notes: Vec<_> = open.notes.iter().map(|code| format!("`{code}`")).collect();
            (format!("HardwareBound {}, Attest {attest}", open.hardware_bound), notes.join(", "))
        }
        Verdict::Closed { reason, .. } => (refused.clone(), format!("`{reason}`")),
        Verdict::NeedFacts(_) => ("asked first".to_owned(), String::new()),
    };
    let attested_only = match gate(&Ask { ca_accepts_unattested: false, ..ask }, &facts) {
        Verdict::Open(_) => "the same".to_owned(),
        Verdict::Closed { .. } => refused,
        Verdict::NeedFacts(_) => "asked first".to_owned(),
    };
    Cells { profile, because, attested_only }
}

/// Every decision for a model, in the order of its bands and ways.
fn decisions(model: &Model, platform: Platform) -> Vec<Vec<Cells>> {
    let row = |band: Band| ways(platform).into_iter().map(|way| cells(model, platform, band.from, way)).collect();
    Band::of(platform).into_iter().map(row).collect()
}

/// The operating system of a listed model.
fn platform_of(model: &Model) -> Option<Platform> {
    hardware::classify(&Claims { product_name: Some(&model.product_name), ..Claims::default() }).platform
}

/// Models that are never told apart, with their decisions.
type Groups = BTreeMap<(Platform, AttestSupport, Vec<Vec<Cells>>), Vec<&'static Model>>;

fn groups() -> Groups {
    let mut groups = Groups::new();
    for model in hardware::models() {
        let Some(platform) = platform_of(model) else { continue };
        groups.entry((platform, model.attest, decisions(model, platform))).or_default().push(model);
    }
    groups
}

/// The table as it stands in `docs/acme-decision-table.md`.
pub fn markdown() -> String {
    let mut out = String::from(
        "# What each device gets\n\n\
         Generated from the gate (`policy/src/table.rs`) for every listed model, on both sides of every boundary of its operating \
         system, in every kind of enrollment and on every channel. The policy wishes `hardware_bound` and `attest` \
         `when_supported`: the strongest form that Apple's rules allow.\n\n\
         - *profile*: what leaves the server where the certificate authority issues without an attestation too.\n\
         - *because*: why it is no more than that; [the codes](acme-decision-reasons.md).\n\
         - *attested only*: what leaves where the authority wants an attestation (`ca_accepts_unattested` false). An authority that \
         compares the identifier with the attested serial number, as step-ca does, refuses User Enrollment besides: no serial \
         number is attested there.\n\
         - *user, switched on*: the user channel of a Mac with `user_channel_hardware_bound`.\n",
    );
    for ((platform, support, decisions), models) in groups() {
        let _ = write!(out, "\n## {platform}: {}\n\n{}\n\n", support_text(support), names(&models));
        out.push_str("| OS | enrollment | channel | profile | because | attested only |\n| --- | --- | --- | --- | --- | --- |\n");
        for (band, row) in Band::of(platform).into_iter().zip(&decisions) {
            for (cells, ways) in alike(platform, row) {
                let Cells { profile, because, attested_only } = cells;
                let (kinds, channels) = ways_text(&ways);
                let _ = writeln!(
                    out,
                    "| {} | {kinds} | {channels} | {profile} | {because} | {attested_only} |",
                    band.text()
                );
            }
        }
    }
    out
}

/// The ways of a row, gathered by what is decided, in the order in which they come.
fn alike<'a>(platform: Platform, row: &'a [Cells]) -> Vec<(&'a Cells, Vec<Way>)> {
    let mut gathered: Vec<(&'a Cells, Vec<Way>)> = Vec::new();
    for (way, cells) in ways(platform).into_iter().zip(row) {
        let same = |(other, ways): &&mut (&Cells, Vec<Way>)| {
            *other == cells
                && ways.first().is_some_and(|w| w.channel == way.channel && w.switched_on == way.switched_on)
        };
        match gathered.iter_mut().find(same) {
            Some((_, ways)) => ways.push(way),
            None => gathered.push((cells, vec![way])),
        }
    }
    gathered
}

fn ways_text(ways: &[Way]) -> (String, &'static str) {
    let kinds: Vec<_> = ways.iter().map(|way| way.kind.as_str()).collect();
    let channel = match ways.first() {
        Some(Way { channel: Channel::User, switched_on: true, .. }) => "user, switched on",
        Some(Way { channel: Channel::User, .. }) => "user",
        _ => "device",
    };
    (kinds.join(", "), channel)
}

fn support_text(support: AttestSupport) -> &'static str {
    match support {
        AttestSupport::Supported => "attestation supported",
        AttestSupport::Ignored => "attestation ignored",
        AttestSupport::MustBeFalse => "attestation must be false",
        AttestSupport::Unknown => "nobody knows",
    }
}

/// The identifiers, in the order of their numbers.
fn names(models: &[&Model]) -> String {
    let numbers = |name: &str| -> (String, Vec<u32>) {
        let digits = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
        let (prefix, rest) = name.split_at(digits);
        (prefix.to_owned(), rest.split(',').filter_map(|n| n.parse().ok()).collect())
    };
    let mut names: Vec<_> = models.iter().map(|m| m.product_name.as_str()).collect();
    names.sort_by_key(|name| numbers(name));
    let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/acme-decision-table.md");
        if std::env::var_os("ASSAY_BLESS").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        assert!(stored == markdown(), "ASSAY_BLESS=1 cargo test -p policy table writes it");
    }

    #[test]
    fn every_listed_model_is_in_the_table_once() {
        let table = markdown();
        for model in hardware::models() {
            let name = format!("`{}`", model.product_name);
            assert_eq!(table.matches(&name).count(), 1, "{name}");
        }
    }

    #[test]
    fn nothing_changes_inside_a_band() {
        // One model of each group stands for all of it: its members are alike on every boundary, and nothing else depends on
        // the model but its class.
        for ((platform, _, decisions), models) in groups() {
            for model in models.iter().take(3) {
                for (major, minor) in (0..32).flat_map(|major| (0..8).map(move |minor| (major, minor))) {
                    let os = OsVersion::new(major, minor);
                    let bands = Band::of(platform);
                    let Some(n) = bands.iter().position(|b| os >= b.from && b.before.is_none_or(|to| os < to)) else {
                        continue;
                    };
                    for (way, wanted) in ways(platform).into_iter().zip(&decisions[n]) {
                        assert_eq!(cells(model, platform, os, way), *wanted, "{} {os} {way:?}", model.product_name);
                    }
                }
            }
        }
    }

    #[test]
    fn the_strongest_form_is_where_apples_table_says_supported_and_nowhere_else() {
        for ((_, support, decisions), models) in groups() {
            let attested = decisions.iter().flatten().any(|c| c.profile.contains("Attest true"));
            assert_eq!(attested, support == AttestSupport::Supported, "{}", models[0].product_name);
            for cells in decisions.iter().flatten() {
                assert_eq!(cells.attested_only == "the same", cells.profile.contains("Attest true"), "{cells:?}");
            }
        }
    }
}
