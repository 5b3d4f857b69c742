//! Documents in files: TOML for people, JSON for programs. Both hold the same.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use serde_json::{Map, Value as Json};
use toml::Value as Toml;

/// Larger than any document that the server takes.
const LARGEST: u64 = 4 << 20;

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// TOML.
    Toml,
    /// JSON.
    Json,
}

/// Reads a document: JSON where the name ends in `.json`, TOML otherwise; `-` is the standard input, TOML.
pub fn read(path: &Path) -> Result<Json> {
    let mut text = String::new();
    let stdin = path == Path::new("-");
    let source: Box<dyn Read> = if stdin {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?)
    };
    let read = source.take(LARGEST + 1).read_to_string(&mut text);
    read.with_context(|| format!("cannot read {}", path.display()))?;
    if text.len() as u64 > LARGEST {
        bail!("{} is larger than {LARGEST} bytes", path.display());
    }
    let json = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("json"));
    let format = if json { Format::Json } else { Format::Toml };
    parse(&text, format).with_context(|| format!("{} is not right", path.display()))
}

/// Reads a document from its text. A key that is given twice is refused: nobody knows which was meant.
pub fn parse(text: &str, format: Format) -> Result<Json> {
    match format {
        Format::Json => Ok(serde_json::from_str::<policy::UniqueKeys>(text)?.0),
        Format::Toml => Ok(from_toml(toml::from_str(text)?)),
    }
}

/// Writes a document; it ends with a line break.
pub fn write(document: Json, format: Format) -> Result<String> {
    let mut text = match format {
        Format::Json => serde_json::to_string_pretty(&document)?,
        Format::Toml => toml::to_string_pretty(&to_toml(document)?.unwrap_or_else(|| Toml::Table(toml::Table::new())))?,
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

fn from_toml(value: Toml) -> Json {
    match value {
        Toml::String(text) => text.into(),
        Toml::Integer(n) => n.into(),
        Toml::Float(n) => n.into(),
        Toml::Boolean(b) => b.into(),
        Toml::Datetime(at) => at.to_string().into(),
        Toml::Array(items) => items.into_iter().map(from_toml).collect(),
        Toml::Table(entries) => {
            Json::Object(entries.into_iter().map(|(k, v)| (k, from_toml(v))).collect::<Map<_, _>>())
        }
    }
}

/// TOML has no null: an entry without a value is left out, which means the same to the server.
fn to_toml(value: Json) -> Result<Option<Toml>> {
    Ok(Some(match value {
        Json::Null => return Ok(None),
        Json::Bool(b) => Toml::Boolean(b),
        Json::String(text) => Toml::String(text),
        Json::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(n), _) => Toml::Integer(n),
            (None, Some(float)) if !n.is_u64() => Toml::Float(float),
            _ => return Err(anyhow!("{n} is too large for TOML; use JSON")),
        },
        Json::Array(items) => {
            let items: Result<Vec<_>> = items.into_iter().filter_map(|item| to_toml(item).transpose()).collect();
            Toml::Array(items?)
        }
        Json::Object(entries) => {
            let mut table = toml::Table::new();
            for (key, value) in entries {
                if let Some(value) = to_toml(value)? {
                    table.insert(key, value);
                }
            }
            Toml::Table(table)
        }
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_goes_round_in_both_formats() {
        let document = json!({
            "certificate_authorities": [{"name": "step", "issuers": ["-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"]}],
            "acme_policies": [{"name": "wifi", "subject": [[["O", "Example"]], [["CN", "{serial}"], ["1.2.3", "x"]]], "key_size": 256,
                "companions": [{"type": "raw", "name": "dns", "keys": {"a": {"b": [1, 2.5, true, {"$data": "AQI="}]}}}],
                "scope": {"all": true, "exclude": {"labels": ["lab"]}}}],
        });
        for format in [Format::Toml, Format::Json] {
            let text = write(document.clone(), format).unwrap();
            assert_eq!(parse(&text, format).unwrap(), document, "{text}");
        }
    }

    #[test]
    fn a_key_that_is_given_twice_is_refused_in_both_formats() {
        for (text, format) in [
            (r#"{"acme_policies": [], "acme_policies": []}"#, Format::Json),
            (r#"{"acme_policies": [{"require": {}, "name": "a", "require": {}}]}"#, Format::Json),
            ("a = 1\na = 2\n", Format::Toml),
        ] {
            let refused = parse(text, format).unwrap_err().to_string();
            assert!(refused.contains("duplicate"), "{text}: {refused}");
        }
    }

    #[test]
    fn what_toml_cannot_say_is_left_out_or_refused() {
        assert_eq!(write(json!({"a": null, "b": 1}), Format::Toml).unwrap(), "b = 1\n");
        assert!(write(json!({"a": u64::MAX}), Format::Toml).is_err());
        assert_eq!(parse("at = 2026-11-22T05:00:00Z", Format::Toml).unwrap(), json!({"at": "2026-11-22T05:00:00Z"}));
        assert!(parse("a = ", Format::Toml).is_err() && parse("{", Format::Json).is_err());
    }
}
