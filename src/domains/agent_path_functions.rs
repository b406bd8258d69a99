//! Functions that templates of agent paths have besides Go's own: those of SPIRE's (which come from
//! sprig) that make one text of others. As there, what is worked on is the last argument, and lengths
//! count bytes.

use std::fmt::Write as _;

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use gtmpl_ng::{Func, FuncError, Value};

type Outcome = Result<Value, FuncError>;

/// By name.
pub(super) const FUNCTIONS: [(&str, Func); 19] = [
    ("contains", contains),
    ("default", default),
    ("first", first),
    ("hasPrefix", has_prefix),
    ("hasSuffix", has_suffix),
    ("join", join),
    ("last", last),
    ("lower", lower),
    ("nospace", no_space),
    ("replace", replace),
    ("sha1sum", sha1_sum),
    ("sha256sum", sha256_sum),
    ("splitList", split_list),
    ("trim", trim),
    ("trimAll", trim_all),
    ("trimPrefix", trim_prefix),
    ("trimSuffix", trim_suffix),
    ("trunc", trunc),
    ("upper", upper),
];

fn contains(arguments: &[Value]) -> Outcome {
    let [part, text] = texts("contains", arguments)?;
    Ok(Value::Bool(text.contains(part)))
}

/// The second, unless it is empty.
fn default(arguments: &[Value]) -> Outcome {
    let [preset, value] = arguments else {
        return Err(FuncError::ExactlyXArgs("default".into(), 2));
    };
    let is_empty = match value {
        Value::NoValue | Value::Nil | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        _ => false,
    };
    Ok(if is_empty { preset } else { value }.clone())
}

fn first(arguments: &[Value]) -> Outcome {
    let items = list("first", arguments.first())?;
    Ok(items.first().cloned().unwrap_or(Value::Nil))
}

fn has_prefix(arguments: &[Value]) -> Outcome {
    let [prefix, text] = texts("hasPrefix", arguments)?;
    Ok(Value::Bool(text.starts_with(prefix)))
}

fn has_suffix(arguments: &[Value]) -> Outcome {
    let [suffix, text] = texts("hasSuffix", arguments)?;
    Ok(Value::Bool(text.ends_with(suffix)))
}

fn join(arguments: &[Value]) -> Outcome {
    let [separator, items] = arguments else {
        return Err(FuncError::ExactlyXArgs("join".into(), 2));
    };
    let separator = text("join", separator)?;
    let items = list("join", Some(items))?.iter();
    let items: Vec<_> = items.map(ToString::to_string).collect();
    Ok(Value::String(items.join(separator)))
}

fn last(arguments: &[Value]) -> Outcome {
    let items = list("last", arguments.first())?;
    Ok(items.last().cloned().unwrap_or(Value::Nil))
}

fn lower(arguments: &[Value]) -> Outcome {
    let [text] = texts("lower", arguments)?;
    Ok(Value::String(text.to_lowercase()))
}

fn no_space(arguments: &[Value]) -> Outcome {
    let [text] = texts("nospace", arguments)?;
    let kept = text.chars().filter(|char| !char.is_whitespace());
    Ok(Value::String(kept.collect()))
}

fn replace(arguments: &[Value]) -> Outcome {
    let [old, new, text] = texts("replace", arguments)?;
    Ok(Value::String(text.replace(old, new)))
}

fn sha1_sum(arguments: &[Value]) -> Outcome {
    let [text] = texts("sha1sum", arguments)?;
    Ok(sum(&SHA1_FOR_LEGACY_USE_ONLY, text))
}

fn sha256_sum(arguments: &[Value]) -> Outcome {
    let [text] = texts("sha256sum", arguments)?;
    Ok(sum(&SHA256, text))
}

fn split_list(arguments: &[Value]) -> Outcome {
    let [separator, text] = texts("splitList", arguments)?;
    // Go gives the characters alone, without the empty texts around them.
    let parts: Vec<_> = if separator.is_empty() {
        text.chars()
            .map(|char| Value::String(char.into()))
            .collect()
    } else {
        let parts = text.split(separator);
        parts.map(|part| Value::String(part.into())).collect()
    };
    Ok(Value::Array(parts))
}

fn trim(arguments: &[Value]) -> Outcome {
    let [text] = texts("trim", arguments)?;
    Ok(Value::String(text.trim().into()))
}

/// Without any of the characters of the first at both ends.
fn trim_all(arguments: &[Value]) -> Outcome {
    let [characters, text] = texts("trimAll", arguments)?;
    let trimmed = text.trim_matches(|char| characters.contains(char));
    Ok(Value::String(trimmed.into()))
}

fn trim_prefix(arguments: &[Value]) -> Outcome {
    let [prefix, text] = texts("trimPrefix", arguments)?;
    Ok(Value::String(
        text.strip_prefix(prefix).unwrap_or(text).into(),
    ))
}

fn trim_suffix(arguments: &[Value]) -> Outcome {
    let [suffix, text] = texts("trimSuffix", arguments)?;
    Ok(Value::String(
        text.strip_suffix(suffix).unwrap_or(text).into(),
    ))
}

/// So many bytes of the beginning, or of the end if the number is below zero.
fn trunc(arguments: &[Value]) -> Outcome {
    let [Value::Number(length), value] = arguments else {
        let problem = "trunc takes a whole number and a text";
        return Err(FuncError::Generic(problem.into()));
    };
    let text = text("trunc", value)?;
    let length = length.as_i64().unwrap_or(i64::MAX);
    let kept = usize::try_from(length.unsigned_abs()).unwrap_or(usize::MAX);
    if kept >= text.len() {
        return Ok(Value::String(text.into()));
    }
    let kept = if length < 0 {
        text.get(text.len() - kept..)
    } else {
        text.get(..kept)
    };
    let kept = kept.ok_or_else(|| FuncError::Generic("trunc cuts a character".into()))?;
    Ok(Value::String(kept.into()))
}

fn upper(arguments: &[Value]) -> Outcome {
    let [text] = texts("upper", arguments)?;
    Ok(Value::String(text.to_uppercase()))
}

fn sum(algorithm: &'static Algorithm, text: &str) -> Value {
    let mut digits = String::new();
    for byte in digest(algorithm, text.as_bytes()).as_ref() {
        // Writing into a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    Value::String(digits)
}

/// The arguments of a function that takes so many texts.
fn texts<'a, const N: usize>(
    name: &str,
    arguments: &'a [Value],
) -> Result<[&'a str; N], FuncError> {
    let texts = arguments.iter().map(|value| text(name, value));
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    texts
        .try_into()
        .map_err(|_| FuncError::ExactlyXArgs(name.into(), N))
}

fn text<'a>(name: &str, value: &'a Value) -> Result<&'a str, FuncError> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(FuncError::Generic(format!("{name}: {other} is no text"))),
    }
}

fn list<'a>(name: &str, value: Option<&'a Value>) -> Result<&'a [Value], FuncError> {
    match value {
        Some(Value::Array(items)) => Ok(items),
        _ => Err(FuncError::Generic(format!(
            "{name}: the argument is no list"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, arguments: &[Value]) -> Result<String, String> {
        let (_, function) = FUNCTIONS.iter().find(|(known, _)| *known == name).unwrap();
        let outcome = function(arguments).map(|value| value.to_string());
        outcome.map_err(|error| error.to_string())
    }

    fn texts(values: &[&str]) -> Vec<Value> {
        values
            .iter()
            .map(|it| Value::String((*it).into()))
            .collect()
    }

    /// Compared with what sprig 3.3 gives.
    #[test]
    fn functions_do_what_those_of_sprig_do() {
        for (name, arguments, expected) in [
            ("contains", &["b", "abc"][..], "true"),
            ("default", &["a", ""], "a"),
            ("default", &["a", "b"], "b"),
            ("hasPrefix", &["ab", "abc"], "true"),
            ("hasSuffix", &["ab", "abc"], "false"),
            ("lower", &["A-B"], "a-b"),
            ("nospace", &[" a b\tc "], "abc"),
            ("replace", &[".", "-", "a.b.c"], "a-b-c"),
            (
                "sha1sum",
                &["abc"],
                "a9993e364706816aba3e25717850c26c9cd0d89d",
            ),
            (
                "sha256sum",
                &["abc"],
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            ("splitList", &[".", "a.b."], "[a b ]"),
            ("splitList", &["", "ab"], "[a b]"),
            ("trim", &[" a "], "a"),
            ("trimAll", &["$-", "$-a$b-$"], "a$b"),
            ("trimPrefix", &["-", "--a"], "-a"),
            ("trimSuffix", &[".org", "a.org"], "a"),
            ("upper", &["a-b"], "A-B"),
        ] {
            let found = call(name, &texts(arguments));
            assert_eq!(found.as_deref(), Ok(expected), "{name} {arguments:?}");
        }
        let items = Value::Array(texts(&["a", "b"]));
        assert_eq!(call("first", std::slice::from_ref(&items)).unwrap(), "a");
        assert_eq!(call("last", std::slice::from_ref(&items)).unwrap(), "b");
        let joined = call("join", &[Value::String("-".into()), items]);
        assert_eq!(joined.unwrap(), "a-b");
        for (length, expected) in [(2, "ab"), (9, "abc"), (-1, "c"), (0, "")] {
            let arguments = [Value::from(length), Value::String("abc".into())];
            assert_eq!(call("trunc", &arguments).unwrap(), expected, "{length}");
        }
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for (name, arguments) in [
            ("lower", vec![]),
            ("lower", texts(&["a", "b"])),
            ("lower", vec![Value::NoValue]),
            ("replace", texts(&["a", "b"])),
            ("first", texts(&["a"])),
            ("join", texts(&["a"])),
            ("default", texts(&["a"])),
            ("trunc", texts(&["a", "b"])),
            ("trunc", vec![Value::from(1), Value::String("ü".into())]),
        ] {
            assert!(call(name, &arguments).is_err(), "{name} {arguments:?}");
        }
    }
}
