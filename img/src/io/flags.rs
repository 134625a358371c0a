//! Words of a command line: letters with or without values, and operands, in any order.

/// A command's words, sorted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flags<'a> {
    given: Vec<(char, Option<&'a str>)>,
    /// What is no flag, in order.
    pub(super) operands: Vec<&'a str>,
}

impl<'a> Flags<'a> {
    /// Sorts `words`. `letters` are the flags that `command` has; those before a colon take a value,
    /// which may be a word of its own. On failure returns the line to print.
    pub(super) fn parse(
        command: &str,
        letters: &str,
        words: &'a [String],
    ) -> Result<Flags<'a>, String> {
        let mut flags = Flags { given: Vec::new(), operands: Vec::new() };
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            if word == "--" {
                flags.operands.extend(words);
                break;
            }
            let Some(cluster) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
                flags.operands.push(word);
                continue;
            };
            let mut rest = cluster.chars();
            while let Some(letter) = rest.next() {
                match letters.find(letter) {
                    Some(at) if letter != ':' => {
                        if letters[at..].chars().nth(1) != Some(':') {
                            flags.given.push((letter, None));
                            continue;
                        }
                        let value = match rest.as_str() {
                            "" => words.next().ok_or_else(|| {
                                format!("{command}: option requires an argument -- '{letter}'")
                            })?,
                            glued => glued,
                        };
                        flags.given.push((letter, Some(value)));
                        break;
                    }
                    _ => return Err(format!("{command}: invalid option -- '{letter}'")),
                }
            }
        }
        Ok(flags)
    }

    /// Whether a flag was given.
    pub(super) fn has(&self, letter: char) -> bool {
        self.given.iter().any(|(given, _)| *given == letter)
    }

    /// The value of a flag; the last one counts.
    pub(super) fn value(&self, letter: char) -> Option<&'a str> {
        self.values(letter).last()
    }

    /// All values of a flag.
    pub(super) fn values(&self, letter: char) -> impl Iterator<Item = &'a str> {
        let matching = self.given.iter().filter(move |(given, _)| *given == letter);
        matching.filter_map(|(_, value)| *value)
    }
}

/// Splits a line into words.
pub(super) fn words(line: &str) -> Vec<String> {
    line.split_ascii_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(line: &str) -> Result<(String, Vec<String>), String> {
        let words = words(line);
        let flags = Flags::parse("read", "qvP:s:", &words)?;
        let letters = flags
            .given
            .iter()
            .map(|(letter, value)| format!("{letter}{}", value.unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(" ");
        Ok((letters, flags.operands.iter().map(|word| (*word).to_owned()).collect()))
    }

    #[test]
    fn flags_and_operands_mix() {
        for (line, letters, operands) in [
            ("0 512", "", "0 512"),
            ("-q 0 512 -v", "q v", "0 512"),
            ("-qP 1 0 512", "q P1", "0 512"),
            ("-P0x7 0 -s 4 512", "P0x7 s4", "0 512"),
            ("-q -- -1 512", "q", "-1 512"),
            ("- 512", "", "- 512"),
        ] {
            let (found, rest) = given(line).expect(line);
            assert_eq!((found.as_str(), rest.join(" ").as_str()), (letters, operands), "{line}");
        }
    }

    #[test]
    fn mistakes_name_the_letter() {
        assert_eq!(given("-x").expect_err("x"), "read: invalid option -- 'x'");
        assert_eq!(given("-:").expect_err(":"), "read: invalid option -- ':'");
        assert_eq!(given("0 -1").expect_err("1"), "read: invalid option -- '1'");
        assert_eq!(given("-P").expect_err("P"), "read: option requires an argument -- 'P'");
    }

    #[test]
    fn the_last_value_counts() {
        let words = words("-P 1 -P 2");
        let flags = Flags::parse("read", "P:", &words).expect("flags");
        assert_eq!(flags.value('P'), Some("2"));
        assert!(flags.has('P') && !flags.has('q'));
    }
}
