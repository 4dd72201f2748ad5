//! SQLite's functions whose time is the product of the lengths of their arguments, in linear time. SQLite
//! looks at a statement's time only between its instructions, and a call of a function is one of them.

use std::borrow::Cow;
use std::collections::HashSet;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Error};

/// Functions that take too long with large arguments and are not available: they are rare.
pub(super) const REFUSED: [&str; 2] = ["json_patch", "jsonb_patch"];

/// A function of SQLite that is replaced.
type Replacement = fn(&Context<'_>) -> rusqlite::Result<Value>;

/// The functions with the number of their arguments.
const REPLACED: [(&str, i32, Replacement); 6] = [
    ("instr", 2, instr),
    ("replace", 3, replace),
    ("trim", 2, |context| trim(context, [true, true])),
    ("ltrim", 2, |context| trim(context, [true, false])),
    ("rtrim", 2, |context| trim(context, [false, true])),
    ("unhex", 2, |_| Err(refused("unhex takes one argument here"))),
];

/// Replaces the functions on a connection.
pub(super) fn replace_all(connection: &Connection) -> rusqlite::Result<()> {
    let flags =
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    REPLACED.into_iter().try_for_each(|(name, arguments, function)| {
        connection.create_scalar_function(name, arguments, flags, function)
    })
}

fn refused(says: &str) -> Error {
    Error::UserFunctionError(says.into())
}

/// Returns an argument as text, as SQLite converts it. `None`: it is null.
fn text<'c>(context: &'c Context<'_>, argument: usize) -> Option<Cow<'c, str>> {
    match context.get_raw(argument) {
        ValueRef::Null => None,
        ValueRef::Integer(integer) => Some(integer.to_string().into()),
        ValueRef::Real(real) => Some(format!("{real:?}").into()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes)),
    }
}

/// `instr(X, Y)`: the place of Y in X from 1, in characters, or in bytes of two blobs; 0 if it is not there.
fn instr(context: &Context<'_>) -> rusqlite::Result<Value> {
    if let (ValueRef::Blob(in_bytes), ValueRef::Blob(bytes)) = (context.get_raw(0), context.get_raw(1)) {
        let place = memchr::memmem::find(in_bytes, bytes).map_or(0, |place| place + 1);
        return Ok(Value::Integer(place as i64));
    }
    let (Some(in_text), Some(wanted)) = (text(context, 0), text(context, 1)) else { return Ok(Value::Null) };
    let place = in_text.find(&*wanted).map_or(0, |place| in_text[..place].chars().count() + 1);
    Ok(Value::Integer(place as i64))
}

/// `replace(X, Y, Z)`: X with Z in place of each Y.
fn replace(context: &Context<'_>) -> rusqlite::Result<Value> {
    let (Some(in_text), Some(wanted)) = (text(context, 0), text(context, 1)) else { return Ok(Value::Null) };
    let Some(by) = text(context, 2) else { return Ok(Value::Null) };
    if wanted.is_empty() {
        return Ok(Value::Text(in_text.into_owned()));
    }
    let times = in_text.matches(&*wanted).count();
    if in_text.len() + times * by.len() > super::guard::MAX_VALUE_BYTES {
        return Err(refused("string or blob too big"));
    }
    Ok(Value::Text(in_text.replace(&*wanted, &by)))
}

/// `trim(X, Y)`: X without the characters of Y at its beginning and its end.
fn trim(context: &Context<'_>, [start, end]: [bool; 2]) -> rusqlite::Result<Value> {
    let (Some(of_text), Some(characters)) = (text(context, 0), text(context, 1)) else {
        return Ok(Value::Null);
    };
    let characters: HashSet<char> = characters.chars().collect();
    let is_one = |character: char| characters.contains(&character);
    let mut trimmed = &*of_text;
    if start {
        trimmed = trimmed.trim_start_matches(is_one);
    }
    if end {
        trimmed = trimmed.trim_end_matches(is_one);
    }
    Ok(Value::Text(trimmed.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_replaced_functions_answer_as_those_of_sqlite() {
        let (own, builtin) = (Connection::open_in_memory().unwrap(), Connection::open_in_memory().unwrap());
        replace_all(&own).unwrap();
        let answer = |connection: &Connection, expression: &str| {
            connection.query_row(&format!("SELECT {expression}"), [], |row| row.get::<_, Value>(0)).unwrap()
        };
        for expression in [
            "instr('abcabc', 'ca')",
            "instr('äöü', 'ü')",
            "instr('abc', 'x')",
            "instr('abc', '')",
            "instr('', '')",
            "instr(x'010203', x'0203')",
            "instr(x'610203', 'a')",
            "instr(12345, 34)",
            "instr(2.5, '.')",
            "instr(NULL, 'a')",
            "instr('a', NULL)",
            "replace('a-b-c', '-', '+++')",
            "replace('a-b-c', '', 'x')",
            "replace('a-b-c', '-', '')",
            "replace(101, 1, 2)",
            "replace(NULL, 'a', 'b')",
            "replace('a', 'a', NULL)",
            "trim('xxaxx', 'x')",
            "trim('äaÖä', 'äÖ')",
            "ltrim('xyaxy', 'yx')",
            "rtrim('xyaxy', 'yx')",
            "trim('  a ', ' ')",
            "trim('aaa', 'a')",
            "trim('abc', '')",
            "trim(NULL, 'a')",
            "trim('a', NULL)",
            "trim('  a ')",
            "unhex('6162')",
        ] {
            assert_eq!(answer(&own, expression), answer(&builtin, expression), "{expression}");
        }
    }
}
