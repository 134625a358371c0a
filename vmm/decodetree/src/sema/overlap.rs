//! Overlaps between patterns.
//!
//! Members of the file and of `[…]` groups must not overlap. Members of `{…}` groups may, but then
//! the shorter instruction must come first: its length has to be known before more is fetched.

use crate::ast::Member;
use crate::diagnostic::{Diagnostic, Errors};
use crate::model::Pattern;
use crate::source::{Source, Span};

/// A pattern together with the span of its name.
type Leaf<'a> = (&'a Pattern, Span);

/// Checks the members of a file; `patterns` are its patterns in order.
pub(super) fn check(
    source: &Source,
    members: &[Member],
    patterns: &[Pattern],
    errors: &mut Errors,
) {
    let mut rest = patterns.iter();
    members_of(source, members, false, &mut rest, errors);
}

fn members_of<'a>(
    source: &Source,
    members: &[Member],
    overlap: bool,
    patterns: &mut std::slice::Iter<'a, Pattern>,
    errors: &mut Errors,
) -> Vec<Leaf<'a>> {
    let mut before: Vec<Leaf<'a>> = Vec::new();
    for member in members {
        let leaves = match member {
            Member::Pattern(encoding) => {
                patterns.next().map(|pattern| (pattern, encoding.name.span)).into_iter().collect()
            }
            Member::Group(group) => {
                members_of(source, &group.members, group.overlap, patterns, errors)
            }
        };
        for leaf in &leaves {
            if let Some(error) = clash(source, &before, leaf, overlap) {
                errors.push(error);
            }
        }
        before.extend(leaves);
    }
    before
}

/// The first earlier pattern that `leaf` must not follow. One error a pattern is enough.
fn clash(
    source: &Source,
    before: &[Leaf<'_>],
    leaf: &Leaf<'_>,
    overlap: bool,
) -> Option<Diagnostic> {
    let (pattern, span) = *leaf;
    let (_, first) = *before.iter().find(|(earlier, _)| {
        earlier.overlaps(pattern) && (!overlap || earlier.width > pattern.width)
    })?;
    let message = if overlap {
        format!(
            "'{}' overlaps an earlier pattern that is longer: put the shorter first",
            pattern.name
        )
    } else {
        format!("'{}' overlaps an earlier pattern outside of a {{ }} group", pattern.name)
    };
    Some(Diagnostic::new(source, span, message).note(source, first, "overlaps this pattern"))
}
