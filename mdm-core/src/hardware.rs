//! What a device is: its silicon's class in Apple's ACME attestation table, its platform, its OS version.
//!
//! Source: `com.apple.security.acme`, note "ACME attestation hardware support". The class depends only on the
//! prefix and the major number of `ProductName`; that small table decides, and `data/soc.csv` (433 identifiers)
//! gives names for display and is the oracle of the tests. An identifier that nobody knows is never guessed to
//! be supported.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::enrollment::text_enum;

/// The row of Apple's attestation support table that a chip falls in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttestSupport {
    /// Nobody can say: treated as one that gives no attestation.
    Unknown,
    /// `Attest` (and, on a Mac, `HardwareBound`) must be false: T1 and earlier, virtual machines.
    MustBeFalse,
    /// `Attest` is accepted and ignored: A10X and earlier, T2, S3 and earlier.
    Ignored,
    /// `Attest` is honoured: A11, A12 (Apple TV), S4 and later, Apple silicon.
    Supported,
}

text_enum!(AttestSupport {
    Unknown = "unknown",
    MustBeFalse = "must_be_false",
    Ignored = "ignored",
    Supported = "supported",
});

/// The operating system of a device, as Apple's schema names it (iPadOS apart, for acme.md C4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Platform {
    /// iPhone and iPod touch.
    #[serde(rename = "iOS")]
    Ios,
    /// iPad.
    #[serde(rename = "iPadOS")]
    Ipados,
    /// Mac.
    #[serde(rename = "macOS")]
    Macos,
    /// Apple TV.
    #[serde(rename = "tvOS")]
    Tvos,
    /// Apple Vision Pro.
    #[serde(rename = "visionOS")]
    Visionos,
    /// Apple Watch.
    #[serde(rename = "watchOS")]
    Watchos,
}

text_enum!(Platform {
    Ios = "iOS",
    Ipados = "iPadOS",
    Macos = "macOS",
    Tvos = "tvOS",
    Visionos = "visionOS",
    Watchos = "watchOS",
});

/// On which ground a class was found; shown to the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The identifier is in the published list.
    Listed,
    /// Its major number is known, this minor number is not.
    Major,
    /// Newer than the newest known of its kind: Apple has never gone back.
    NewerThanKnown,
    /// A virtual machine or a developer kit.
    Virtual,
    /// A Mac of an unknown kind: `IsAppleSilicon` decided.
    AppleSiliconFlag,
    /// Nothing fits, or there is no `ProductName`.
    None,
}

/// What is known of a device's hardware from what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Hardware {
    /// Its class.
    pub attest: AttestSupport,
    /// Its operating system, if the identifier tells.
    pub platform: Option<Platform>,
    /// On which ground.
    pub basis: Basis,
    /// `IsAppleSilicon` and the identifier contradict each other; the more careful class was taken.
    pub disagreement: bool,
    /// The row of the published list, for display.
    pub model: Option<&'static Model>,
}

/// One row of `soc.csv`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Model {
    /// `ProductName`, such as `iPhone10,3`.
    pub product_name: String,
    /// `iPhone`, `iPad`, `Mac`, …
    pub family: String,
    /// What it is sold as.
    pub marketing_name: String,
    /// Its chip.
    pub chip: String,
    /// The row of Apple's table.
    pub attest: AttestSupport,
    /// A Secure Enclave can hold its key (T2 or Apple silicon for Macs).
    pub hardware_bound_possible: bool,
}

const SOC_CSV: &str = include_str!("../data/soc.csv");

static MODELS: LazyLock<BTreeMap<String, Model>> = LazyLock::new(|| {
    SOC_CSV.lines().skip(1).filter_map(Model::from_line).map(|m| (m.product_name.clone(), m)).collect()
});

impl Model {
    fn from_line(line: &str) -> Option<Self> {
        let fields = csv_fields(line);
        let [product_name, family, marketing_name, chip, attest, bound, _source] = fields.as_slice() else {
            return None;
        };
        Some(Self {
            product_name: product_name.clone(),
            family: family.clone(),
            marketing_name: marketing_name.clone(),
            chip: chip.clone(),
            attest: AttestSupport::from_text(attest)?,
            hardware_bound_possible: bound == "yes",
        })
    }
}

/// The fields of one line of comma separated values, where a field may be quoted.
fn csv_fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

/// Every listed model, by `ProductName`.
pub fn models() -> impl Iterator<Item = &'static Model> {
    MODELS.values()
}

/// The listed model with this `ProductName`.
pub fn model(product_name: &str) -> Option<&'static Model> {
    MODELS.get(product_name)
}

/// One kind of identifier: majors up to `must_be_false` must be false, up to `ignored` are ignored, from
/// `supported` on are supported; what lies between is unknown. `newest` is the newest major that is listed.
struct Kind {
    prefix: &'static str,
    platform: Platform,
    must_be_false: u32,
    ignored: u32,
    supported: u32,
    newest: u32,
}

const NEVER: u32 = u32::MAX;

const fn kind(prefix: &'static str, platform: Platform, bounds: (u32, u32, u32), newest: u32) -> Kind {
    Kind { prefix, platform, must_be_false: bounds.0, ignored: bounds.1, supported: bounds.2, newest }
}

// soc-rules.md, "The class depends only on (prefix, major number)".
const KINDS: [Kind; 16] = [
    kind("iPhone", Platform::Ios, (0, 9, 10), 19),
    kind("iPad", Platform::Ipados, (0, 7, 8), 17),
    kind("iPod", Platform::Ios, (0, NEVER, NEVER), 9),
    kind("AppleTV", Platform::Tvos, (0, 6, 11), 16),
    kind("Watch", Platform::Watchos, (0, 3, 4), 8),
    kind("RealityDevice", Platform::Visionos, (0, 0, 1), 17),
    kind("Mac", Platform::Macos, (0, 0, 13), 17),
    kind("MacBook", Platform::Macos, (NEVER, NEVER, NEVER), 10),
    kind("MacBookAir", Platform::Macos, (7, 9, 10), 10),
    kind("MacBookPro", Platform::Macos, (14, 16, 17), 18),
    kind("MacPro", Platform::Macos, (6, 7, NEVER), 7),
    kind("Macmini", Platform::Macos, (7, 8, 9), 9),
    kind("iMac", Platform::Macos, (19, 20, 21), 21),
    kind("iMacPro", Platform::Macos, (0, 1, NEVER), 1),
    kind("Xserve", Platform::Macos, (NEVER, NEVER, NEVER), 3),
    kind("PowerMac", Platform::Macos, (NEVER, NEVER, NEVER), 12),
];

/// Virtual machines and developer kits, whatever `IsAppleSilicon` says of them.
const VIRTUAL: [&str; 6] = ["VirtualMac", "VMware", "Parallels", "VMM", "IntelVM", "ADP"];

/// `iPhone10,3` as (`iPhone`, 10); anything of another shape is nothing.
fn split(product_name: &str) -> Option<(&str, u32)> {
    let digits = product_name.find(|c: char| c.is_ascii_digit())?;
    let (prefix, numbers) = product_name.split_at_checked(digits)?;
    let (major, minor) = numbers.split_once(',')?;
    let whole = |n: &str| (!n.is_empty() && n.len() <= 4 && n.bytes().all(|b| b.is_ascii_digit())).then_some(());
    whole(major)?;
    whole(minor)?;
    major.parse().ok().filter(|m| *m > 0).map(|m| (prefix, m))
}

/// What a device says of itself, for [`classify`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Claims<'a> {
    /// `ProductName`, such as `Mac15,3`.
    pub product_name: Option<&'a str>,
    /// `IsAppleSilicon` (macOS 12 and later).
    pub is_apple_silicon: Option<bool>,
    /// `Model`, used only to tell a Mac.
    pub model: Option<&'a str>,
    /// `ModelName`, used only to tell a Mac.
    pub model_name: Option<&'a str>,
}

impl Claims<'_> {
    fn says_mac(&self) -> bool {
        [self.product_name, self.model, self.model_name]
            .into_iter()
            .flatten()
            .any(|name| ["Mac", "iMac", "Xserve"].iter().any(|p| name.starts_with(p)))
            || self.is_apple_silicon.is_some()
    }
}

/// Finds the class of a device, in the decision order of soc-rules.md (steps 1 to 7).
pub fn classify(claims: &Claims<'_>) -> Hardware {
    let listed = claims.product_name.and_then(model);
    if claims.product_name.is_some_and(|n| VIRTUAL.iter().any(|v| n.starts_with(v))) {
        return Hardware {
            attest: AttestSupport::MustBeFalse,
            platform: Some(Platform::Macos),
            basis: Basis::Virtual,
            disagreement: false,
            model: listed,
        };
    }
    let found = claims.product_name.and_then(split).and_then(|(prefix, major)| {
        let kind = KINDS.iter().find(|k| k.prefix == prefix)?;
        Some((kind, major))
    });
    let (platform, attest, basis) = match found {
        Some((kind, major)) => {
            let attest = if major <= kind.must_be_false {
                AttestSupport::MustBeFalse
            } else if major <= kind.ignored {
                AttestSupport::Ignored
            } else if major >= kind.supported {
                AttestSupport::Supported
            } else {
                AttestSupport::Unknown
            };
            let basis = match attest {
                AttestSupport::Unknown => Basis::None,
                _ if listed.is_some() => Basis::Listed,
                _ if major > kind.newest => Basis::NewerThanKnown,
                _ => Basis::Major,
            };
            (Some(kind.platform), attest, basis)
        }
        None if claims.says_mac() => (Some(Platform::Macos), AttestSupport::Unknown, Basis::None),
        None => (None, AttestSupport::Unknown, Basis::None),
    };
    let mut hardware = Hardware { attest, platform, basis, disagreement: false, model: listed };
    if platform == Some(Platform::Macos) {
        match (hardware.attest, claims.is_apple_silicon) {
            (AttestSupport::Unknown, flag) => {
                hardware.basis = Basis::AppleSiliconFlag;
                hardware.attest =
                    if flag == Some(true) { AttestSupport::Supported } else { AttestSupport::MustBeFalse };
            }
            (AttestSupport::Supported, Some(false)) => {
                hardware.disagreement = true;
                hardware.attest = AttestSupport::MustBeFalse;
            }
            (AttestSupport::Ignored | AttestSupport::MustBeFalse, Some(true)) => {
                hardware.disagreement = true;
            }
            _ => {}
        }
    }
    hardware
}

/// A version of an operating system: major, minor and patch number, ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OsVersion {
    /// 17 of 17.5.1.
    pub major: u16,
    /// 5 of 17.5.1.
    pub minor: u16,
    /// 1 of 17.5.1.
    pub patch: u16,
}

impl OsVersion {
    /// The version `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor, patch: 0 }
    }
}

impl fmt::Display for OsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch > 0 { write!(f, ".{}", self.patch) } else { Ok(()) }
    }
}

/// A text that is not an OS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an OS version is one to three numbers joined by dots, such as 17.5.1")]
pub struct InvalidOsVersion;

impl FromStr for OsVersion {
    type Err = InvalidOsVersion;

    /// Reads `17`, `17.5`, `17.5.1`, and `16.5.1 (c)` as 16.5.1: what follows a blank is a rapid security response.
    fn from_str(text: &str) -> Result<Self, InvalidOsVersion> {
        let numbers = text.trim().split(' ').next().unwrap_or_default();
        let mut parts = [0u16; 3];
        let mut count = 0;
        for (n, part) in numbers.split('.').enumerate() {
            let slot = parts.get_mut(n).ok_or(InvalidOsVersion)?;
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(InvalidOsVersion);
            }
            *slot = part.parse().map_err(|_| InvalidOsVersion)?;
            count += 1;
        }
        let [major, minor, patch] = parts;
        if count == 0 || major == 0 { Err(InvalidOsVersion) } else { Ok(Self { major, minor, patch }) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(product_name: &str) -> Hardware {
        classify(&Claims { product_name: Some(product_name), ..Claims::default() })
    }

    #[test]
    fn all_433_rows_of_soc_csv_get_the_class_that_the_list_gives_them() {
        assert_eq!(models().count(), 433);
        for model in models() {
            let found = named(&model.product_name);
            assert_eq!(found.attest, model.attest, "{}", model.product_name);
            assert_eq!(found.model.map(|m| &m.product_name), Some(&model.product_name));
            let family = match found.platform.unwrap() {
                Platform::Ios if model.product_name.starts_with("iPod") => "iPod",
                Platform::Ios => "iPhone",
                Platform::Ipados => "iPad",
                Platform::Macos => "Mac",
                Platform::Tvos => "AppleTV",
                Platform::Visionos => "RealityDevice",
                Platform::Watchos => "Watch",
            };
            assert!(
                model.family.replace(' ', "").starts_with(family) || family == "RealityDevice",
                "{model:?} {family}"
            );
            if found.platform == Some(Platform::Macos) {
                let bound = !matches!(found.attest, AttestSupport::MustBeFalse);
                assert_eq!(bound, model.hardware_bound_possible, "{}", model.product_name);
            }
        }
    }

    #[test]
    fn the_newest_major_of_each_kind_is_the_one_listed() {
        for kind in KINDS.iter().filter(|k| k.prefix != "PowerMac") {
            let newest = models()
                .filter_map(|m| split(&m.product_name))
                .filter(|(p, _)| *p == kind.prefix)
                .map(|(_, m)| m)
                .max();
            assert_eq!(newest, Some(kind.newest), "{}", kind.prefix);
        }
    }

    #[test]
    fn unknown_models_follow_the_rules_and_are_never_guessed_to_be_supported() {
        assert_eq!(named("iPhone20,1").attest, AttestSupport::Supported);
        assert_eq!(named("iPhone20,1").basis, Basis::NewerThanKnown);
        assert_eq!(named("iPhone9,99").attest, AttestSupport::Ignored);
        assert_eq!(named("iPhone9,99").basis, Basis::Major);
        assert_eq!(named("AppleTV8,1").attest, AttestSupport::Unknown);
        for strange in [
            "",
            "iPhone",
            "iPhone17",
            "iPhone,1",
            "iPhone0,1",
            "iPhone99999999999,1",
            "HomePod1,1",
            "ıPhone17,1",
            "iPhone17,1x",
        ] {
            assert_eq!(named(strange).attest, AttestSupport::Unknown, "{strange}");
        }
        assert_eq!(classify(&Claims::default()).platform, None);
        assert_eq!(named("MacPro8,1").attest, AttestSupport::MustBeFalse);
        assert_eq!(named("Mac12,1").attest, AttestSupport::MustBeFalse);
    }

    #[test]
    fn virtual_machines_are_virtual_whatever_the_silicon_flag_says() {
        for name in ["VirtualMac2,1", "VMware7,1", "VMware20,1", "Parallels-ARM", "VMM-x86_64", "ADP3,2", "IntelVM"] {
            let claims = Claims { product_name: Some(name), is_apple_silicon: Some(true), ..Claims::default() };
            assert_eq!(classify(&claims).attest, AttestSupport::MustBeFalse, "{name}");
            assert_eq!(classify(&claims).basis, Basis::Virtual);
        }
    }

    #[test]
    fn the_silicon_flag_decides_for_unknown_macs_and_never_raises_a_known_one() {
        let with = |product_name, flag| {
            classify(&Claims { product_name: Some(product_name), is_apple_silicon: flag, ..Claims::default() })
        };
        assert_eq!(with("MacStudio1,1", Some(true)).attest, AttestSupport::Supported);
        assert_eq!(with("MacStudio1,1", Some(false)).attest, AttestSupport::MustBeFalse);
        assert_eq!(with("MacStudio1,1", None).attest, AttestSupport::MustBeFalse);
        assert_eq!(with("MacBookPro16,1", Some(true)).attest, AttestSupport::Ignored);
        assert!(with("MacBookPro16,1", Some(true)).disagreement);
        assert_eq!(with("Mac15,3", Some(false)).attest, AttestSupport::MustBeFalse);
        assert!(with("Mac15,3", Some(false)).disagreement);
        assert!(!with("Mac15,3", Some(true)).disagreement);
        let by_model_name = Claims { model_name: Some("MacBook Pro"), ..Claims::default() };
        assert_eq!(classify(&by_model_name).platform, Some(Platform::Macos));
    }

    #[test]
    fn os_versions_are_read_and_ordered_as_numbers() {
        let v = |s: &str| s.parse::<OsVersion>();
        assert!(v("13.1").unwrap() < v("13.10").unwrap());
        assert!(v("9.3.5").unwrap() < v("16").unwrap());
        assert_eq!(v("16.5.1 (c)").unwrap().to_string(), "16.5.1");
        assert_eq!(v("14").unwrap(), OsVersion::new(14, 0));
        for bad in ["", " ", "x", "17.", ".1", "17.5.1.2", "-1", "+17", "99999.1", "0.1", "17,5"] {
            assert_eq!(v(bad), Err(InvalidOsVersion), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_classified_without_a_panic(name in ".{0,40}", flag in any::<Option<bool>>()) {
            let hardware = classify(&Claims { product_name: Some(&name), is_apple_silicon: flag, ..Claims::default() });
            if hardware.basis == Basis::None {
                prop_assert!(hardware.attest == AttestSupport::Unknown);
            }
        }

        #[test]
        fn a_version_prints_as_it_reads(major in 1u16.., minor: u16, patch: u16) {
            let version = OsVersion { major, minor, patch };
            prop_assert_eq!(version.to_string().parse(), Ok(version));
        }
    }
}
