//! Macros that declare the tree. One declaration yields the struct or enum, default, reader, formatter and keys.
//!
//! Independent of the actual keys.

/// A struct of the tree in which every key has a default: `pub name: Type [codec] = default => "default in words",`.
/// The default and the codec may be omitted: then those of the type apply.
///
/// `#[live]` before `pub` marks a key that a running node applies at a reload. `#[live(|old, new| …)]` does so only if
/// the rule holds for the old and the new section. The rule reads keys without a mark, for they are the same in the
/// configuration in force.
macro_rules! section {
    ($(#[doc = $doc:literal])+ pub struct $name:ident {
        $($(#[doc = $text:literal])+ $(#[live $(($when:expr))?])?
            pub $field:ident: $type:ty $([$codec:expr])? $(= $default:expr $(=> $words:literal)?)?,)+
    }) => {
        tree_struct! {
            [Some(Default::default())] [Some(Self::default())]
            $(#[doc = $doc])+ pub struct $name {
                $($(#[doc = $text])+ [$(live $(($when))?)?]
                    pub $field: $type [either!($($codec)?; $crate::config::read::Plain)]
                    [either!($(Some($default))?; Some(Default::default()))] [either!($($(Some($words))?)?; None)],)+
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: either!($($default)?; Default::default()),)+ }
            }
        }
    };
}

/// A struct in a list of the tree. A key without a default is mandatory. A default may read the keys above it, each as
/// an `Option`, and always has a text in words. Marks are those of [`section!`]; a list takes its live keys only if all
/// others stay (see `Vec`).
macro_rules! item {
    ($(#[doc = $doc:literal])+ pub struct $name:ident {
        $($(#[doc = $text:literal])+ $(#[live $(($when:expr))?])?
            pub $field:ident: $type:ty $([$codec:expr])? $(= $default:expr => $words:literal)?,)+
    }) => {
        tree_struct! {
            [None] [None]
            $(#[doc = $doc])+ pub struct $name {
                $($(#[doc = $text])+ [$(live $(($when))?)?]
                    pub $field: $type [either!($($codec)?; $crate::config::read::Plain)]
                    [either!($(Some($default))?; None)] [either!($(Some($words))?; None)],)+
            }
        }
    };
}

macro_rules! tree_struct {
    ([$fallback:expr] [$whole:expr] $(#[doc = $doc:literal])+ pub struct $name:ident {
        $($(#[doc = $text:literal])+ [$($mark:tt)*]
            pub $field:ident: $type:ty [$codec:expr] [$default:expr] [$words:expr],)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, PartialEq)]
        pub struct $name {
            $($(#[doc = $text])+ pub $field: $type,)+
        }

        impl $crate::config::read::Setting for $name {
            fn expected() -> String {
                "a map".to_owned()
            }

            fn read(value: &$crate::config::read::value::Value, reader: &mut $crate::config::read::Reader<'_>) -> Option<Self> {
                reader.section(value, &[$(stringify!($field)),+])?;
                $(let $field: Option<$type> = reader.field(value, stringify!($field), &$codec, || $default);)+
                Some(Self { $($field: $field?,)+ })
            }

            fn show(&self) -> $crate::config::read::value::Value {
                use $crate::config::read::Codec as _;
                $crate::config::read::value::Value::map([$((stringify!($field), $codec.show(&self.$field))),+])
            }

            fn take_live(&mut self, new: &Self) {
                $(take_live!([$($mark)*] self, new, $field, $codec);)+
            }

            fn keys(path: &str, keys: &mut Vec<$crate::config::Key>) {
                use $crate::config::read::Codec as _;
                let whole: Option<Self> = $whole;
                $({
                    let words: Option<&str> = $words;
                    let shown = whole.as_ref().map(|whole| $codec.show(&whole.$field));
                    let default = words.map(str::to_owned).or_else(|| shown.map(|shown| shown.to_string()));
                    let key = (path, stringify!($field), is_live!([$($mark)*]));
                    $crate::config::keys::add::<$type>(keys, key, &[$($text),+], default, &$codec);
                })+
            }
        }

        /// As YAML, secrets masked.
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}", $crate::config::read::Setting::show(self))
            }
        }
    };
}

/// Takes one field from the new section if its mark allows it. Without a mark the keys below it decide.
macro_rules! take_live {
    ([] $own:ident, $new:ident, $field:ident, $codec:expr) => {
        $crate::config::read::Codec::take_live(&$codec, &mut $own.$field, &$new.$field)
    };
    ([live] $own:ident, $new:ident, $field:ident, $codec:expr) => {
        $own.$field.clone_from(&$new.$field)
    };
    ([live ($when:expr)] $own:ident, $new:ident, $field:ident, $codec:expr) => {
        if $crate::config::live::is_live_change::<Self>($when, $own, $new) {
            $own.$field.clone_from(&$new.$field);
        }
    };
}

/// True for a field with a mark.
macro_rules! is_live {
    ([]) => {
        false
    };
    ([live $($when:tt)?]) => {
        true
    };
}

/// An enum of the tree, with the configuration keyword of each variant.
macro_rules! keywords {
    ($(#[doc = $doc:literal])+ pub enum $name:ident { $($(#[doc = $text:literal])+ $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[doc = $text])+ $variant,)+
        }

        impl $name {
            /// The keyword in the configuration.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        keyword_setting!($name, [$((Self::$variant, $word)),+]);
    };
}

macro_rules! keyword_setting {
    ($name:ident, $words:expr) => {
        impl $crate::config::read::Setting for $name {
            fn expected() -> String {
                $crate::config::read::one_of(&$words.map(|(_, word)| word))
            }

            fn read(
                value: &$crate::config::read::value::Value,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> Option<Self> {
                reader.word(value, &$words)
            }

            fn show(&self) -> $crate::config::read::value::Value {
                let word = $words.iter().find(|(own, _)| own == self).map_or("", |(_, word)| word);
                $crate::config::read::value::Value::text(word)
            }
        }
    };
}

/// Expands to the first argument if it is given, else to the second.
macro_rules! either {
    (; $fallback:expr) => {
        $fallback
    };
    ($given:expr; $fallback:expr) => {
        $given
    };
}
