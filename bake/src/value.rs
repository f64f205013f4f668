//! Values of keys as texts.

use serde_json::Value;

/// The text of a text, a number or a boolean.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// The keys and texts of an object; what is null is left out.
pub fn pairs(value: &Value) -> Option<Vec<(String, String)>> {
    let fields = value.as_object()?.iter().filter(|(_, value)| !value.is_null());
    fields.map(|(key, value)| Some((key.clone(), text(value)?))).collect()
}

/// The texts of a list, or of one text; an object in it is a list of fields:
/// `type=registry,ref=…`.
pub fn list(value: &Value) -> Option<Vec<String>> {
    let one = |value: &Value| match value {
        Value::Object(_) => {
            let quoted = |(key, value): (String, String)| match value.contains([',', '"']) {
                true => format!("\"{key}={}\"", value.replace('"', "\"\"")),
                false => format!("{key}={value}"),
            };
            Some(pairs(value)?.into_iter().map(quoted).collect::<Vec<_>>().join(","))
        }
        plain => text(plain),
    };
    match value {
        Value::Array(items) => items.iter().map(one).collect(),
        Value::String(text) => Some(vec![text.clone()]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_texts() {
        assert_eq!(list(&json!(["a", 1, true])).unwrap(), ["a", "1", "true"]);
        assert_eq!(list(&json!("a")).unwrap(), ["a"]);
        let fields = json!([{ "type": "registry", "ref": "a,b", "mode": null }]);
        assert_eq!(list(&fields).unwrap(), ["\"ref=a,b\",type=registry"]);
        assert_eq!(pairs(&json!({ "a": 1, "b": null })).unwrap(), [("a".into(), "1".into())]);
        assert!(list(&json!(1)).is_none() && pairs(&json!([])).is_none());
        assert!(list(&json!([[]])).is_none());
    }
}
