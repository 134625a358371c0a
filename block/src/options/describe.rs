//! Typed descriptions of options: one declaration gives a struct, its parser and its help.
//!
//! ```
//! use cairn_block::options::{Dict, Size};
//!
//! cairn_block::options! {
//!     /// Creation options of some format.
//!     pub struct CreateOptions {
//!         /// Size of the virtual disk.
//!         "size" => size: Option<Size>,
//!         /// Unit of allocation.
//!         "cluster_size" => cluster_size: Size = "64k",
//!         /// Old way to ask for encryption.
//!         "encryption" => encryption: bool = "off" [deprecated "use encrypt.format=aes"],
//!     }
//! }
//!
//! let options = CreateOptions::parse(Dict::from([("size", "1G")]), "format 'some'").unwrap();
//! assert_eq!(options.size, Some(Size(1 << 30)));
//! assert_eq!(options.cluster_size, Size(65536));
//! ```

use super::error::OptionError;
use super::value::{Dict, Value};

/// Type of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionKind {
    /// `on` or `off`.
    Bool,
    /// A child node: the name of a node or the options of a new one.
    Child,
    /// One of these words.
    Enum(&'static [&'static str]),
    /// A list of values of one kind.
    List(&'static OptionKind),
    /// An integer.
    Num,
    /// Bytes, with an optional binary suffix.
    Size,
    /// Text.
    Str,
    /// A group of options.
    Struct(&'static [OptionDesc]),
}

/// Description of one option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionDesc {
    /// Name; dots lead into nested groups.
    pub name: &'static str,
    /// Type.
    pub kind: OptionKind,
    /// What it does, for people.
    pub help: &'static str,
    /// Default, as the user would write it.
    pub default: Option<&'static str>,
    /// Must be given.
    pub required: bool,
    /// Changes what the guest sees, so that a filename alone does not describe the node.
    pub strong: bool,
    /// Accepted, but to be avoided: what to do instead.
    pub deprecated: Option<&'static str>,
}

/// A type that the value of an option can have.
pub trait OptionType: Sized {
    /// How the type is described.
    const KIND: OptionKind;

    /// Whether the option must be given unless it has a default.
    const REQUIRED: bool = true;

    /// Reads the value of the option `name`: text as in key=value syntax, or a JSON value.
    fn from_value(name: &str, value: Value) -> Result<Self, OptionError>;

    /// What an absent option without a default means.
    fn absent(name: &str) -> Result<Self, OptionError> {
        Err(OptionError::Missing { name: name.to_owned() })
    }
}

impl<T: OptionType> OptionType for Option<T> {
    const KIND: OptionKind = T::KIND;
    const REQUIRED: bool = false;

    fn from_value(name: &str, value: Value) -> Result<Self, OptionError> {
        T::from_value(name, value).map(Some)
    }

    fn absent(_: &str) -> Result<Self, OptionError> {
        Ok(None)
    }
}

/// Takes the option `name` out of `options`, or what `default` says.
pub fn take_option<T: OptionType>(
    options: &mut Dict,
    name: &str,
    default: Option<&str>,
) -> Result<T, OptionError> {
    match (options.take_path(name), default) {
        (Some(value), _) => T::from_value(name, value),
        (None, Some(default)) => T::from_value(name, default.into()),
        (None, None) => T::absent(name),
    }
}

/// Fails with [`OptionError::Unknown`] if `options` is not empty. `owner` is whom the options were
/// meant for, `known` the tables of the options that were taken out before.
pub fn reject_leftovers(
    options: &Dict,
    owner: &str,
    known: &[&[OptionDesc]],
) -> Result<(), OptionError> {
    match super::tree::flatten(options.clone()).first() {
        None => Ok(()),
        Some((name, _)) => Err(OptionError::unknown(name, owner, known)),
    }
}

/// What to tell the user about deprecated options among `options`.
pub fn deprecations(options: &Dict, table: &[OptionDesc]) -> Vec<String> {
    let given = |desc: &&OptionDesc| options.get_path(desc.name).is_some();
    let warning = |desc: &OptionDesc| {
        desc.deprecated.map(|hint| format!("option '{}' is deprecated: {hint}", desc.name))
    };
    table.iter().filter(given).filter_map(warning).collect()
}

/// Declares a struct of options: see [`options::describe`](crate::options::describe).
///
/// A field is `"name" => field: Type`, then an optional default `= "text"` in the user's notation,
/// then optional marks in brackets: `strong`, `deprecated "what to do instead"`. Its doc comment is
/// the help text. Fields have the struct's visibility. The struct gets
/// * `TABLE`, the static descriptions in order of declaration,
/// * `take(&mut Dict)`, which takes its options out of a larger set, and
/// * `parse(Dict, owner)`, which refuses options that are left.
///
/// The defaults of creation options are shown to the user when an image is created. Where the
/// reference does not show one, the field is an `Option` and the driver knows what `None` means.
///
/// It is an [`OptionType`] itself, for groups of options.
#[macro_export]
macro_rules! options {
    ($(#[$attribute:meta])* $vis:vis struct $Struct:ident {
        $($(#[doc = $help:literal])+ $name:literal => $field:ident: $Type:ty $(= $default:literal)?
            $([$($marks:tt)*])?),* $(,)?
    }) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $Struct {
            $($(#[doc = $help])+ $vis $field: $Type,)*
        }

        impl $Struct {
            /// The options, in order of declaration.
            $vis const TABLE: &'static [$crate::options::OptionDesc] = &[$(
                $crate::options::OptionDesc {
                    name: $name,
                    kind: <$Type as $crate::options::OptionType>::KIND,
                    help: concat!($($help),+).trim_ascii(),
                    default: $crate::__option_mark!(default $($default)?),
                    required: <$Type as $crate::options::OptionType>::REQUIRED
                        && $crate::__option_mark!(default $($default)?).is_none(),
                    strong: $crate::__option_mark!(strong $($($marks)*)?),
                    deprecated: $crate::__option_mark!(deprecated $($($marks)*)?),
                },
            )*];

            /// Takes these options out of `options`.
            #[allow(dead_code, reason = "some groups are only read by `parse`")]
            $vis fn take(
                options: &mut $crate::options::Dict,
            ) -> ::std::result::Result<Self, $crate::options::OptionError> {
                Ok(Self {
                    $($field: $crate::options::take_option(
                        options,
                        $name,
                        $crate::__option_mark!(default $($default)?),
                    )?,)*
                })
            }

            /// Reads these options and refuses any other, which `owner` then does not have.
            #[allow(dead_code, reason = "some sets are only read by `take`")]
            $vis fn parse(
                mut options: $crate::options::Dict,
                owner: &str,
            ) -> ::std::result::Result<Self, $crate::options::OptionError> {
                let parsed = Self::take(&mut options)?;
                $crate::options::reject_leftovers(&options, owner, &[Self::TABLE])?;
                Ok(parsed)
            }
        }

        impl $crate::options::OptionType for $Struct {
            const KIND: $crate::options::OptionKind =
                $crate::options::OptionKind::Struct(Self::TABLE);
            const REQUIRED: bool = false;

            fn from_value(
                name: &str,
                value: $crate::options::Value,
            ) -> ::std::result::Result<Self, $crate::options::OptionError> {
                match value {
                    $crate::options::Value::Dict(group) => {
                        Self::parse(group, "this group").map_err(|error| error.within(name))
                    }
                    other => Err($crate::options::OptionError::invalid(
                        name,
                        &other,
                        "a group of options",
                    )),
                }
            }

            fn absent(
                name: &str,
            ) -> ::std::result::Result<Self, $crate::options::OptionError> {
                Self::take(&mut $crate::options::Dict::new()).map_err(|error| error.within(name))
            }
        }
    };
}

/// Reads the default and the marks of a field of [`options!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __option_mark {
    (default) => { ::std::option::Option::<&'static str>::None };
    (default $default:literal) => { ::std::option::Option::<&'static str>::Some($default) };
    (strong) => { false };
    (strong strong $($rest:tt)*) => { true };
    (strong deprecated $hint:literal $($rest:tt)*) => { $crate::__option_mark!(strong $($rest)*) };
    (strong , $($rest:tt)*) => { $crate::__option_mark!(strong $($rest)*) };
    (deprecated) => { ::std::option::Option::<&'static str>::None };
    (deprecated deprecated $hint:literal $($rest:tt)*) => {
        ::std::option::Option::<&'static str>::Some($hint)
    };
    (deprecated strong $($rest:tt)*) => { $crate::__option_mark!(deprecated $($rest)*) };
    (deprecated , $($rest:tt)*) => { $crate::__option_mark!(deprecated $($rest)*) };
}

/// Declares an enum whose variants are words in options: `Variant = "word" | "other spelling"`.
///
/// The enum gets `WORDS` (the first spellings), `as_str`, `from_word` and `Display`, and is an
/// [`OptionType`].
#[macro_export]
macro_rules! option_words {
    ($(#[$attribute:meta])* $vis:vis enum $Enum:ident {
        $($(#[$variant_attribute:meta])* $Variant:ident = $word:literal $(| $spelling:literal)*),*
        $(,)?
    }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $Enum {
            $($(#[$variant_attribute])* $Variant,)*
        }

        impl $Enum {
            /// The words, each in its first spelling.
            $vis const WORDS: &'static [&'static str] = &[$($word),*];

            /// The word for this variant.
            $vis fn as_str(self) -> &'static str {
                match self {
                    $(Self::$Variant => $word,)*
                }
            }

            /// The variant that `word` stands for.
            $vis fn from_word(word: &str) -> ::std::option::Option<Self> {
                match word {
                    $($word $(| $spelling)* => Some(Self::$Variant),)*
                    _ => None,
                }
            }
        }

        impl ::std::fmt::Display for $Enum {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl $crate::options::OptionType for $Enum {
            const KIND: $crate::options::OptionKind = $crate::options::OptionKind::Enum(Self::WORDS);

            fn from_value(
                name: &str,
                value: $crate::options::Value,
            ) -> ::std::result::Result<Self, $crate::options::OptionError> {
                value.as_str().and_then(Self::from_word).ok_or_else(|| {
                    let expected = format!("one of {}", Self::WORDS.join(", "));
                    $crate::options::OptionError::invalid(name, &value, expected)
                })
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::super::types::{ChildRef, Size};
    use super::*;

    option_words! {
        /// Colours.
        enum Colour {
            /// Red.
            Red = "red" | "crimson",
            /// Green.
            Green = "green",
        }
    }

    options! {
        /// A group.
        struct Inner {
            /// Port.
            "port" => port: u32,
            /// Host.
            "host" => host: String = "localhost",
        }
    }

    options! {
        /// Everything that options can be.
        struct Outer {
            /// Help text that
            /// goes on.
            "size" => size: Option<Size> [strong],
            /// A flag.
            "cache.direct" => direct: bool = "off",
            /// An old flag.
            "old-flag" => old_flag: Option<bool> [strong, deprecated "use cache.direct"],
            /// A word.
            "colour" => colour: Colour = "green",
            /// A number.
            "number" => number: i64,
            /// A child.
            "file" => file: Option<ChildRef>,
            /// A group.
            "server" => server: Option<Inner>,
            /// A list.
            "servers" => servers: Vec<Inner>,
        }
    }

    fn parse(text: &str) -> Result<Outer, OptionError> {
        Outer::parse(super::super::parse_keyval(text, None)?, "test")
    }

    #[test]
    fn tables_describe_fields() {
        let size = Outer::TABLE[0];
        assert_eq!((size.name, size.kind), ("size", OptionKind::Size));
        assert_eq!(size.help, "Help text that goes on.");
        assert!(size.strong && !size.required && size.deprecated.is_none());
        assert_eq!(Outer::TABLE[2].deprecated, Some("use cache.direct"));
        assert!(Outer::TABLE[2].strong);
        assert_eq!(Outer::TABLE[3].kind, OptionKind::Enum(&["red", "green"]));
        assert_eq!(Outer::TABLE[3].default, Some("green"));
        assert!(Outer::TABLE[4].required && !Outer::TABLE[3].required);
        assert_eq!(Outer::TABLE[7].kind, OptionKind::List(&OptionKind::Struct(Inner::TABLE)));
    }

    #[test]
    fn text_and_json_give_the_same() {
        let text = concat!(
            "size=1M,cache.direct=yes,colour=crimson,number=-0x10,file=node0,",
            "server.port=1,servers.0.port=2,servers.0.host=h"
        );
        let json = "{'size': 1048576, 'cache': {'direct': true}, 'colour': 'red', 'number': -16,
            'file': 'node0', 'server': {'port': 1.0}, 'servers': [{'port': 2, 'host': 'h'}]}";
        let expected = Outer {
            size: Some(Size(1 << 20)),
            direct: true,
            old_flag: None,
            colour: Colour::Red,
            number: -16,
            file: Some(ChildRef::Node("node0".into())),
            server: Some(Inner { port: 1, host: "localhost".into() }),
            servers: vec![Inner { port: 2, host: "h".into() }],
        };
        assert_eq!(parse(text).as_ref(), Ok(&expected));
        let Ok(Value::Dict(dict)) = super::super::json::parse(json) else {
            panic!("not an object")
        };
        assert_eq!(Outer::parse(dict, "test"), Ok(expected));
    }

    #[test]
    fn errors_name_the_option() {
        for (text, message) in [
            ("colour=red", "option 'number' is required"),
            ("number=1,coluor=red", "test has no option 'coluor' (did you mean 'colour'?)"),
            (
                "number=1,cache.dierct=on",
                "test has no option 'cache.dierct' (did you mean 'cache.direct'?)",
            ),
            ("number=x", "option 'number': 'x' is not an integer"),
            ("number=1,colour=blue", "option 'colour': 'blue' is not one of red, green"),
            (
                "number=1,size=1q",
                "option 'size': '1q' is not a size in bytes such as 4096, 64K or 1.5G",
            ),
            ("number=1,cache.direct=ON", "option 'cache.direct': 'ON' is not 'on' or 'off'"),
            (
                "number=1,server.port=5000000000",
                "option 'server.port': '5000000000' is not an integer from 0 to 4294967295",
            ),
            ("number=1,server.host=a", "option 'server.port' is required"),
            ("number=1,servers.0.prot=1", "option 'servers.0.port' is required"),
            (
                "number=1,servers.0.port=1,servers.0.foo=1",
                "this group has no option 'servers.0.foo'",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn deprecated_options_are_named() {
        let dict = Dict::from([("old-flag", "on")]);
        assert_eq!(
            deprecations(&dict, Outer::TABLE),
            ["option 'old-flag' is deprecated: use cache.direct"]
        );
    }
}
