//! Which enrollments a command is for at all: what User Enrollment forbids, and whom the commands of Setup Assistant are for.
//!
//! A device would refuse these itself; here the operator hears of it at once (protocol: `userenrollment`, `requiresdep`).

use mdm_core::command::{Envelope, user_enrollment};
use mdm_core::enrollment::{Channel, EnrollmentKind, UserKey};
use mdm_core::ids::EnrollmentId;
use store::Tx;
use store::enrollments::Enrollment;

use crate::problem::{FieldError, Problem};

/// What there is to look at in a command.
pub(crate) struct Rules {
    user_enrollment: Option<String>,
    set_up: Option<SetUp>,
}

#[derive(Clone, Copy)]
enum SetUp {
    Device,
    User,
}

impl Rules {
    pub(crate) fn of(envelope: &Envelope) -> Self {
        let set_up = match envelope.request_type.as_str() {
            "DeviceConfigured" => Some(SetUp::Device),
            "UserConfigured" => Some(SetUp::User),
            _ => None,
        };
        Self { user_enrollment: user_enrollment::forbids(envelope), set_up }
    }

    /// Why this enrollment cannot be sent it.
    pub(crate) fn refused(&self, enrollment: &Enrollment) -> Option<String> {
        if enrollment.kind == EnrollmentKind::User && self.user_enrollment.is_some() {
            return self.user_enrollment.clone();
        }
        let shared = matches!(enrollment.user_key, Some(UserKey::SharedIpad(_)));
        match self.set_up? {
            SetUp::User if !shared => Some("UserConfigured is for users of a Shared iPad".to_owned()),
            SetUp::Device if shared => {
                Some("DeviceConfigured is not for users of a Shared iPad: UserConfigured is".to_owned())
            }
            SetUp::Device
                if enrollment.channel == Channel::Device
                    && enrollment.kind == EnrollmentKind::Device
                    && !enrollment.awaiting_configuration =>
            {
                Some("DeviceConfigured is for devices of Automated Device Enrollment".to_owned())
            }
            SetUp::User | SetUp::Device => None,
        }
    }

    /// Takes those out of `targets` that cannot be sent it; gives them with the reason.
    pub(crate) async fn apply(
        &self,
        tx: &mut Tx,
        targets: &mut Vec<EnrollmentId>,
    ) -> Result<Vec<(EnrollmentId, String)>, Problem> {
        let mut refused = Vec::new();
        if self.user_enrollment.is_none() && self.set_up.is_none() {
            return Ok(refused);
        }
        for id in targets.iter() {
            let enrollment = store::enrollments::get(tx, *id).await?;
            if let Some(why) = enrollment.and_then(|enrollment| self.refused(&enrollment)) {
                refused.push((*id, why));
            }
        }
        targets.retain(|id| refused.iter().all(|(out, _)| out != id));
        Ok(refused)
    }
}

/// The refusal of a command that is for none of its targets.
pub(crate) fn for_nobody(refused: &[(EnrollmentId, String)], field: &str) -> Problem {
    let error =
        |(id, why): &(EnrollmentId, String)| FieldError { field: field.to_owned(), detail: format!("{id}: {why}") };
    Problem::fields(refused.iter().take(20).map(error).collect())
}
