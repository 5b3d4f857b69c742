//! Payloads that are given key by key: JSON that becomes a property list, with templates in its texts.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mdm_core::plist::{Dictionary, Value};
use mdm_core::profile::uuid_text;
use mdm_core::time::Timestamp;
use serde_json::{Map, Number, Value as Json};
use uuid::Uuid;

use crate::template::{Template, Values, Variable};

/// Arrays and dictionaries inside each other.
const DEEPEST: usize = 16;

/// What a payload type must be.
pub(super) const PAYLOAD_TYPE_RULE: &str = "a reverse DNS name such as com.apple.dnsSettings.managed, and none of the payloads that Assay \
     makes itself or that hold secrets: com.apple.mdm, com.apple.security.acme, .scep and .pkcs12, com.apple.profileRemovalPassword";

/// How the names of keys end that hold secrets, in small letters and digits alone.
const SECRETS: [&str; 5] = ["password", "passphrase", "secret", "privatekey", "presharedkey"];
/// What stands at the head of a private key as PEM.
const PRIVATE_KEY: &str = "PRIVATE KEY";
const NO_SECRET: &str = "left out: nothing in a policy is secret, since whoever may read policies reads all of it; send a profile with a \
     password or a key by the command InstallProfile";

/// A payload type that a raw companion may have. What enrolls the device or holds secrets in clear is not for a policy.
pub(super) fn is_payload_type(text: &str) -> bool {
    let refused = [
        "com.apple.mdm",
        "com.apple.security.acme",
        "com.apple.security.scep",
        "com.apple.security.pkcs12",
        "com.apple.profileRemovalPassword",
    ];
    let plain = text.len() <= 255 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    plain && text.contains('.') && !text.starts_with('.') && !refused.iter().any(|r| text.eq_ignore_ascii_case(r))
}

/// A key that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The path inside `keys`.
    pub(super) at: String,
    pub(super) expected: String,
}

/// A value with its templates read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Text(Template),
    Boolean(bool),
    Number(Number),
    Data(Vec<u8>),
    Date(Timestamp),
    PayloadUuid(String),
    Array(Vec<Node>),
    Dictionary(Vec<(String, Node)>),
}

/// Reads the keys; with them, the names of the companions that they refer to.
pub(super) fn read(keys: &Map<String, Json>) -> Result<(Node, Vec<String>), Wrong> {
    for key in ["PayloadType", "PayloadVersion", "PayloadIdentifier", "PayloadUUID", "PayloadDisplayName"] {
        if keys.contains_key(key) {
            return Err(Wrong { at: key.to_owned(), expected: "left out: Assay writes it".to_owned() });
        }
    }
    let mut names = Vec::new();
    let node = dictionary(keys, "", 1, &mut names)?;
    Ok((node, names))
}

fn wrong<T>(at: &str, expected: &str) -> Result<T, Wrong> {
    Err(Wrong { at: at.to_owned(), expected: expected.to_owned() })
}

fn dictionary(keys: &Map<String, Json>, at: &str, depth: usize, names: &mut Vec<String>) -> Result<Node, Wrong> {
    let mut out = Vec::new();
    for (key, value) in keys {
        let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        if key.is_empty() || key.len() > 255 || key.chars().any(char::is_control) {
            return wrong(&at, "a key of 1 to 255 bytes without control characters");
        }
        if is_secret(key, value) {
            return wrong(&at, NO_SECRET);
        }
        out.push((key.clone(), node(value, &at, depth, names)?));
    }
    Ok(Node::Dictionary(out))
}

/// Whether a key holds a secret by its name. What is true or false is a switch (`OneTimeUserPassword`), whatever its name.
fn is_secret(key: &str, value: &Json) -> bool {
    let plain: String = key.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    !value.is_boolean() && SECRETS.iter().any(|end| plain.ends_with(end))
}

fn node(value: &Json, at: &str, depth: usize, names: &mut Vec<String>) -> Result<Node, Wrong> {
    if depth > DEEPEST {
        return wrong(at, "nested less deeply: at most 16 levels");
    }
    match value {
        Json::Null => wrong(at, "a value: property lists know no null"),
        Json::Bool(b) => Ok(Node::Boolean(*b)),
        Json::Number(n) => Ok(Node::Number(n.clone())),
        Json::String(text) if text.contains(PRIVATE_KEY) => wrong(at, NO_SECRET),
        Json::String(text) => match Template::parse(text) {
            Ok(template) => Ok(Node::Text(template)),
            Err(e) => wrong(at, &e.to_string()),
        },
        Json::Array(items) => {
            let mut out = Vec::new();
            for (n, item) in items.iter().enumerate() {
                out.push(node(item, &format!("{at}[{n}]"), depth + 1, names)?);
            }
            Ok(Node::Array(out))
        }
        Json::Object(keys) => match special(keys) {
            None => dictionary(keys, at, depth + 1, names),
            Some(("$data", Some(text))) => match STANDARD.decode(text) {
                Ok(bytes) if bytes.windows(PRIVATE_KEY.len()).any(|part| part == PRIVATE_KEY.as_bytes()) => {
                    wrong(at, NO_SECRET)
                }
                Ok(bytes) => Ok(Node::Data(bytes)),
                Err(_) => wrong(at, "{\"$data\": base64}"),
            },
            Some(("$date", Some(text))) => match Timestamp::from_rfc3339(text) {
                Some(date) => Ok(Node::Date(date)),
                None => wrong(at, "{\"$date\": a time such as 2026-11-22T05:00:00Z}"),
            },
            Some(("$payload_uuid", Some(name))) => {
                names.push(name.to_owned());
                Ok(Node::PayloadUuid(name.to_owned()))
            }
            Some(_) => wrong(
                at,
                "a dictionary whose keys do not begin with $, or one of $data, $date and $payload_uuid with a text",
            ),
        },
    }
}

/// The one key that begins with `$`, and its text.
fn special(keys: &Map<String, Json>) -> Option<(&str, Option<&str>)> {
    let (key, value) = keys.iter().find(|(key, _)| key.starts_with('$'))?;
    Some((key, value.as_str().filter(|_| keys.len() == 1)))
}

/// The keys for one device, or the variable that it has no value for.
pub(super) fn render(keys: &Node, values: &Values, uuid_of: &dyn Fn(&str) -> Uuid) -> Result<Dictionary, Variable> {
    Ok(value(keys, values, uuid_of)?.into_dictionary().unwrap_or_default())
}

fn value(node: &Node, values: &Values, uuid_of: &dyn Fn(&str) -> Uuid) -> Result<Value, Variable> {
    Ok(match node {
        Node::Text(template) => template.render(values)?.into(),
        Node::Boolean(b) => (*b).into(),
        Node::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => n.into(),
            (None, Some(n)) => n.into(),
            (None, None) => n.as_f64().unwrap_or_default().into(),
        },
        Node::Data(bytes) => Value::Data(bytes.clone()),
        Node::Date(at) => Value::Date((UNIX_EPOCH + Duration::from_millis(at.0.max(0).unsigned_abs())).into()),
        Node::PayloadUuid(name) => uuid_text(uuid_of(name)).into(),
        Node::Array(items) => {
            Value::Array(items.iter().map(|item| value(item, values, uuid_of)).collect::<Result<_, _>>()?)
        }
        Node::Dictionary(entries) => {
            let mut out = Dictionary::new();
            for (key, node) in entries {
                out.insert(key.clone(), value(node, values, uuid_of)?);
            }
            Value::Dictionary(out)
        }
    })
}
