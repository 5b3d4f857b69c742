//! JSON in which no key is given twice. Which of the two was meant nobody knows, and the one that is dropped may be the stricter one.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};

/// How much of a key is told.
const TOLD: usize = 64;

/// A JSON value that is refused where an object in it, at any depth, has a key twice: serde's `duplicate field`.
#[derive(Debug, Clone, PartialEq)]
pub struct UniqueKeys(pub Json);

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut out = Vec::new();
        while let Some(UniqueKeys(item)) = items.next_element()? {
            out.push(item);
        }
        Ok(Json::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut out = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if out.contains_key(&key) {
                let key: String = key.chars().take(TOLD).collect();
                return Err(A::Error::custom(format!("duplicate field `{key}`")));
            }
            let UniqueKeys(value) = entries.next_value()?;
            out.insert(key, value);
        }
        Ok(Json::Object(out))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_twice_is_refused_at_any_depth() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"b":2,"a":null}}]"#, "{\"a\":1,\"\\u0061\":2}"] {
            let refused = serde_json::from_str::<UniqueKeys>(text).unwrap_err();
            assert!(refused.is_data() && refused.to_string().starts_with("duplicate field `a`"), "{text}: {refused}");
        }
        let text = r#"{"a":{"a":[{"a":1},{"a":-2.5}]},"b":[true,null,"x",18446744073709551615]}"#;
        assert_eq!(serde_json::from_str::<UniqueKeys>(text).unwrap().0, serde_json::from_str::<Json>(text).unwrap());
        assert!(serde_json::from_str::<UniqueKeys>(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn other_json_is_read_as_ever(text in r#"[\[\]{}:,"a0-9.\-]{0,24}"#) {
            let as_ever = serde_json::from_str::<Json>(&text).ok();
            match serde_json::from_str::<UniqueKeys>(&text) {
                Ok(read) => prop_assert_eq!(Some(read.0), as_ever),
                Err(e) => prop_assert!(as_ever.is_none() || e.to_string().contains("duplicate field")),
            }
        }
    }
}
