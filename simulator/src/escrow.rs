//! What a device leaves with the server: the bootstrap token and the unlock token.
//!
//! Sources: Apple, "SetBootstrapTokenRequest", "GetBootstrapTokenRequest", "TokenUpdateRequest" (`UnlockToken`).

use crate::device::{ChannelId, Device};
use crate::error::{Error, Result};
use crate::plist::{self, Value, Writer};

/// A new one; longer than a push token, as on devices.
pub(crate) fn unlock_token() -> Result<Vec<u8>> {
    let mut token = vec![0; 96];
    openssl::rand::rand_bytes(&mut token)?;
    Ok(token)
}

impl Device {
    /// Leaves a bootstrap token with the server; `None` takes it away.
    pub async fn set_bootstrap_token(&mut self, token: Option<&[u8]>) -> Result<()> {
        self.may_escrow()?;
        let mut message = self.check_in(ChannelId::DEVICE, "SetBootstrapToken")?;
        if let Some(token) = token {
            message = message.data("BootstrapToken", token);
        }
        let message = message.boolean("AwaitingConfiguration", self.awaiting);
        self.send_check_in(ChannelId::DEVICE, &message).await
    }

    /// Asks for the bootstrap token; `None` where the server has none.
    pub async fn get_bootstrap_token(&mut self) -> Result<Option<Vec<u8>>> {
        self.may_escrow()?;
        let keys = Writer::new().boolean("AwaitingConfiguration", self.awaiting);
        let answer = self.send(ChannelId::DEVICE, "GetBootstrapToken", &keys).await?;
        if answer.status != 200 {
            return Err(answer.refused(&self.mdm()?.check_in_url));
        }
        if answer.body.is_empty() {
            return Ok(None);
        }
        let body = plist::parse(&answer.body)?;
        let token = body.get("BootstrapToken").and_then(Value::as_data);
        Ok(token.filter(|token| !token.is_empty()).map(<[u8]>::to_vec))
    }

    /// The unlock token that the device knows; another one after it was erased.
    pub fn unlock_token(&self) -> &[u8] {
        &self.unlock_token
    }

    fn may_escrow(&self) -> Result<()> {
        if !self.mdm()?.bootstrap_token {
            return Err(Error::Profile("com.apple.mdm.bootstraptoken is not among the capabilities".into()));
        }
        if self.record.enrollment_id.is_some() {
            return Err(Error::Profile("no bootstrap token in User Enrollment".into()));
        }
        Ok(())
    }
}
