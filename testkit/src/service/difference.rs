//! The differences between two JSON values.

use serde_json::Value;

/// Returns one line for each place that differs, by its JSON pointer; empty if the values are equal.
pub(super) fn difference(expected: &Value, got: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", Some(expected), Some(got), &mut lines);
    lines
}

/// None: there is no value at this place.
fn compare(at: &str, expected: Option<&Value>, got: Option<&Value>, lines: &mut Vec<String>) {
    match (expected, got) {
        (Some(Value::Object(expected)), Some(Value::Object(got))) => {
            for (key, value) in expected {
                compare(&format!("{at}/{key}"), Some(value), got.get(key), lines);
            }
            for (key, value) in got.iter().filter(|(key, _)| !expected.contains_key(*key)) {
                compare(&format!("{at}/{key}"), None, Some(value), lines);
            }
        }
        (Some(Value::Array(expected)), Some(Value::Array(got))) => {
            for index in 0..expected.len().max(got.len()) {
                compare(&format!("{at}/{index}"), expected.get(index), got.get(index), lines);
            }
        }
        (Some(expected), Some(got)) if expected == got => {}
        (expected, got) => lines.push(format!("at {at:?}: expected {}, got {}", shown(expected), shown(got))),
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), Value::to_string)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_place_that_differs_is_named() {
        let table = [
            (json!({"a": [1, {"b": null}]}), json!({"a": [1, {"b": null}]}), vec![]),
            (json!(1), json!("1"), vec![r#"at "": expected 1, got "1""#]),
            (
                json!({"a": 1, "b": [2, 3]}),
                json!({"b": [2, 4, 5], "c": null}),
                vec![
                    r#"at "/a": expected 1, got nothing"#,
                    r#"at "/b/1": expected 3, got 4"#,
                    r#"at "/b/2": expected nothing, got 5"#,
                    r#"at "/c": expected nothing, got null"#,
                ],
            ),
        ];
        for (expected, got, lines) in table {
            assert_eq!(difference(&expected, &got), lines, "{expected} against {got}");
        }
    }
}
