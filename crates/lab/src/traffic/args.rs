//! `--name value` pairs; the helpers are called by the lab only and need no more.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::error::{LabError, Result};

/// Parsed `--name value` pairs.
#[derive(Debug)]
pub struct Args {
    values: BTreeMap<String, String>,
}

impl Args {
    /// Parses pairs.
    ///
    /// # Errors
    /// [`LabError::Usage`] for a word without `--`, a name twice, or a missing value.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Args> {
        let mut values = BTreeMap::new();
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix("--") else {
                return Err(LabError::Usage(format!(
                    "traffic: {word:?} is not an option"
                )));
            };
            let value = words.next();
            let value = value.ok_or_else(|| LabError::Usage(format!("--{name} needs a value")))?;
            if values.insert(name.to_owned(), value).is_some() {
                return Err(LabError::Usage(format!("--{name} is given twice")));
            }
        }
        Ok(Args { values })
    }

    /// The value of an option, parsed; `None` if it was not given.
    ///
    /// # Errors
    /// [`LabError::Usage`] if it does not parse.
    pub fn get<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        let Some(text) = self.values.get(name) else {
            return Ok(None);
        };
        let value = text.parse();
        value
            .map(Some)
            .map_err(|_| LabError::Usage(format!("--{name} {text:?}: cannot be read")))
    }

    /// The value of an option that must be given.
    ///
    /// # Errors
    /// [`LabError::Usage`] if it is missing or does not parse.
    pub fn need<T: FromStr>(&self, name: &str) -> Result<T> {
        self.get(name)?
            .ok_or_else(|| LabError::Usage(format!("--{name} is needed")))
    }

    /// The value of an option, or `default`.
    ///
    /// # Errors
    /// [`LabError::Usage`] if it does not parse.
    pub fn or<T: FromStr>(&self, name: &str, default: T) -> Result<T> {
        Ok(self.get(name)?.unwrap_or(default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args> {
        Args::parse(line.split_whitespace().map(ToOwned::to_owned))
    }

    #[test]
    fn reads_pairs() {
        let args = parse("--streams 16 --host api.example.com").unwrap();
        assert_eq!(args.need::<usize>("streams").unwrap(), 16);
        assert_eq!(args.or("host", String::new()).unwrap(), "api.example.com");
        assert_eq!(args.get::<u8>("port").unwrap(), None);
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        for bad in ["x", "--a", "--a 1 --a 2"] {
            assert!(matches!(parse(bad), Err(LabError::Usage(_))), "{bad}");
        }
        let args = parse("--streams many").unwrap();
        assert!(args.need::<usize>("streams").is_err());
        assert!(args.need::<usize>("seconds").is_err());
    }
}
