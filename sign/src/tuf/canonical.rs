//! The form of JSON that is signed: OLPC canonical JSON.

use serde_json::Value;

/// The bytes that a signature of this value is over.
///
/// # Errors
/// It has a number with a fraction, which has no canonical form.
pub(super) fn bytes(value: &Value) -> Result<Vec<u8>, String> {
    let mut text = String::new();
    write(value, &mut text)?;
    Ok(text.into_bytes())
}

fn write(value: &Value, text: &mut String) -> Result<(), String> {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) if number.is_i64() || number.is_u64() => {
            text.push_str(&number.to_string());
        }
        Value::Number(number) => return Err(format!("it has the number {number}")),
        Value::String(value) => quote(value, text),
        Value::Array(values) => {
            text.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(value, text)?;
            }
            text.push(']');
        }
        Value::Object(fields) => {
            let mut names: Vec<_> = fields.iter().collect();
            names.sort_by_key(|(name, _)| *name);
            text.push('{');
            for (index, (name, value)) in names.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                quote(name, text);
                text.push(':');
                write(value, text)?;
            }
            text.push('}');
        }
    }
    Ok(())
}

/// Only two characters are escaped; the ends of lines of a PEM key, say, stand as they are.
fn quote(value: &str, text: &mut String) {
    text.push('"');
    for character in value.chars() {
        if matches!(character, '"' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_in_order_and_only_two_characters_are_escaped() {
        let value = json!({ "b": [1, null, true], "a": "x\n\"\\" });
        let expected = "{\"a\":\"x\n\\\"\\\\\",\"b\":[1,null,true]}";
        assert_eq!(bytes(&value).unwrap(), expected.as_bytes());
        assert!(bytes(&json!({ "a": 1.5 })).is_err());
    }
}
