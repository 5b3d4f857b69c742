//! Templates: texts of a policy in which `{variable}` stands for a value of the device.
//!
//! The list of variables is closed. An unknown one is refused when the policy is written; a value that a device has
//! not told is a refusal of its own when the profile is made, never an empty string.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

macro_rules! variables {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal),+ $(,)?) => {
        /// What a template can stand for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        pub enum Variable {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $name),+
        }

        impl Variable {
            /// Every variable.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name, without braces.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            fn from_text(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

variables! {
    /// `SerialNumber`. Not in User Enrollment.
    Serial = "serial",
    /// `UDID`. Not in User Enrollment; on a Mac not the attested one.
    Udid = "udid",
    /// `ProvisioningUDID` (macOS 11.3 and later): what an attestation of a Mac calls its UDID.
    ProvisioningUdid = "provisioning_udid",
    /// `ProductName`, such as `iPhone17,3`.
    ProductName = "product_name",
    /// `Model`.
    Model = "model",
    /// `ModelName`, such as `iPhone`.
    ModelName = "model_name",
    /// `DeviceName`, which the user can change.
    DeviceName = "device_name",
    /// `OSVersion`.
    OsVersion = "os_version",
    /// Assay's own id of the enrollment.
    EnrollmentId = "enrollment_id",
    /// 256 random bits, new for each installation: a one-time ClientIdentifier.
    Random = "random",
    /// `UserShortName`, on a user channel.
    UserShortName = "user_short_name",
    /// `UserLongName`, on a user channel.
    UserLongName = "user_long_name",
    /// `PayloadUUID` of the identity's payload. Only in companions.
    IdentityUuid = "identity_uuid",
}

impl Variable {
    /// A device in User Enrollment never tells it.
    pub fn is_hidden_in_user_enrollment(self) -> bool {
        matches!(self, Self::Serial | Self::Udid | Self::ProvisioningUdid)
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.as_str())
    }
}

/// The variables that can be used, as a sentence names them.
fn known() -> String {
    Variable::ALL.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A text that is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nobody knows this variable.
    #[error("made with known variables only; {{{0}}} is not one of {known}", known = known())]
    UnknownVariable(String),
    /// A brace without its partner.
    #[error("written with closed braces; a brace that is meant as text is doubled: {{{{ or }}}}")]
    Unbalanced,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

/// A checked template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

impl Template {
    /// Reads a template; `{{` and `}}` stand for braces.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '{' | '}' if chars.peek() == Some(&c) => {
                    chars.next();
                    plain.push(c);
                }
                '}' => return Err(TemplateError::Unbalanced),
                '{' => {
                    let mut name = String::new();
                    loop {
                        match chars.next() {
                            Some('}') => break,
                            Some('{') | None => return Err(TemplateError::Unbalanced),
                            Some(c) => name.push(c),
                        }
                    }
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    let variable = Variable::from_text(&name);
                    let short = || name.chars().take(64).collect();
                    parts.push(Part::Variable(variable.ok_or_else(|| TemplateError::UnknownVariable(short()))?));
                }
                c => plain.push(c),
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts })
    }

    /// The variables it uses.
    pub fn variables(&self) -> impl Iterator<Item = Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(v) => Some(*v),
            Part::Text(_) => None,
        })
    }

    /// The text for one device, or the variable that it has no value for.
    pub fn render(&self, values: &Values) -> Result<String, Variable> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Variable(v) => out.push_str(values.get(*v).ok_or(*v)?),
            }
        }
        Ok(out)
    }
}

/// The values of one device.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Values(BTreeMap<Variable, String>);

// {random} is a one-time secret.
impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Values {
    /// Sets a value; an empty one counts as not told.
    pub fn set(&mut self, variable: Variable, value: Option<&str>) {
        match value.filter(|v| !v.is_empty()) {
            Some(value) => drop(self.0.insert(variable, value.to_owned())),
            None => drop(self.0.remove(&variable)),
        }
    }

    /// The value, if the device has told it.
    pub fn get(&self, variable: Variable) -> Option<&str> {
        self.0.get(&variable).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn render(text: &str) -> Result<String, Variable> {
        let mut values = Values::default();
        values.set(Variable::Serial, Some("C02"));
        values.set(Variable::UserShortName, Some(""));
        Template::parse(text).unwrap().render(&values)
    }

    #[test]
    fn variables_are_replaced_and_doubled_braces_are_braces() {
        assert_eq!(render("mac-{serial}.{{x}}").as_deref(), Ok("mac-C02.{x}"));
        assert_eq!(render("").as_deref(), Ok(""));
        assert_eq!(render("{udid}"), Err(Variable::Udid));
        assert_eq!(render("{user_short_name}"), Err(Variable::UserShortName), "an empty value is no value");
    }

    #[test]
    fn an_unknown_variable_is_named_with_the_list_of_known_ones() {
        let error = Template::parse("a{serial}{SERIALNUMBER}").unwrap_err();
        assert_eq!(error, TemplateError::UnknownVariable("SERIALNUMBER".into()));
        let text = error.to_string();
        assert!(text.contains("{SERIALNUMBER}") && text.contains("{serial}, {udid}, {provisioning_udid}"), "{text}");
        for bad in ["{serial", "serial}", "{se{rial}}", "{", "}"] {
            assert_eq!(Template::parse(bad), Err(TemplateError::Unbalanced), "{bad}");
        }
    }

    #[test]
    fn a_value_is_never_read_as_a_template() {
        let mut values = Values::default();
        values.set(Variable::DeviceName, Some("{serial}"));
        assert_eq!(Template::parse("{device_name}").unwrap().render(&values).as_deref(), Ok("{serial}"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,80}") {
            if let Ok(template) = Template::parse(&text) {
                let _ = template.render(&Values::default());
            }
        }
    }
}
