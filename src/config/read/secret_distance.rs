//! Keeps secrets out of faults: classifies keys by their distance to a secret key.
//!
//! Reads the table of keys; sees no values.

use std::sync::OnceLock;

use crate::config::keys;

/// Position of a path relative to secret keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum SecretDistance {
    /// No secret is near.
    None,
    /// Secrets are further below.
    Ancestor,
    /// One of the direct subkeys is a secret.
    Parent,
    /// The path is a secret, or part of one.
    Secret,
}

impl SecretDistance {
    pub(in crate::config) fn of(path: &str) -> Self {
        static SECRETS: OnceLock<Vec<String>> = OnceLock::new();
        let secrets = SECRETS.get_or_init(|| {
            let is_secret = keys().into_iter().filter(|key| key.is_secret);
            is_secret.map(|key| key.path).collect()
        });
        let path = without_numbers(path);
        let below = |whole: &str, part: &str| match whole.strip_prefix(part) {
            Some(rest) if part.is_empty() || rest.starts_with(['.', '[']) => {
                Some(rest.trim_start_matches('.').to_owned())
            }
            _ => None,
        };
        let distances = secrets.iter().map(|secret| match (below(secret, &path), below(&path, secret)) {
            _ if path == *secret => Self::Secret,
            (_, Some(_)) => Self::Secret,
            (Some(rest), _) if !rest.contains(['.', '[']) => Self::Parent,
            (Some(_), _) => Self::Ancestor,
            (None, None) => Self::None,
        });
        distances.max_by_key(|secret_distance| *secret_distance as u8).unwrap_or(Self::None)
    }
}

/// Turns `keys[3].name` into its form in the table of keys: `keys[].name`.
fn without_numbers(path: &str) -> String {
    path.split('[').enumerate().fold(String::new(), |whole, (index, part)| match index {
        0 => part.to_owned(),
        _ => format!("{whole}[{}", part.trim_start_matches(|c: char| c.is_ascii_digit())),
    })
}

/// Strips additions of editors and `echo` from a text of a file or variable: a byte order mark and one line break.
pub(in crate::config) fn as_written(text: &str) -> &str {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text))
}
