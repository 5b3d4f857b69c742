//! What changes between two documents, field by field.

use serde::Serialize;
use serde_json::{Map, Value as Json};

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Difference {
    /// The field, as the document spells it: `attest`, `exclude.labels`, `companions.office.ssid`.
    pub field: String,
    /// What it was; absent where it was not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub before: Option<Json>,
    /// What it becomes; absent where it is taken away.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub after: Option<Json>,
}

/// The fields in which two JSON documents differ, in the order of their names. Objects are looked into; arrays are one value, unless
/// each of their entries has a `name` of its own, by which they are then told apart.
pub fn differences(before: &Json, after: &Json) -> Vec<Difference> {
    let mut out = Vec::new();
    walk("", Some(before), Some(after), &mut out);
    out
}

fn walk(field: &str, before: Option<&Json>, after: Option<&Json>, out: &mut Vec<Difference>) {
    if before == after {
        return;
    }
    let under = |key: &str| if field.is_empty() { key.to_owned() } else { format!("{field}.{key}") };
    match (before.and_then(entries), after.and_then(entries)) {
        (Some(old), Some(new)) => {
            let mut keys: Vec<&str> = old.iter().chain(&new).map(|(key, _)| *key).collect();
            keys.sort_unstable();
            keys.dedup();
            let find = |entries: &[(&str, &'_ Json)], key: &str| entries.iter().position(|(k, _)| *k == key);
            let count = out.len();
            for key in keys {
                let old = find(&old, key).and_then(|n| old.get(n)).map(|(_, value)| *value);
                let new = find(&new, key).and_then(|n| new.get(n)).map(|(_, value)| *value);
                walk(&under(key), old, new, out);
            }
            // The same entries in another order: that is a difference, too.
            if out.len() == count {
                out.push(Difference { field: field.to_owned(), before: before.cloned(), after: after.cloned() });
            }
        }
        _ => out.push(Difference { field: field.to_owned(), before: before.cloned(), after: after.cloned() }),
    }
}

/// The parts of a value that have names.
fn entries(value: &Json) -> Option<Vec<(&str, &Json)>> {
    match value {
        Json::Object(map) => Some(map.iter().map(|(key, value)| (key.as_str(), value)).collect()),
        Json::Array(items) if !items.is_empty() => {
            let named: Option<Vec<_>> = items.iter().map(|item| Some((name(item.as_object()?)?, item))).collect();
            let mut seen = std::collections::BTreeSet::new();
            named.filter(|entries| entries.iter().all(|(key, _)| seen.insert(*key)))
        }
        _ => None,
    }
}

fn name(item: &Map<String, Json>) -> Option<&str> {
    item.get("name").and_then(Json::as_str)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn fields(before: Json, after: Json) -> Vec<String> {
        differences(&before, &after).into_iter().map(|d| d.field).collect()
    }

    #[test]
    fn each_field_that_differs_is_named_once() {
        let old = json!({"attest": "required", "key_size": 256, "subject": [[["CN", "a"]]], "exclude": {"labels": ["x"]},
            "companions": [{"name": "office", "ssid": "A"}, {"name": "vpn", "x": 1}]});
        let mut new = old.clone();
        assert_eq!(fields(old.clone(), new.clone()), Vec::<String>::new());
        new["key_size"] = json!(384);
        new["notes"] = json!("n");
        new["subject"] = json!([[["CN", "b"]]]);
        new["exclude"]["labels"] = json!(["x", "y"]);
        new["companions"][0]["ssid"] = json!("B");
        new.as_object_mut().unwrap().remove("attest");
        assert_eq!(
            fields(old.clone(), new),
            ["attest", "companions.office.ssid", "exclude.labels", "key_size", "notes", "subject"]
        );
        let mut other = old.clone();
        other["companions"] = json!([{"name": "vpn", "x": 1}, {"name": "office", "ssid": "A"}]);
        assert_eq!(fields(old.clone(), other), ["companions"], "another order");
        let mut fewer = old.clone();
        fewer["companions"] = json!([{"name": "vpn", "x": 1}]);
        assert_eq!(fields(old, fewer), ["companions.office"]);
    }

    #[test]
    fn a_field_that_comes_or_goes_has_one_side_only() {
        let all = differences(&json!({"a": 1}), &json!({"b": 2}));
        let a = Difference { field: "a".into(), before: Some(json!(1)), after: None };
        let b = Difference { field: "b".into(), before: None, after: Some(json!(2)) };
        assert_eq!(all, [a, b]);
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Json::from),
            any::<i8>().prop_map(Json::from),
            "[a-c]{0,2}".prop_map(Json::from)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
                prop::collection::btree_map("[a-c]|name", inner, 0..4).prop_map(|m| m.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_differs_exactly_where_the_documents_are_equal(before in any_json(), after in any_json()) {
            prop_assert_eq!(differences(&before, &after).is_empty(), before == after);
            prop_assert!(differences(&before, &before).is_empty());
        }
    }
}
