//! `--object`: things that image options refer to.

use cairn_block::options::parse_json_or_keyval;

use crate::error::{Error, Result};

/// Creates the objects described by `texts`.
///
/// No image format or protocol that this program has needs an object, so there are no types of them:
/// a description is checked for its form and then refused.
pub(crate) fn create(texts: &[String]) -> Result<()> {
    texts.iter().try_for_each(|text| {
        let object = parse_json_or_keyval(text, "qom-type")?;
        let part = |key| object.get(key).and_then(|value| value.as_str());
        let problem = match (part("qom-type"), part("id")) {
            (None, _) => format!("object '{text}' has no type"),
            (Some(_), None) => format!("object '{text}' has no id"),
            (Some(kind), Some(id)) => {
                format!("object '{id}': there are no objects of type '{kind}' in this version")
            }
        };
        Err(Error::Usage(problem))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_refused_with_the_reason() {
        let error = |text: &str| create(&[text.to_owned()]).expect_err(text).to_string();
        assert!(error("secret,id=s0,data=x").contains("type 'secret'"));
        assert!(error(r#"{"qom-type": "iothread", "id": "io0"}"#).contains("type 'iothread'"));
        assert!(error("secret,data=x").contains("no id"));
        assert!(create(&[]).is_ok());
    }
}
