//! Authorization: the objects `authz-simple`, `authz-list` and `authz-list-file`, which decide by name
//! who may use a server.
//!
//! The name is what TLS has established: the distinguished name of a certificate's owner (RFC 4514).

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Op, Result};
use crate::graph::Graph;
use crate::options::{Dict, parse_json_or_keyval};

/// Largest file with rules, in bytes.
const MAX_FILE: u64 = 1 << 20;

crate::option_words! {
    /// What becomes of a name.
    #[derive(Default)]
    pub enum Verdict {
        /// It may not.
        #[default]
        Deny = "deny",
        /// It may.
        Allow = "allow",
    }
}

crate::option_words! {
    /// How a rule's text is compared with a name.
    #[derive(Default)]
    pub enum Match {
        /// Both are the same.
        #[default]
        Exact = "exact",
        /// `*` stands for any text, `?` for any character.
        Glob = "glob",
    }
}

crate::options! {
    /// Options of `authz-simple`.
    pub(crate) struct SimpleOptions {
        /// The only name that is allowed
        "identity" => identity: String,
    }
}

crate::options! {
    /// One rule of a list.
    pub(crate) struct RuleOptions {
        /// Names that the rule is about
        "match" => pattern: String,
        /// What becomes of them: deny or allow
        "policy" => policy: Verdict,
        /// How names are compared: exact or glob
        "format" => format: Match = "exact",
    }
}

crate::options! {
    /// Options of `authz-list`, and content of the file of `authz-list-file`.
    pub(crate) struct ListOptions {
        /// What becomes of names that no rule is about: deny or allow
        "policy" => policy: Verdict = "deny",
        /// Rules, the first of which that fits decides
        "rules" => rules: Vec<RuleOptions>,
    }
}

crate::options! {
    /// Options of `authz-list-file`.
    pub(crate) struct FileOptions {
        /// File with the list as JSON
        "filename" => filename: String,
        /// Whether changes of the file count while the program runs
        "refresh" => refresh: bool = "on",
    }
}

/// Who may.
pub struct Authorizer {
    id: String,
    kind: Kind,
}

enum Kind {
    File { path: PathBuf, last: Mutex<ListOptions> },
    List(ListOptions),
    Simple(String),
}

impl Authorizer {
    /// Whether the peer called `name` may. Rules in a file are read again if that was asked for; if
    /// they cannot be read any more, the last ones stay in force.
    pub fn is_allowed(&self, name: &str) -> bool {
        match &self.kind {
            Kind::File { path, last } => {
                let mut last = last.lock();
                if let Ok(list) = read_list(path) {
                    *last = list;
                }
                last.allows(name)
            }
            Kind::List(list) => list.allows(name),
            Kind::Simple(identity) => identity == name,
        }
    }
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorizer({})", self.id)
    }
}

impl ListOptions {
    fn allows(&self, name: &str) -> bool {
        let fits = |rule: &&RuleOptions| match rule.format {
            Match::Exact => rule.pattern == name,
            Match::Glob => glob(&rule.pattern, name),
        };
        let verdict = self.rules.iter().find(fits).map_or(self.policy, |rule| rule.policy);
        verdict == Verdict::Allow
    }
}

/// Whether `text` fits `pattern`, in which `*` stands for any text and `?` for any character. Takes no
/// more steps than the product of the lengths.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on if what follows the last star does not fit.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(&c) if c == '?' || text.get(t) == Some(&c) => {
                p += 1;
                t += 1;
            }
            _ => match &mut retry {
                Some((after, from)) => {
                    *from += 1;
                    (p, t) = (*after, *from);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|&c| c == '*')
}

fn read_list(path: &Path) -> Result<ListOptions> {
    use std::io::Read;

    let name = path.display().to_string();
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        .map_err(|error| Error::os(Op::Open, name.clone(), None, error))?;
    let text = text.trim_start();
    if !text.starts_with('{') {
        return Err(Error::unsupported(name, "it is no JSON object with rules"));
    }
    let within = |error: crate::options::OptionError| Error::from(error).context(name.clone());
    let dict = parse_json_or_keyval(text, "policy").map_err(within)?;
    ListOptions::parse(dict, "the list of rules").map_err(within)
}

/// Adds the object of type `kind` with these `options` to `graph`, as `id`.
pub(crate) fn create(graph: &Graph, kind: &str, id: &str, options: Dict) -> Result<()> {
    let owner = format!("object type '{kind}'");
    let options = crate::options::expand(options)?;
    let kind = match kind {
        "authz-simple" => Kind::Simple(SimpleOptions::parse(options, &owner)?.identity),
        "authz-list" => Kind::List(ListOptions::parse(options, &owner)?),
        _ => {
            let options = FileOptions::parse(options, &owner)?;
            let path = PathBuf::from(options.filename);
            let list = read_list(&path)?;
            if options.refresh {
                Kind::File { path, last: Mutex::new(list) }
            } else {
                Kind::List(list)
            }
        }
    };
    graph.authorizers().add(Authorizer { id: id.to_owned(), kind })
}

/// Authorizers by their IDs.
#[derive(Debug, Default)]
pub struct Authorizers(Mutex<HashMap<String, Arc<Authorizer>>>);

impl Authorizers {
    fn add(&self, authorizer: Authorizer) -> Result<()> {
        let mut all = self.0.lock();
        if all.contains_key(&authorizer.id) {
            let problem = "exists already";
            return Err(Error::Name { what: "object", name: authorizer.id, problem });
        }
        all.insert(authorizer.id.clone(), Arc::new(authorizer));
        Ok(())
    }

    /// The authorizer called `id`.
    pub fn find(&self, id: &str) -> Result<Arc<Authorizer>> {
        self.0.lock().get(id).cloned().ok_or_else(|| Error::Name {
            what: "authorization object",
            name: id.to_owned(),
            problem: "does not exist; define it with --object authz-list,id=…",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_fit_as_a_whole() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("CN=*,O=x", "CN=a b,O=x", true),
            ("CN=*,O=x", "CN=a,O=xy", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b", "xaxbxb", true),
            ("*a*b", "xaxbx", false),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
        assert!(!glob(&"*a".repeat(50), &"a".repeat(49)));
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let graph = Graph::new();
        let options = "policy=deny,rules.0.match=CN=bad,rules.0.policy=deny,rules.1.match=CN=*,\
                       rules.1.policy=allow,rules.1.format=glob";
        let dict = parse_json_or_keyval(options, "policy").expect("valid");
        create(&graph, "authz-list", "a", dict).expect("valid");
        let list = graph.authorizers().find("a").expect("added");
        assert!(list.is_allowed("CN=good"));
        assert!(!list.is_allowed("CN=bad") && !list.is_allowed("O=x"));
        assert!(graph.authorizers().find("b").is_err());
    }

    #[test]
    fn a_file_is_read_again() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let rule = r#" {"policy": "allow", "rules": [{"match": "x", "policy": "deny"}]}"#;
        std::fs::write(file.path(), rule).expect("written");
        let graph = Graph::new();
        let dict = Dict::from([("filename", file.path().to_str().expect("text"))]);
        create(&graph, "authz-list-file", "a", dict).expect("valid");
        let list = graph.authorizers().find("a").expect("added");
        assert!(list.is_allowed("y") && !list.is_allowed("x"));
        std::fs::write(file.path(), r#"{"policy": "deny"}"#).expect("written");
        assert!(!list.is_allowed("y"));
        std::fs::write(file.path(), "nonsense").expect("written");
        assert!(!list.is_allowed("y"));
    }
}
