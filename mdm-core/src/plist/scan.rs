//! The walk over the raw bytes before the parser sees them: one pass, no recursion, no allocation.
//!
//! The parser (and the drop of what it builds) recurses, expands nothing it does not know into nothing, skips CDATA and
//! takes the last of equal keys. So whatever two readers could understand differently, or could blow up, is refused here.
//! What is let through is a strict subset of XML 1.0: `plist` with `version`, Apple's DOCTYPE, Apple's elements without
//! attributes, text only where text belongs, the five named entities and character references.

use super::{Limits, PlistError};

/// Checks the bytes and returns how many `key` elements they hold.
pub(super) fn scan(bytes: &[u8], limits: Limits) -> Result<usize, PlistError> {
    if bytes.len() > limits.bytes {
        return Err(PlistError::TooLarge(limits.bytes));
    }
    if bytes.starts_with(b"bplist") {
        return Err(PlistError::Binary);
    }
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        return Err(PlistError::NotText(0));
    }
    std::str::from_utf8(bytes).map_err(|e| PlistError::NotText(e.valid_up_to()))?;
    if let Some(at) = bytes.iter().position(|b| *b < 0x20 && !is_space(*b)) {
        return Err(PlistError::NotText(at));
    }
    let mut scanner = Scanner { bytes, at: 0, limits, nodes: 0, keys: 0 };
    scanner.document()?;
    Ok(scanner.keys)
}

/// Apple's public identifiers of the property list DTD, and where it says that the DTD is.
const PUBLIC_IDS: [&[u8]; 2] = [b"-//Apple//DTD PLIST 1.0//EN", b"-//Apple Computer//DTD PLIST 1.0//EN"];
const SYSTEM_IDS: [&[u8]; 2] =
    [b"http://www.apple.com/DTDs/PropertyList-1.0.dtd", b"https://www.apple.com/DTDs/PropertyList-1.0.dtd"];

/// What is open around the place where the scanner stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// `plist`, before its one value.
    Root,
    /// `plist`, after its value.
    RootDone,
    /// `array`.
    Array,
    /// `dict`, where a key comes next.
    Key,
    /// `dict`, where the value of a key comes next.
    KeyValue,
}

/// How a start tag ended.
#[derive(PartialEq, Eq)]
enum Tag {
    /// `<x>`
    Open,
    /// `<x/>`
    Empty,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    limits: Limits,
    nodes: usize,
    keys: usize,
}

fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r')
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn refuse(&self, what: &'static str) -> PlistError {
        PlistError::Syntax { what, at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, token: &[u8]) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &[u8], what: &'static str) -> Result<(), PlistError> {
        if self.take(token) { Ok(()) } else { Err(self.refuse(what)) }
    }

    fn space(&mut self) -> bool {
        let n = self.rest().iter().take_while(|b| is_space(**b)).count();
        self.at += n;
        n > 0
    }

    /// The bytes up to `end`, which is passed over too.
    fn until(&mut self, end: &[u8]) -> Result<&'a [u8], PlistError> {
        let rest = self.rest();
        match rest.windows(end.len()).position(|w| w == end) {
            Some(n) => {
                self.at += n + end.len();
                Ok(rest.get(..n).unwrap_or_default())
            }
            None => Err(self.refuse("an unfinished construct")),
        }
    }

    fn quoted(&mut self) -> Result<&'a [u8], PlistError> {
        if self.take(b"\"") {
            self.until(b"\"")
        } else if self.take(b"'") {
            self.until(b"'")
        } else {
            Err(self.refuse("a missing quotation mark"))
        }
    }

    /// White space and comments.
    fn misc(&mut self) -> Result<(), PlistError> {
        loop {
            self.space();
            if !self.take(b"<!--") {
                return Ok(());
            }
            self.until(b"--")?;
            self.expect(b">", "a double hyphen in a comment")?;
        }
    }

    fn document(&mut self) -> Result<(), PlistError> {
        if self.take(b"<?xml") {
            self.declaration()?;
        }
        self.misc()?;
        if self.take(b"<!DOCTYPE") {
            self.doctype()?;
            self.misc()?;
        }
        self.expect(b"<plist", "no plist element")?;
        self.plist_attributes()?;
        self.content()?;
        self.misc()?;
        if self.peek().is_none() { Ok(()) } else { Err(self.refuse("something after the plist element")) }
    }

    fn declaration(&mut self) -> Result<(), PlistError> {
        while self.space() {
            let name = if self.take(b"version") {
                "version"
            } else if self.take(b"encoding") {
                "encoding"
            } else if self.take(b"standalone") {
                "standalone"
            } else {
                break;
            };
            self.expect(b"=", "a broken XML declaration")?;
            let value = self.quoted()?;
            let good = match name {
                "version" => value == b"1.0",
                "encoding" => value.eq_ignore_ascii_case(b"UTF-8"),
                _ => true,
            };
            if !good {
                return Err(self.refuse("an XML version or encoding that is not accepted"));
            }
        }
        self.expect(b"?>", "a broken XML declaration")
    }

    fn doctype(&mut self) -> Result<(), PlistError> {
        const WHAT: &str = "a document type that is not Apple's";
        let name = self.space() && self.take(b"plist");
        if !(name && self.space() && self.take(b"PUBLIC") && self.space()) {
            return Err(self.refuse(WHAT));
        }
        let public = self.quoted()?;
        self.space();
        let system = self.quoted()?;
        self.space();
        if !(PUBLIC_IDS.contains(&public) && SYSTEM_IDS.contains(&system)) {
            return Err(self.refuse(WHAT));
        }
        self.expect(b">", WHAT)
    }

    fn plist_attributes(&mut self) -> Result<(), PlistError> {
        if self.space() && self.take(b"version") {
            self.expect(b"=", "a broken attribute")?;
            if self.quoted()? != b"1.0" {
                return Err(self.refuse("a plist version other than 1.0"));
            }
            self.space();
        }
        self.expect(b">", "an attribute that plist does not have")
    }

    /// Everything inside `plist`, with its end tag.
    fn content(&mut self) -> Result<(), PlistError> {
        let mut open = [Inside::Root; Limits::MAX_DEPTH + 1];
        let mut depth = 0;
        loop {
            self.misc()?;
            self.expect(b"<", "text outside of a value")?;
            let inside = open.get(depth).copied().unwrap_or(Inside::RootDone);
            if self.take(b"/") {
                let name: &[u8] = match inside {
                    Inside::RootDone => b"plist",
                    Inside::Array => b"array",
                    Inside::Key => b"dict",
                    Inside::Root | Inside::KeyValue => return Err(self.refuse("a missing value")),
                };
                self.end_tag(name)?;
                if depth == 0 {
                    return Ok(());
                }
                depth -= 1;
                continue;
            }
            let name = self.name();
            self.nodes += 1;
            if self.nodes > self.limits.nodes {
                return Err(PlistError::TooManyNodes(self.limits.nodes));
            }
            let next = match (inside, name == b"key") {
                (Inside::Key, true) => Inside::KeyValue,
                (Inside::KeyValue, false) => Inside::Key,
                (Inside::Array, false) => Inside::Array,
                (Inside::Root, false) => Inside::RootDone,
                _ => return Err(self.refuse("an element in the wrong place")),
            };
            if let Some(slot) = open.get_mut(depth) {
                *slot = next;
            }
            let tag = self.tag_end()?;
            match name {
                b"dict" | b"array" => {
                    if depth >= self.limits.depth.min(Limits::MAX_DEPTH) {
                        return Err(PlistError::TooDeep(self.limits.depth));
                    }
                    if tag == Tag::Open {
                        depth += 1;
                        if let Some(slot) = open.get_mut(depth) {
                            *slot = if name == b"dict" { Inside::Key } else { Inside::Array };
                        }
                    }
                }
                b"true" | b"false" => {
                    if tag == Tag::Open {
                        self.expect(b"</", "text in a boolean")?;
                        self.end_tag(name)?;
                    }
                }
                b"key" | b"string" | b"data" | b"date" | b"integer" | b"real" => {
                    self.keys += usize::from(name == b"key");
                    if tag == Tag::Open {
                        self.text()?;
                        self.expect(b"</", "markup inside a value")?;
                        self.end_tag(name)?;
                    }
                }
                _ => return Err(self.refuse("an element that property lists do not have")),
            }
        }
    }

    fn name(&mut self) -> &'a [u8] {
        let rest = self.rest();
        let n = rest.iter().take_while(|b| b.is_ascii_alphabetic()).count();
        self.at += n;
        rest.get(..n).unwrap_or_default()
    }

    fn tag_end(&mut self) -> Result<Tag, PlistError> {
        self.space();
        if self.take(b">") {
            Ok(Tag::Open)
        } else if self.take(b"/>") {
            Ok(Tag::Empty)
        } else {
            Err(self.refuse("an attribute or a broken tag"))
        }
    }

    fn end_tag(&mut self, name: &[u8]) -> Result<(), PlistError> {
        self.expect(name, "an end tag that does not fit")?;
        self.space();
        self.expect(b">", "an end tag that does not fit")
    }

    /// Text with entities, up to the next `<`.
    fn text(&mut self) -> Result<(), PlistError> {
        loop {
            let n = self.rest().iter().position(|b| matches!(b, b'<' | b'&'));
            self.at += n.ok_or_else(|| self.refuse("an unfinished value"))?;
            if !self.take(b"&") {
                return Ok(());
            }
            self.entity()?;
        }
    }

    fn entity(&mut self) -> Result<(), PlistError> {
        const LONGEST: usize = 10;
        let head = self.rest().get(..LONGEST + 1).unwrap_or_else(|| self.rest());
        let n = head.iter().position(|b| *b == b';').ok_or_else(|| self.refuse("an unfinished entity"))?;
        let good = match head.get(..n).unwrap_or_default() {
            b"lt" | b"gt" | b"amp" | b"apos" | b"quot" => true,
            [b'#', b'x', hex @ ..] => names_a_character(hex, 16),
            [b'#', decimal @ ..] => names_a_character(decimal, 10),
            _ => false,
        };
        if !good {
            return Err(self.refuse("an unknown entity"));
        }
        self.at += n + 1;
        Ok(())
    }
}

/// Whether the digits stand for a character that XML allows.
fn names_a_character(digits: &[u8], radix: u32) -> bool {
    let digit = |b: &u8| char::from(*b).to_digit(radix);
    let code = digits.iter().try_fold(0_u32, |sum, b| sum.checked_mul(radix)?.checked_add(digit(b)?));
    match code.and_then(char::from_u32) {
        Some(c) => {
            !digits.is_empty() && (c >= ' ' || matches!(c, '\t' | '\n' | '\r')) && c != '\u{FFFE}' && c != '\u{FFFF}'
        }
        None => false,
    }
}
