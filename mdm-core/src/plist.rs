//! Property lists: the one place that reads and writes them.
//!
//! `decode` is for bytes of strangers. Before the parser sees them, a scan walks over them once and refuses everything
//! that is not a plain XML property list in Apple's form: TH-19 to TH-23.

pub mod fields;
mod scan;

pub use plist::{Dictionary, Value};

/// How much one message may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole text.
    pub bytes: usize,
    /// Arrays and dictionaries inside each other; at most [`Limits::MAX_DEPTH`].
    pub depth: usize,
    /// Elements, keys included.
    pub nodes: usize,
}

impl Limits {
    /// The deepest nesting that any limit can allow.
    pub const MAX_DEPTH: usize = 64;
    /// A check-in message: 1 MiB.
    pub const CHECKIN: Self = Self { bytes: 1 << 20, depth: Self::MAX_DEPTH, nodes: 100_000 };
    /// A command's result: 16 MiB.
    pub const REPORT: Self = Self { bytes: 16 << 20, depth: Self::MAX_DEPTH, nodes: 100_000 };
    /// What an operator uploads, a command or a profile: 5 MiB.
    pub const API: Self = Self { bytes: 5 << 20, depth: Self::MAX_DEPTH, nodes: 100_000 };
}

/// Why bytes were refused as a property list. Holds nothing of their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlistError {
    /// More bytes than the limit.
    #[error("the property list is larger than {0} bytes")]
    TooLarge(usize),
    /// Nested deeper than the limit.
    #[error("the property list is nested deeper than {0} levels")]
    TooDeep(usize),
    /// More elements than the limit.
    #[error("the property list has more than {0} elements")]
    TooManyNodes(usize),
    /// A binary property list.
    #[error("binary property lists are not accepted")]
    Binary,
    /// Not UTF-8, or a byte order mark, or a character that XML does not allow.
    #[error("the property list is not plain UTF-8 text (byte {0})")]
    NotText(usize),
    /// XML that a property list of Apple's form has no use for, or that is broken.
    #[error("{what} in the property list (byte {at})")]
    Syntax {
        /// What was found.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// The same key twice in one dictionary.
    #[error("a key occurs twice in one dictionary of the property list")]
    DuplicateKey,
    /// A value that its element does not allow, such as letters in an integer, or a dictionary that is not pairs.
    #[error("the property list holds a value that its element does not allow")]
    Value,
}

/// Reads an XML property list.
pub fn decode(bytes: &[u8], limits: Limits) -> Result<Value, PlistError> {
    let keys = scan::scan(bytes, limits)?;
    let value = Value::from_reader_xml(bytes).map_err(|_| PlistError::Value)?;
    // The parser lets the last of equal keys win; then fewer entries are left than keys were read (TH-22).
    if entries(&value) == keys { Ok(value) } else { Err(PlistError::DuplicateKey) }
}

/// Reads an XML property list whose root is a dictionary, as every message is.
pub fn decode_dictionary(bytes: &[u8], limits: Limits) -> Result<Dictionary, PlistError> {
    decode(bytes, limits)?.into_dictionary().ok_or(PlistError::Value)
}

/// Writes an XML property list. Characters that XML cannot hold are left out of strings.
///
/// # Panics
/// Never: writing into memory does not fail.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    value.to_writer_xml(&mut out).expect("writing into memory does not fail");
    let unfit = |b: u8| b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r');
    if out.iter().any(|b| unfit(*b)) {
        out.retain(|b| !unfit(*b));
    }
    out
}

/// How many entries all dictionaries of the value have together. Not deeper than [`Limits::MAX_DEPTH`], by the scan.
fn entries(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(entries).sum(),
        Value::Dictionary(pairs) => pairs.values().map(|v| 1 + entries(v)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n";
    const GOOD: &str = "<plist version=\"1.0\">\n<dict>\n\t<key>A &amp; B</key>\n\t<string>it&#39;s &lt;&#x41;&gt;</string>\n\t<key>n</key><integer>-12</integer>\n\t<key>d</key><data>\n\tAAEC\n\t</data><key>e</key><string/><key>l</key><array><true/><false></false><real>1.5</real><date>2026-11-22T05:00:00Z</date></array></dict>\n</plist>\n";

    fn refused(text: &str) -> PlistError {
        match decode(text.as_bytes(), Limits::CHECKIN) {
            Err(e) => e,
            Ok(v) => panic!("accepted {text} as {v:?}"),
        }
    }

    fn wrapped(inner: &str) -> String {
        format!("{HEAD}<plist version=\"1.0\">{inner}</plist>")
    }

    #[test]
    fn what_apple_and_go_write_is_read() {
        let value = decode(format!("{HEAD}{GOOD}").as_bytes(), Limits::CHECKIN).unwrap();
        let dict = value.as_dictionary().unwrap();
        assert_eq!(dict.get("A & B").and_then(Value::as_string), Some("it's <A>"));
        assert_eq!(dict.get("d").and_then(Value::as_data), Some(&[0, 1, 2][..]));
        assert_eq!(dict.get("e").and_then(Value::as_string), Some(""));
        assert_eq!(dict.get("l").and_then(Value::as_array).map(Vec::len), Some(4));
        // without declaration and DOCTYPE, with a comment, with single quotes
        for head in ["", "<?xml version='1.0'?>", "<!-- made by hand -->\n"] {
            assert!(decode(format!("{head}{GOOD}").as_bytes(), Limits::CHECKIN).is_ok(), "{head}");
        }
    }

    #[test]
    fn what_encode_writes_is_what_decode_reads() {
        let mut dict = Dictionary::new();
        dict.insert("k<&\"'>".into(), "v\u{1}\u{1F600}\n".into());
        dict.insert("b".into(), Value::Data(vec![0; 300]));
        let back = decode(&encode(&Value::Dictionary(dict)), Limits::CHECKIN).unwrap();
        let back = back.into_dictionary().unwrap();
        assert_eq!(back.get("k<&\"'>").and_then(Value::as_string), Some("v\u{1F600}\n"));
        assert_eq!(back.get("b").and_then(Value::as_data).map(<[u8]>::len), Some(300));
    }

    #[test]
    fn th_19_entities_and_document_types() {
        let bomb =
            "<!DOCTYPE plist [<!ENTITY a \"aaaaaaaa\"><!ENTITY b \"&a;&a;&a;\">]><plist><string>&b;</string></plist>";
        let external =
            "<!DOCTYPE plist [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><plist><string>&x;</string></plist>";
        let subset = "<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\" [<!ENTITY a \"b\">]><plist><true/></plist>";
        let other = "<!DOCTYPE plist SYSTEM \"http://example.com/x.dtd\"><plist><true/></plist>";
        for text in [bomb, external, subset, other] {
            assert!(matches!(refused(text), PlistError::Syntax { .. }), "{text}");
        }
        for entity in [
            "&nope;",
            "&b",
            "&#0;",
            "&#x1F;",
            "&#xD800;",
            "&#x110000;",
            "&#;",
            "&#x;",
            "&#99999999999;",
            "&;",
            "& ",
            "&LT;",
        ] {
            refused(&wrapped(&format!("<string>{entity}</string>")));
            refused(&wrapped(&format!("<dict><key>{entity}</key><true/></dict>")));
        }
    }

    #[test]
    fn th_20_attributes_and_namespaces() {
        for inner in
            ["<dict a=\"b\"/>", "<string xml:space=\"preserve\">x</string>", "<x:dict/>", "<dict xmlns=\"u\"/>"]
        {
            refused(&wrapped(inner));
        }
        refused("<plist version=\"2.0\"><true/></plist>");
        refused("<plist version=\"1.0\" version=\"1.0\"><true/></plist>");
        refused("<plist xmlns=\"u\"><true/></plist>");
    }

    #[test]
    fn th_21_binary_and_bombs() {
        assert_eq!(decode(b"bplist00\xd0\x08", Limits::CHECKIN), Err(PlistError::Binary));
        let deep = |n: usize| wrapped(&format!("{}<true/>{}", "<array>".repeat(n), "</array>".repeat(n)));
        assert_eq!(refused(&deep(200_000)), PlistError::TooLarge(1 << 20));
        // Under the byte limit too, the nesting is refused before anything recurses, closed or not.
        assert_eq!(decode(deep(200_000).as_bytes(), Limits::REPORT), Err(PlistError::TooDeep(64)));
        assert_eq!(
            decode(wrapped(&"<array>".repeat(200_000)).as_bytes(), Limits::REPORT),
            Err(PlistError::TooDeep(64))
        );
        assert_eq!(
            decode(wrapped(&"<dict><key>a</key>".repeat(200_000)).as_bytes(), Limits::REPORT),
            Err(PlistError::TooDeep(64))
        );
        assert!(decode(deep(64).as_bytes(), Limits::CHECKIN).is_ok());
        assert_eq!(refused(&deep(65)), PlistError::TooDeep(64));
        let wide = wrapped(&format!("<array>{}</array>", "<true/>".repeat(100_000)));
        assert_eq!(refused(&wide), PlistError::TooManyNodes(100_000));
        assert_eq!(refused(&" ".repeat((1 << 20) + 1)), PlistError::TooLarge(1 << 20));
    }

    #[test]
    fn th_22_two_readers_could_differ() {
        assert_eq!(
            refused(&wrapped("<dict><key>UDID</key><string>a</string><key>UDID</key><string>b</string></dict>")),
            PlistError::DuplicateKey
        );
        assert_eq!(
            refused(&wrapped("<dict><key>UDID</key><string>a</string><key>&#85;DID</key><string>b</string></dict>")),
            PlistError::DuplicateKey
        );
        assert_eq!(
            refused(&wrapped(
                "<array><dict><key>a</key><dict><key>b</key><true/><key>b</key><true/></dict></dict></array>"
            )),
            PlistError::DuplicateKey
        );
        let utf16: Vec<u8> = wrapped("<true/>").encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(matches!(decode(&utf16, Limits::CHECKIN), Err(PlistError::NotText(_))));
        assert_eq!(decode(b"\xEF\xBB\xBF<plist><true/></plist>", Limits::CHECKIN), Err(PlistError::NotText(0)));
        assert!(matches!(
            decode(b"<plist><string>\xff</string></plist>", Limits::CHECKIN),
            Err(PlistError::NotText(15))
        ));
        assert!(matches!(refused("<plist><string>a\0b</string></plist>"), PlistError::NotText(_)));
        for text in [
            "<?xml version=\"1.0\" encoding=\"UTF-16\"?><plist><true/></plist>",
            "<PLIST><true/></PLIST>",
            "<plist><Dict/></plist>",
            "<plist><string>a<!-- b -->c</string></plist>",
            "<plist><string><![CDATA[a]]></string></plist>",
            "<plist><![CDATA[a]]><true/></plist>",
            "<plist><?php 1 ?><true/></plist>",
            "<plist><true/></plist><plist><false/></plist>",
            "<plist><true/></plist>\u{0}",
            "<plist><true/>",
            "<plist><true/><false/></plist>",
            "<plist></plist>",
            "<plist/>",
            "<plist><dict><string>a</string><key>b</key></dict></plist>",
            "<plist><dict><key>b</key></dict></plist>",
            "<plist><array><key>b</key></array></plist>",
            "<plist><true>x</true></plist>",
            "<plist><integer>twelve</integer></plist>",
            "<plist><data>!</data></plist>",
            "<plist><dict></array></plist>",
            "<dict/>",
            "",
        ] {
            refused(text);
        }
    }

    proptest! {
        #[test]
        fn th_23_arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = decode(&bytes, Limits::CHECKIN);
        }

        #[test]
        fn th_23_arbitrary_markup_never_panics(parts in prop::collection::vec(prop::sample::select(vec![
            "<plist>", "</plist>", "<dict>", "</dict>", "<array>", "</array>", "<key>", "</key>", "<string>", "</string>",
            "<data>", "</data>", "<integer>", "</integer>", "<real>", "</real>", "<date>", "</date>", "<true/>", "&#39;",
            "a", "12", "AAAA", "2026-11-22T05:00:00Z", "<!--", "-->", " ", "<string/>", "nan", "-0x1",
        ]), 0..60)) {
            let _ = decode(parts.concat().as_bytes(), Limits::CHECKIN);
            let _ = decode(wrapped(&parts.concat()).as_bytes(), Limits::CHECKIN);
        }

        #[test]
        fn th_23_mutated_lists_never_panic(at in 0..700_usize, len in 0..6_usize, put in prop::collection::vec(any::<u8>(), 0..6)) {
            let mut bytes = format!("{HEAD}{GOOD}").into_bytes();
            let from = at.min(bytes.len());
            let to = (from + len).min(bytes.len());
            bytes.splice(from..to, put);
            if let Ok(value) = decode(&bytes, Limits::CHECKIN) {
                // What was accepted once is accepted again in our own writing. (NaN is the one value unequal to itself.)
                prop_assert!(decode(&encode(&value), Limits::CHECKIN).is_ok());
            }
        }
    }
}
