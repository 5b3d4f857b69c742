//! What a yes carries back. In step-ca's certificate template it is `.Webhooks.<name of the webhook>`, so that the certificate can have
//! the names that the policy asks for: step-ca's default template for attested devices takes over the common name alone.

use policy::proof::{Expectation, Expected, Name};
use serde_json::{Map, Value, json};
use store::attempts::Attempt;

use crate::names::{PERMANENT_IDENTIFIER, USER_PRINCIPAL_NAME};

/// The data of a yes, for the attempt of a policy of this name.
pub(crate) fn data(attempt: &Attempt, policy: &str, identifier: &str, expectation: &Expectation) -> Value {
    let mut device = Map::new();
    for (key, value) in [("serial_number", &expectation.serial_number), ("udid", &expectation.udid)] {
        if let Some(value) = value {
            device.insert(key.to_owned(), value.as_str().into());
        }
    }
    json!({
        "trace": attempt.id,
        "enrollment_id": attempt.enrollment_id,
        "policy": policy,
        "revision": attempt.revision,
        "purpose": attempt.purpose,
        "device": device,
        "subject": { "extraNames": expectation.subject.iter().filter_map(attribute).collect::<Vec<_>>() },
        "sans": alternative_names(identifier, expectation),
    })
}

/// One attribute of the subject (x509util.DistinguishedName). In `extraNames` they keep their order.
fn attribute(name: &Name) -> Option<Value> {
    text(name).map(|value| json!({ "type": name.kind, "value": value }))
}

/// The names of the subject alternative name extension (x509util.SubjectAlternativeName): the identifier, as step-ca writes it by
/// itself, and what the policy asks for.
fn alternative_names(identifier: &str, expectation: &Expectation) -> Vec<Value> {
    let mut names = vec![json!({ "type": PERMANENT_IDENTIFIER, "value": identifier })];
    names.extend(expectation.names.iter().filter_map(|name| {
        let value = text(name)?;
        Some(match name.kind.as_str() {
            "rfc822Name" => json!({ "type": "email", "value": value }),
            "dNSName" => json!({ "type": "dns", "value": value }),
            "uniformResourceIdentifier" => json!({ "type": "uri", "value": value }),
            "ntPrincipalName" => json!({ "type": USER_PRINCIPAL_NAME, "value": format!("utf8:{value}") }),
            _ => return None,
        })
    }));
    names
}

/// The text of a name; none where only its hash is kept, because it holds a one-time identifier.
fn text(name: &Name) -> Option<&str> {
    match &name.value {
        Expected::Text(text) => Some(text),
        Expected::Sha256(_) => None,
    }
}
