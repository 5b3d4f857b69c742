//! Who sits in front of the screen.

use std::collections::BTreeMap;

use crate::page::{Field, Form, Kind};

/// The person in front of the screen, and what they type.
#[derive(Debug, Clone, Default)]
pub struct Person {
    answers: BTreeMap<String, String>,
}

impl Person {
    /// Somebody who can only press buttons.
    pub fn nobody() -> Self {
        Self::default()
    }

    /// Somebody with an invitation code.
    pub fn with_code(code: &str) -> Self {
        Self::nobody().answering("code", code)
    }

    /// Somebody with an account at the identity provider.
    pub fn with_password(login: &str, password: &str) -> Self {
        Self::nobody().answering("login", login).answering("password", password)
    }

    /// Types this into fields of this name. `code`, `login` and `password` also fit fields of similar meaning.
    #[must_use]
    pub fn answering(mut self, field: &str, text: &str) -> Self {
        self.answers.insert(field.to_owned(), text.to_owned());
        self
    }

    fn answer(&self, field: &Field) -> Option<&str> {
        let exact = self.answers.get(&field.name);
        let meant = || {
            let name = field.name.to_ascii_lowercase();
            let of = |words: &[&str]| words.iter().any(|word| name.contains(word));
            let meaning = if field.kind == Kind::Password || of(&["password"]) {
                "password"
            } else if of(&["code", "invitation"]) {
                "code"
            } else if of(&["login", "user", "email", "account", "identifier"]) {
                "login"
            } else {
                return None;
            };
            self.answers.get(meaning)
        };
        exact.or_else(meant).map(String::as_str)
    }

    /// What this person sends with a form; `None` where they have no answer to a field.
    pub(super) fn fill(&self, form: &Form) -> Option<Vec<(String, String)>> {
        let mut pairs = Vec::new();
        let mut pressed = false;
        for field in &form.fields {
            let value = match field.kind {
                Kind::Hidden => field.value.clone(),
                Kind::Text | Kind::Password => match self.answer(field) {
                    Some(answer) => answer.to_owned(),
                    None if !field.value.is_empty() || !field.required && field.kind == Kind::Text => {
                        field.value.clone()
                    }
                    None => return None,
                },
                Kind::Tick if field.checked || field.required => field.value.clone(),
                Kind::Tick => continue,
                // The first button counts as the one that goes on.
                Kind::Button if pressed => continue,
                Kind::Button => {
                    pressed = true;
                    field.value.clone()
                }
            };
            if !field.name.is_empty() {
                pairs.push((field.name.clone(), value));
            }
        }
        Some(pairs)
    }
}
