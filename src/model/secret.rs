//! Secrets: values that travel on stdin only and never show in a log, an error, a plan or an argument list.

use std::fmt;

use serde::{Serialize, Serializer};

/// A value that must not be seen; its `Debug`, `Display` and JSON forms say `<redacted>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that feeds it to a process's stdin or a libvirt call.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}
impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("<redacted>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_form_of_a_secret_shows_it() {
        let secret = Secret::new("canary");
        let json = serde_json::to_string(&secret).unwrap();
        assert!(
            ![format!("{secret}"), format!("{secret:?}"), json].iter().any(|text| text.contains("canary"))
        );
    }
}
