//! `--object`: things that image options refer to, such as secrets, credentials and throttle groups.

use std::borrow::Cow;
use std::ffi::OsString;

use cairn_block::graph::Graph;
use cairn_block::object::{self, OBJECTS};
use cairn_block::options::help::table;
use cairn_block::options::{OptionError, Value, parse_json_or_keyval, wants_help};

use crate::error::{Error, Result};

/// What `--object help` prints, and what `--object TYPE,help` prints for a type.
fn help(text: &str) -> Option<String> {
    if matches!(text, "help" | "?") {
        let names = OBJECTS.iter().map(|object| format!("  {}\n", object.name));
        return Some(format!("Types of objects:\n{}", names.collect::<String>()));
    }
    let (kind, rest) = text.split_once(',')?;
    let object = OBJECTS.iter().find(|object| object.name == kind)?;
    wants_help(rest).then(|| {
        let options: Vec<_> = object.options.iter().collect();
        let place = match object.prefix {
            "" => "besides id".to_owned(),
            prefix => format!("each behind '{prefix}'"),
        };
        format!("Options of '{kind}', {place}:\n{}", table(&options))
    })
}

/// The help about objects that the arguments of the process ask for, whatever else they say.
pub fn asked_help(argv: &[OsString]) -> Option<String> {
    let mut words = argv.iter().skip(1).map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        let text = match word.as_ref() {
            "--" => return None,
            "--object" => words.next().map(Cow::into_owned),
            other => other.strip_prefix("--object=").map(str::to_owned),
        };
        if let Some(help) = text.as_deref().and_then(help) {
            return Some(help);
        }
    }
    None
}

/// Adds the objects described by `texts` to `graph`. What is wrong with a text is said without
/// repeating it, since it may contain a secret.
pub fn create(graph: &Graph, texts: &[String]) -> Result<()> {
    texts.iter().try_for_each(|text| {
        let mut options = parse_json_or_keyval(text, "qom-type").map_err(hide_values)?;
        let mut part = |key: &str| match options.remove(key) {
            Some(Value::Str(text)) if !text.is_empty() => Some(text),
            _ => None,
        };
        let Some(kind) = part("qom-type") else {
            return Err(Error::Usage("--object needs the type of the object".to_owned()));
        };
        let Some(id) = part("id") else {
            return Err(Error::Usage(format!("the object of type '{kind}' needs an id")));
        };
        Ok(object::create(graph, &kind, &id, options)?)
    })
}

fn hide_values(error: OptionError) -> Error {
    let problem = match error {
        OptionError::Syntax { problem, .. } => format!("a part of it {problem}"),
        OptionError::Json(error) => error.to_string(),
        _ => "it is malformed".to_owned(),
    };
    Error::Usage(format!("cannot read the description of an object: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_added() {
        let graph = Graph::new();
        let texts = [
            "secret,id=s0,data=let,,me,format=raw".to_owned(),
            r#"{"qom-type": "secret", "id": "s1", "data": "in"}"#.to_owned(),
        ];
        create(&graph, &texts).expect("valid");
        assert_eq!(graph.secrets().find("s0").expect("added").expose(), b"let,me");
        assert_eq!(graph.secrets().find("s1").expect("added").expose(), b"in");
    }

    #[test]
    fn help_lists_types_and_their_options() {
        let asked = |words: &str| {
            let argv: Vec<OsString> = words.split(' ').map(OsString::from).collect();
            asked_help(&argv)
        };
        let help = |text: &str| asked(&format!("tool check --object {text}")).expect("help");
        assert!(help("help").contains("  secret\n") && help("?").contains("  throttle-group\n"));
        assert!(help("secret,help").contains("  data=<str>"));
        assert!(help("throttle-group,help").contains("  iops-total=<num>"));
        assert!(asked("tool --object=help").is_some());
        assert_eq!(asked("tool --object secret,id=s0,data=help"), None);
        assert_eq!(asked("tool -- --object help"), None);
    }

    #[test]
    fn throttle_groups_are_added() {
        let graph = Graph::new();
        let texts = [
            "throttle-group,id=a,limits.iops-total=100,x-bps-read=4096".to_owned(),
            r#"{"qom-type": "throttle-group", "id": "b", "limits": {"bps-total": 1}}"#.to_owned(),
        ];
        create(&graph, &texts).expect("valid");
        assert!(graph.throttle_groups().find("a").is_ok());
        assert!(graph.throttle_groups().find("b").is_ok());
    }

    #[test]
    fn mistakes_are_named_without_the_text() {
        let error = |text: &str| {
            let error = create(&Graph::new(), &[text.to_owned()]).expect_err(text).to_string();
            assert!(!error.contains("hush"), "{error}");
            error
        };
        assert!(error("iothread,id=io0").contains("'iothread'"));
        assert!(error(r#"{"qom-type": "secret", "id": "s0"}"#).contains("exactly one"));
        assert!(error(r#"{"qom-type": "secret", "data": "hush""#).contains("JSON"));
    }
}
