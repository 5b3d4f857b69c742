//! The rule of a label: what must hold of a device for it to have the label. Pure.

use std::collections::BTreeSet;

use mdm_core::enrollment::{Door, EnrollmentKind};
use mdm_core::hardware::{self, AttestSupport, Claims, OsVersion, Platform};
use mdm_core::ids::Label;
use serde::{Deserialize, Serialize};
use store::enrollments::Enrollment;

use crate::acme::FieldError;
use crate::facts::{FactName, Facts};

/// The most entries of a list in a rule.
const MAX_ENTRIES: usize = 10_000;

/// The family of a device, as its `ProductName` begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
pub enum Family {
    /// iPhone.
    #[serde(rename = "iPhone")]
    Iphone,
    /// iPad.
    #[serde(rename = "iPad")]
    Ipad,
    /// iPod touch.
    #[serde(rename = "iPod")]
    Ipod,
    /// Apple TV.
    #[serde(rename = "AppleTV")]
    AppleTv,
    /// Apple Watch.
    Watch,
    /// Apple Vision Pro.
    Vision,
    /// Every Mac, virtual ones too.
    Mac,
}

impl Family {
    fn of(platform: Platform, product_name: Option<&str>) -> Self {
        match platform {
            Platform::Ios if product_name.is_some_and(|name| name.starts_with("iPod")) => Self::Ipod,
            Platform::Ios => Self::Iphone,
            Platform::Ipados => Self::Ipad,
            Platform::Tvos => Self::AppleTv,
            Platform::Watchos => Self::Watch,
            Platform::Visionos => Self::Vision,
            Platform::Macos => Self::Mac,
        }
    }

    fn platform(self) -> Platform {
        match self {
            Self::Iphone | Self::Ipod => Platform::Ios,
            Self::Ipad => Platform::Ipados,
            Self::AppleTv => Platform::Tvos,
            Self::Watch => Platform::Watchos,
            Self::Vision => Platform::Visionos,
            Self::Mac => Platform::Macos,
        }
    }
}

/// A version of an operating system, as text: `14`, `14.2` or `14.2.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(OsVersion);

impl TryFrom<String> for Version {
    type Error = hardware::InvalidOsVersion;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.0.to_string()
    }
}

/// A range of versions of one operating system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OsRange {
    /// `iOS`, `iPadOS`, `macOS`, `tvOS`, `visionOS` or `watchOS`.
    #[schema(value_type = String, example = "macOS")]
    pub platform: Platform,
    /// From this version on, it included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "14.0")]
    pub at_least: Option<Version>,
    /// Before this version, it not included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "27.0")]
    pub below: Option<Version>,
}

impl OsRange {
    fn holds(&self, platform: Platform, version: OsVersion) -> bool {
        self.platform == platform
            && self.at_least.is_none_or(|at_least| version >= at_least.0)
            && self.below.is_none_or(|below| version < below.0)
    }
}

/// The rule of a label. Every condition that is given must hold; of what a condition lists, one is enough. What is not known of a
/// device meets no condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelRule {
    /// The label: 1 to 64 letters, digits, `.`, `_` or `-`, starting with a letter or a digit.
    #[schema(value_type = String)]
    pub label: Label,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
    /// The family: `iPhone`, `iPad`, `iPod`, `AppleTV`, `Watch`, `Vision` or `Mac`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub families: BTreeSet<Family>,
    /// The chip's row in Apple's table of attestation: `supported`, `ignored`, `must_be_false` or `unknown`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub silicon: BTreeSet<AttestSupport>,
    /// The operating system and its version, as last known; each platform once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub os: Vec<OsRange>,
    /// How it was enrolled: `device`, `automated`, `user` or `shared_ipad`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub kinds: BTreeSet<EnrollmentKind>,
    /// By which door it came in: `link`, `ade`, `byod`, `adde` or `import`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub doors: BTreeSet<Door>,
    /// `SerialNumber`; not known in User Enrollment. At most 10,000.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub serial_numbers: BTreeSet<String>,
    /// `ProductName`, whole (`Mac15,3`) or its beginning with a star (`Mac15,*`). At most 10,000.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub product_names: BTreeSet<String>,
}

impl LabelRule {
    /// Every field that is wrong.
    pub fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut wrong = |field: &str, expected: &str| {
            errors.push(FieldError { field: field.to_owned(), expected: expected.to_owned() });
        };
        if self.notes.len() > 8192 {
            wrong("notes", "at most 8,192 bytes");
        }
        let lists = [("serial_numbers", &self.serial_numbers), ("product_names", &self.product_names)];
        let empty = self.families.is_empty()
            && self.silicon.is_empty()
            && self.os.is_empty()
            && self.kinds.is_empty()
            && self.doors.is_empty()
            && lists.iter().all(|(_, list)| list.is_empty());
        if empty {
            wrong("label", "followed by one condition at least; for every device a policy's scope has all");
        }
        for (field, list) in lists {
            if list.len() > MAX_ENTRIES {
                wrong(field, "at most 10,000 entries");
            }
            let plain = |text: &String| {
                !text.trim().is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
            };
            if !list.iter().all(plain) {
                wrong(field, "texts of 1 to 64 printable ASCII characters");
            }
        }
        if self.product_names.iter().any(|name| name.trim_end_matches('*').len() + 1 < name.len() || inner_star(name)) {
            wrong("product_names", "texts with a star at the end only");
        }
        let mut platforms = BTreeSet::new();
        for (n, range) in self.os.iter().enumerate() {
            if range.at_least.is_none() && range.below.is_none() && !self.families.is_empty() {
                wrong(&format!("os.{n}"), "a range with at_least or below, since families say which devices");
            }
            if range.at_least.zip(range.below).is_some_and(|(from, to)| from >= to) {
                wrong(&format!("os.{n}.below"), "above at_least");
            }
            if !platforms.insert(range.platform) {
                wrong(&format!("os.{n}.platform"), "one that no range before names");
            }
            if !self.families.is_empty() && !self.families.iter().any(|f| f.platform() == range.platform) {
                wrong(&format!("os.{n}.platform"), "the operating system of one of the families");
            }
        }
        errors
    }

    /// Whether a device has the label.
    pub fn holds(&self, seen: &Seen<'_>) -> bool {
        fn one_of<T: Ord>(list: &BTreeSet<T>, value: Option<T>) -> bool {
            list.is_empty() || value.is_some_and(|value| list.contains(&value))
        }
        one_of(&self.families, seen.family)
            && one_of(&self.silicon, Some(seen.silicon))
            && one_of(&self.kinds, Some(seen.kind))
            && one_of(&self.doors, Some(seen.door))
            && (self.os.is_empty()
                || seen.os.is_some_and(|(platform, version)| self.os.iter().any(|r| r.holds(platform, version))))
            && (self.serial_numbers.is_empty() || seen.serial_number.is_some_and(|s| self.lists_serial(s)))
            && (self.product_names.is_empty() || seen.product_name.is_some_and(|name| self.lists_product(name)))
    }

    /// As it stands in the list, or in the other case: people write both.
    fn lists_serial(&self, serial: &str) -> bool {
        let list = &self.serial_numbers;
        list.contains(serial)
            || list.contains(&serial.to_ascii_uppercase())
            || list.contains(&serial.to_ascii_lowercase())
    }

    fn lists_product(&self, name: &str) -> bool {
        self.product_names.iter().any(|listed| match listed.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == listed,
        })
    }
}

fn inner_star(name: &str) -> bool {
    name.strip_suffix('*').unwrap_or(name).contains('*') || name == "*"
}

/// A device as a rule sees it.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    family: Option<Family>,
    silicon: AttestSupport,
    os: Option<(Platform, OsVersion)>,
    kind: EnrollmentKind,
    door: Door,
    serial_number: Option<&'a str>,
    product_name: Option<&'a str>,
}

impl<'a> Seen<'a> {
    /// What its enrollment and its facts say.
    pub fn new(enrollment: &Enrollment, facts: &'a Facts) -> Self {
        let product_name = facts.text(FactName::ProductName);
        let hardware = hardware::classify(&Claims {
            product_name,
            is_apple_silicon: facts.flag(FactName::IsAppleSilicon),
            model: facts.text(FactName::Model),
            model_name: facts.text(FactName::ModelName),
        });
        let version = facts.text(FactName::OsVersion).and_then(|text| text.parse().ok());
        Self {
            family: hardware.platform.map(|platform| Family::of(platform, product_name)),
            silicon: hardware.attest,
            os: hardware.platform.zip(version),
            kind: enrollment.kind,
            door: enrollment.door,
            serial_number: facts.text(FactName::SerialNumber),
            product_name,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn rule(conditions: serde_json::Value) -> LabelRule {
        let mut json = conditions;
        json["label"] = "x".into();
        serde_json::from_value(json).unwrap()
    }

    fn seen<'a>(product_name: &'a str, os: &str) -> Seen<'a> {
        let hardware = hardware::classify(&Claims { product_name: Some(product_name), ..Claims::default() });
        Seen {
            family: hardware.platform.map(|p| Family::of(p, Some(product_name))),
            silicon: hardware.attest,
            os: hardware.platform.zip(os.parse().ok()),
            kind: EnrollmentKind::Device,
            door: Door::Link,
            serial_number: Some("C02XY"),
            product_name: Some(product_name),
        }
    }

    #[test]
    fn each_condition_asks_what_it_says() {
        let (mac, phone, pod, watch) =
            (seen("Mac15,3", "14.2"), seen("iPhone9,1", "15.8"), seen("iPod9,1", "15.8"), seen("Watch7,1", "10.1"));
        let cases = [
            (json!({"families": ["Mac"]}), [true, false, false, false]),
            (json!({"families": ["iPhone", "Watch"]}), [false, true, false, true]),
            (json!({"families": ["iPod"]}), [false, false, true, false]),
            (json!({"silicon": ["supported"]}), [true, false, false, true]),
            (json!({"silicon": ["ignored", "must_be_false"]}), [false, true, true, false]),
            (json!({"os": [{"platform": "macOS", "at_least": "14.2"}]}), [true, false, false, false]),
            (json!({"os": [{"platform": "macOS", "below": "14.2"}]}), [false; 4]),
            (json!({"os": [{"platform": "iOS", "below": "16"}, {"platform": "watchOS"}]}), [false, true, true, true]),
            (json!({"kinds": ["device"]}), [true; 4]),
            (json!({"kinds": ["automated", "user"]}), [false; 4]),
            (json!({"doors": ["link"]}), [true; 4]),
            (json!({"doors": ["ade"]}), [false; 4]),
            (json!({"serial_numbers": ["c02xy"]}), [true; 4]),
            (json!({"serial_numbers": ["C02X"]}), [false; 4]),
            (json!({"product_names": ["Mac15,3"]}), [true, false, false, false]),
            (json!({"product_names": ["Mac15,*", "Watch7,*"]}), [true, false, false, true]),
            (json!({"families": ["Mac"], "silicon": ["ignored"]}), [false; 4]),
        ];
        for (conditions, holds) in cases {
            let rule = rule(conditions.clone());
            assert_eq!(rule.check(), [], "{conditions}");
            assert_eq!([mac, phone, pod, watch].map(|s| rule.holds(&s)), holds, "{conditions}");
        }
    }

    #[test]
    fn what_is_not_known_meets_no_condition() {
        let nothing = Seen { serial_number: None, product_name: None, os: None, family: None, ..seen("x", "1") };
        for conditions in [
            json!({"families": ["Mac"]}),
            json!({"os": [{"platform": "macOS", "below": "99"}]}),
            json!({"serial_numbers": ["C02XY"]}),
            json!({"product_names": ["Mac*"]}),
            json!({"silicon": ["supported", "ignored", "must_be_false"]}),
        ] {
            assert!(!rule(conditions.clone()).holds(&nothing), "{conditions}");
        }
        assert!(rule(json!({"silicon": ["unknown"]})).holds(&nothing), "unknown is a row of the table like another");
    }

    #[test]
    fn a_rule_that_cannot_be_right_is_refused_by_its_field() {
        let cases = [
            (json!({}), "label"),
            (json!({"serial_numbers": [""]}), "serial_numbers"),
            (json!({"serial_numbers": ["a\nb"]}), "serial_numbers"),
            (json!({"product_names": ["Mac*15"]}), "product_names"),
            (json!({"product_names": ["*"]}), "product_names"),
            (json!({"product_names": ["Mac**"]}), "product_names"),
            (json!({"os": [{"platform": "macOS", "at_least": "14", "below": "14.0"}]}), "os.0.below"),
            (json!({"os": [{"platform": "iOS", "at_least": "1"}, {"platform": "iOS", "below": "9"}]}), "os.1.platform"),
            (json!({"families": ["Mac"], "os": [{"platform": "iOS", "below": "9"}]}), "os.0.platform"),
            (json!({"families": ["Mac"], "os": [{"platform": "macOS"}]}), "os.0"),
            (json!({"notes": "x".repeat(8193), "kinds": ["user"]}), "notes"),
        ];
        for (conditions, field) in cases {
            let fields: Vec<_> = rule(conditions.clone()).check().into_iter().map(|e| e.field).collect();
            assert_eq!(fields, [field], "{conditions}");
        }
        for bad in [
            json!({"label": "x", "family": ["Mac"]}),
            json!({"label": "x", "os": [{"platform": "macOS", "below": "x"}]}),
        ] {
            assert!(serde_json::from_value::<LabelRule>(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_listed_model_is_of_its_family() {
        for model in hardware::models() {
            let family = seen(&model.product_name, "1").family.map(|f| serde_json::to_value(f).unwrap());
            assert_eq!(family.unwrap(), model.family, "{}", model.product_name);
        }
    }

    proptest! {
        #[test]
        fn more_conditions_hold_for_fewer_and_longer_lists_for_more(
            families: u8, silicon in 0u8..16, kinds in 0u8..16, model in 0usize..400, os in 10u16..30, kind in 0usize..4,
        ) {
            let pick = |bits: u8, words: &[&str]| -> Vec<String> {
                words.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1).map(|(_, w)| (*w).to_owned()).collect()
            };
            let all_kinds = [EnrollmentKind::Device, EnrollmentKind::Automated, EnrollmentKind::User, EnrollmentKind::SharedIpad];
            let product_name = hardware::models().nth(model).unwrap().product_name.as_str();
            let seen = Seen { kind: all_kinds[kind], ..seen(product_name, &format!("{os}.0")) };
            let conditions = [
                ("families", pick(families, &["iPhone", "iPad", "iPod", "AppleTV", "Watch", "Vision", "Mac"])),
                ("silicon", pick(silicon, &["supported", "ignored", "must_be_false", "unknown"])),
                ("kinds", pick(kinds, &["device", "automated", "user", "shared_ipad"])),
            ];
            let whole = rule(conditions.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect::<serde_json::Map<_, _>>().into());
            let each = conditions.iter().all(|(key, list)| {
                let mut one = json!({});
                one[*key] = json!(list);
                rule(one).holds(&seen)
            });
            prop_assert_eq!(whole.holds(&seen), each);
            let mut wider = whole.clone();
            wider.kinds.insert(seen.kind);
            prop_assert!(!whole.holds(&seen) || wider.holds(&seen));
        }
    }
}
