//! The little of XML property lists that a device needs.
//!
//! Outgoing messages are text written key by key ([`Writer`]), as a device writes them; what a
//! server sends is read by [`parse`], a small reader of its own. Nothing here is shared with the
//! server, so a mistake in one codec cannot hide the same mistake in the other.
//!
//! Source: Apple's property list DTD 1.0 (`http://www.apple.com/DTDs/PropertyList-1.0.dtd`).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Nesting that no profile or command of a sound server reaches.
const MAX_DEPTH: usize = 64;

/// One value of a property list.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `<dict>`; a repeated key is refused by [`parse`].
    Dict(BTreeMap<String, Value>),
    /// `<array>`.
    Array(Vec<Value>),
    /// `<string>`.
    String(String),
    /// `<integer>`.
    Integer(i64),
    /// `<real>`.
    Real(f64),
    /// `<true/>` and `<false/>`.
    Boolean(bool),
    /// `<data>`, decoded.
    Data(Vec<u8>),
    /// `<date>`, as written.
    Date(String),
}

impl Value {
    /// The value under `key`, where this is a dictionary that has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Dict(entries) => entries.get(key),
            _ => None,
        }
    }

    /// The dictionary's entries; none for any other type.
    pub fn entries(&self) -> impl Iterator<Item = (&String, &Value)> {
        match self {
            Self::Dict(entries) => Some(entries.iter()),
            _ => None,
        }
        .into_iter()
        .flatten()
    }

    /// The text of a `<string>`.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number of an `<integer>`.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The truth of a `<true/>` or `<false/>`.
    pub fn as_boolean(&self) -> Option<bool> {
        match self {
            Self::Boolean(truth) => Some(*truth),
            _ => None,
        }
    }

    /// The bytes of a `<data>`.
    pub fn as_data(&self) -> Option<&[u8]> {
        match self {
            Self::Data(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The items of an `<array>`.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The string under `key` of a dictionary.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Self::as_str)
    }

    /// Apple's name of the type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Dict(_) => "dict",
            Self::Array(_) => "array",
            Self::String(_) => "string",
            Self::Integer(_) => "integer",
            Self::Real(_) => "real",
            Self::Boolean(_) => "boolean",
            Self::Data(_) => "data",
            Self::Date(_) => "date",
        }
    }
}

/// Why a property list could not be read: what was found, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlistError {
    /// What is wrong.
    pub what: String,
    /// Where, in bytes from the start.
    pub at: usize,
}

impl std::fmt::Display for PlistError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not a property list: {} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for PlistError {}

/// Reads an XML property list.
pub fn parse(bytes: &[u8]) -> Result<Value, PlistError> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| PlistError { what: "not UTF-8".into(), at: error.valid_up_to() })?;
    let mut reader = Reader { text, at: 0 };
    reader.skip_prologue()?;
    reader.open("plist")?;
    let value = reader.value(0)?;
    reader.close("plist")?;
    reader.skip_space();
    if reader.at < text.len() {
        return Err(reader.wrong("text after </plist>"));
    }
    Ok(value)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn wrong(&self, what: impl Into<String>) -> PlistError {
        PlistError { what: what.into(), at: self.at }
    }

    fn skip_space(&mut self) {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start().len();
            if self.rest().starts_with("<!--") {
                let Some(end) = self.rest().find("-->") else {
                    self.at = self.text.len();
                    return;
                };
                self.at += end + 3;
            } else {
                return;
            }
        }
    }

    fn skip_prologue(&mut self) -> Result<(), PlistError> {
        self.skip_space();
        for (start, end) in [("<?xml", "?>"), ("<!DOCTYPE", ">")] {
            if self.rest().starts_with(start) {
                let length = self.rest().find(end).ok_or_else(|| self.wrong(format!("{start} without end")))?;
                self.at += length + end.len();
                self.skip_space();
            }
        }
        Ok(())
    }

    /// The next tag: its name, and whether it closes itself.
    fn tag(&mut self) -> Result<(&'a str, bool), PlistError> {
        self.skip_space();
        let inner = self.rest().strip_prefix('<').ok_or_else(|| self.wrong("a tag was expected"))?;
        let end = inner.find('>').ok_or_else(|| self.wrong("a tag without end"))?;
        let tag = inner.get(..end).unwrap_or_default();
        self.at += end + 2;
        let (tag, empty) = match tag.strip_suffix('/') {
            Some(tag) => (tag, true),
            None => (tag, false),
        };
        Ok((tag.split_whitespace().next().unwrap_or_default(), empty))
    }

    fn open(&mut self, name: &str) -> Result<(), PlistError> {
        match self.tag()? {
            (found, false) if found == name => Ok(()),
            (found, _) => Err(self.wrong(format!("<{name}> was expected, not <{found}>"))),
        }
    }

    fn close(&mut self, name: &str) -> Result<(), PlistError> {
        match self.tag()? {
            (found, false) if found.strip_prefix('/') == Some(name) => Ok(()),
            (found, _) => Err(self.wrong(format!("</{name}> was expected, not <{found}>"))),
        }
    }

    fn at_close(&mut self) -> bool {
        self.skip_space();
        self.rest().starts_with("</")
    }

    fn content(&mut self, name: &str, empty: bool) -> Result<String, PlistError> {
        if empty {
            return Ok(String::new());
        }
        let length = self.rest().find('<').ok_or_else(|| self.wrong(format!("<{name}> without end")))?;
        let raw = self.rest().get(..length).unwrap_or_default();
        let text = unescape(raw).ok_or_else(|| self.wrong("an unknown entity"))?;
        self.at += length;
        self.close(name)?;
        Ok(text)
    }

    fn value(&mut self, depth: usize) -> Result<Value, PlistError> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("nested too deep"));
        }
        let (name, empty) = self.tag()?;
        match name {
            "dict" => self.dict(empty, depth),
            "array" => {
                let mut items = Vec::new();
                if !empty {
                    while !self.at_close() {
                        items.push(self.value(depth + 1)?);
                    }
                    self.close("array")?;
                }
                Ok(Value::Array(items))
            }
            "true" | "false" => {
                if !empty {
                    self.close(name)?;
                }
                Ok(Value::Boolean(name == "true"))
            }
            "string" => Ok(Value::String(self.content(name, empty)?)),
            "date" => Ok(Value::Date(self.content(name, empty)?)),
            "integer" => {
                let text = self.content(name, empty)?;
                let number = text.trim().parse();
                number.map(Value::Integer).map_err(|_| self.wrong("an integer was expected"))
            }
            "real" => {
                let text = self.content(name, empty)?;
                let number = text.trim().parse();
                number.map(Value::Real).map_err(|_| self.wrong("a real was expected"))
            }
            "data" => {
                let mut text = self.content(name, empty)?;
                text.retain(|c| !c.is_ascii_whitespace());
                let bytes = STANDARD.decode(text);
                bytes.map(Value::Data).map_err(|_| self.wrong("base64 was expected"))
            }
            other => Err(self.wrong(format!("unknown element <{other}>"))),
        }
    }

    fn dict(&mut self, empty: bool, depth: usize) -> Result<Value, PlistError> {
        let mut entries = BTreeMap::new();
        if !empty {
            while !self.at_close() {
                let (name, closed) = self.tag()?;
                if name != "key" {
                    return Err(self.wrong(format!("<key> was expected, not <{name}>")));
                }
                let key = self.content("key", closed)?;
                let value = self.value(depth + 1)?;
                if entries.insert(key, value).is_some() {
                    return Err(self.wrong("a key twice in one dict"));
                }
            }
            self.close("dict")?;
        }
        Ok(Value::Dict(entries))
    }
}

fn unescape(raw: &str) -> Option<String> {
    let mut text = String::with_capacity(raw.len());
    let mut parts = raw.split('&');
    text.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (entity, rest) = part.split_once(';')?;
        match entity {
            "amp" => text.push('&'),
            "lt" => text.push('<'),
            "gt" => text.push('>'),
            "quot" => text.push('"'),
            "apos" => text.push('\''),
            _ => {
                let code = entity.strip_prefix('#')?;
                let number = match code.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => code.parse().ok()?,
                };
                text.push(char::from_u32(number)?);
            }
        }
        text.push_str(rest);
    }
    Some(text)
}

/// Text made safe to stand between two tags.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Writes one dictionary as XML text, key by key.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    text: String,
}

impl Writer {
    /// An empty dictionary.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `key` with ready XML as its value.
    #[must_use]
    pub fn raw(mut self, key: &str, xml: &str) -> Self {
        let _ = writeln!(self.text, "\t<key>{}</key>\n\t{xml}", escape(key));
        self
    }

    /// Adds a `<string>`.
    #[must_use]
    pub fn string(self, key: &str, value: &str) -> Self {
        self.raw(key, &format!("<string>{}</string>", escape(value)))
    }

    /// Adds a `<string>` where there is one to add.
    #[must_use]
    pub fn maybe(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.string(key, value),
            None => self,
        }
    }

    /// Adds an `<integer>`.
    #[must_use]
    pub fn integer(self, key: &str, value: i64) -> Self {
        self.raw(key, &format!("<integer>{value}</integer>"))
    }

    /// Adds `<true/>` or `<false/>`.
    #[must_use]
    pub fn boolean(self, key: &str, value: bool) -> Self {
        self.raw(key, if value { "<true/>" } else { "<false/>" })
    }

    /// Adds a `<data>`.
    #[must_use]
    pub fn data(self, key: &str, value: &[u8]) -> Self {
        self.raw(key, &format!("<data>{}</data>", STANDARD.encode(value)))
    }

    /// Adds another dictionary.
    #[must_use]
    pub fn dict(self, key: &str, inner: &Writer) -> Self {
        self.raw(key, &inner.xml())
    }

    /// Adds an array of dictionaries.
    #[must_use]
    pub fn dicts(self, key: &str, items: &[Writer]) -> Self {
        let inner: String = items.iter().map(Writer::xml).collect();
        self.raw(key, &format!("<array>{inner}</array>"))
    }

    /// Appends the keys of another writer.
    #[must_use]
    pub fn with(mut self, other: &Writer) -> Self {
        self.text.push_str(&other.text);
        self
    }

    /// The dictionary as an XML element.
    pub fn xml(&self) -> String {
        format!("<dict>\n{}</dict>", self.text)
    }

    /// The whole document.
    pub fn document(&self) -> Vec<u8> {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
             \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
             <plist version=\"1.0\">\n{}\n</plist>\n",
            self.xml()
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let text = Writer::new()
            .string("Name", "Ada's <Mac> & co")
            .integer("Count", -3)
            .boolean("Yes", true)
            .data("Token", b"\x00\xff")
            .dict("Inner", &Writer::new().string("a", "b"))
            .dicts("List", &[Writer::new().integer("n", 1)])
            .document();
        let value = parse(&text).unwrap();
        assert_eq!(value.text("Name"), Some("Ada's <Mac> & co"));
        assert_eq!(value.get("Count").unwrap().as_integer(), Some(-3));
        assert_eq!(value.get("Yes").unwrap().as_boolean(), Some(true));
        assert_eq!(value.get("Token").unwrap().as_data(), Some(&b"\x00\xff"[..]));
        assert_eq!(value.get("Inner").unwrap().text("a"), Some("b"));
        assert_eq!(value.get("List").unwrap().as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_broken_list_is_an_error_and_not_a_guess() {
        for text in [
            "",
            "<plist><dict></plist>",
            "<plist><dict><key>a</key></dict></plist>",
            "<plist><dict><key>a</key><true/><key>a</key><true/></dict></plist>",
            "<plist><string>&unknown;</string></plist>",
            "<plist><integer>x</integer></plist>",
            "<plist><data>*</data></plist>",
            "<plist><true/></plist> more",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        let deep = format!("<plist>{}{}</plist>", "<array>".repeat(200), "</array>".repeat(200));
        assert!(parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn numeric_entities_and_comments_are_understood() {
        let value = parse(b"<plist version=\"1.0\"><!-- c --><string>a&#39;b&#x41;</string></plist>");
        assert_eq!(value.unwrap(), Value::String("a'bA".into()));
    }
}
