//! Taking the keys that we know out of a dictionary, by type; what is left over is kept, never refused.

use super::{Dictionary, Value};

/// A key of a message that is missing or does not hold what it should. Names the key, never its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// A key that must be there is not, or is empty.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The value is of another type.
    #[error("{key} is not a {wanted}")]
    Type {
        /// The key.
        key: &'static str,
        /// The type that it should have, in the property list's words.
        wanted: &'static str,
    },
    /// The value is of the right type, but not of the right form.
    #[error("{key}: {why}")]
    Form {
        /// The key.
        key: &'static str,
        /// What would be right.
        why: &'static str,
    },
}

/// A dictionary that is taken apart.
#[derive(Clone, PartialEq)]
pub struct Fields(Dictionary);

macro_rules! take {
    ($(#[$doc:meta])* $name:ident, $wanted:literal, $variant:ident, $type:ty) => {
        $(#[$doc])*
        pub fn $name(&mut self, key: &'static str) -> Result<Option<$type>, FieldError> {
            match self.0.remove(key) {
                None => Ok(None),
                Some(Value::$variant(v)) => Ok(Some(v)),
                Some(_) => Err(FieldError::Type { key, wanted: $wanted }),
            }
        }
    };
}

impl Fields {
    /// Of this dictionary.
    pub fn new(dictionary: Dictionary) -> Self {
        Self(dictionary)
    }

    take! {
        /// Takes a boolean.
        boolean, "boolean", Boolean, bool
    }
    take! {
        /// Takes a dictionary.
        dictionary, "dictionary", Dictionary, Dictionary
    }
    take! {
        /// Takes an array.
        array, "array", Array, Vec<Value>
    }
    take! {
        /// Takes data; empty data is `Some` of nothing.
        data, "data", Data, Vec<u8>
    }
    take! {
        /// Takes a string as it is, also an empty one.
        any_string, "string", String, String
    }

    /// Takes a string; clients send an empty one for what they do not know, so that counts as absent.
    pub fn string(&mut self, key: &'static str) -> Result<Option<String>, FieldError> {
        Ok(self.any_string(key)?.filter(|s| !s.is_empty()))
    }

    /// Takes a string that must be there.
    pub fn required_string(&mut self, key: &'static str) -> Result<String, FieldError> {
        self.string(key)?.ok_or(FieldError::Missing(key))
    }

    /// Takes a value of whatever type.
    pub fn value(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key)
    }

    /// The keys that nobody took.
    pub fn rest(self) -> Dictionary {
        self.0
    }
}
