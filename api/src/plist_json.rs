//! A property list shown as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mdm_core::plist::Value as Plist;
use serde_json::Value as Json;

/// Data becomes base64, a date RFC 3339; numbers, text, booleans, arrays and dictionaries stay what they are.
pub(crate) fn from_plist(value: Plist) -> Json {
    match value {
        Plist::Array(items) => items.into_iter().map(from_plist).collect(),
        Plist::Dictionary(entries) => entries.into_iter().map(|(key, value)| (key, from_plist(value))).collect(),
        Plist::Boolean(v) => v.into(),
        Plist::Data(bytes) => STANDARD.encode(bytes).into(),
        Plist::Date(date) => date.to_xml_format().into(),
        Plist::Integer(n) => {
            n.as_signed().map(Json::from).or_else(|| n.as_unsigned().map(Json::from)).unwrap_or_default()
        }
        Plist::Real(n) => n.into(),
        Plist::String(text) => text.into(),
        _ => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use mdm_core::plist::{Limits, decode};

    use super::*;

    #[test]
    fn every_type_has_its_json() {
        let xml = br#"<plist version="1.0"><dict><key>a</key><array><integer>-1</integer><real>0.5</real><true/></array>
            <key>d</key><data>AQI=</data><key>t</key><date>2026-11-22T05:00:00Z</date><key>s</key><string>x</string></dict></plist>"#;
        let json = from_plist(decode(xml, Limits::API).unwrap());
        let wanted = r#"{"a":[-1,0.5,true],"d":"AQI=","s":"x","t":"2026-11-22T05:00:00Z"}"#;
        assert_eq!(json, serde_json::from_str::<Json>(wanted).unwrap());
    }
}
