//! Names of generated items.

use std::collections::BTreeSet;

/// `name`, with a number behind it if it is taken.
pub(super) fn unique(names: &mut BTreeSet<String>, name: String) -> String {
    let mut result = name.clone();
    let mut number = 1_usize;
    while !names.insert(result.clone()) {
        number = number.saturating_add(1);
        result = format!("{name}{number}");
    }
    result
}

/// `reg_imm` as `RegImm`.
pub(super) fn camel(name: &str) -> String {
    let capital = |word: &str| {
        let mut chars = word.chars();
        let first = chars.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(chars.map(|c| c.to_ascii_lowercase())).collect::<String>()
    };
    name.split('_').map(capital).collect()
}

/// Words that need `r#` to be names in Rust 2024; the parser refuses those that cannot be names at all.
const KEYWORDS: [&str; 48] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "do", "dyn",
    "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let",
    "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return",
    "static", "struct", "trait", "true", "try", "type", "typeof", "unsafe", "unsized", "use",
    "virtual", "where", "while", "yield",
];

/// `name` as a Rust identifier.
pub(super) fn ident(name: &str) -> String {
    let raw = KEYWORDS.contains(&name);
    if raw { format!("r#{name}") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_rust_names() {
        assert_eq!(camel("reg_imm"), "RegImm");
        assert_eq!((ident("and"), ident("match")), ("and".into(), "r#match".into()));
        let mut names = BTreeSet::new();
        assert_eq!(unique(&mut names, "a".into()), "a");
        assert_eq!(unique(&mut names, "a".into()), "a2");
    }
}
