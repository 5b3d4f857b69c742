//! What an error of Automated Device Enrollment is to an operator.

use super::{FieldError, Problem, Slug};

impl From<ade::Error> for Problem {
    fn from(error: ade::Error) -> Self {
        use ade::Error as E;
        let message = error.to_string();
        match error {
            E::Store(error) => error.into(),
            E::NotAToken(_) | E::OtherCertificate | E::Ended => Self::field("token", message),
            E::OtherConsumerKey
            | E::InUse(_)
            | E::Older
            | E::NoToken
            | E::NameTaken(_)
            | E::ProfileInUse(_)
            | E::Apple(_) => Self::new(Slug::Conflict, message),
            E::NoServer | E::NoProfile(_) | E::NoDevice(_) => Self::new(Slug::NotFound, message),
            E::Name => Self::field("name", message),
            E::Definition(invalid) => {
                let field = |e: ade::FieldError| FieldError { field: e.field, detail: e.expected.to_owned() };
                Self::fields(invalid.0.into_iter().map(field).collect())
            }
            _ => Self::internal(&error),
        }
    }
}
