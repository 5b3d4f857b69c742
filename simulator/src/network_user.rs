//! A network or mobile user logs in on a Mac: `UserAuthenticate`.
//!
//! Sources: Apple, "UserAuthenticateRequest" and "UserAuthenticateResponse"; RFC 2617.

use openssl::hash::{MessageDigest, hash};

use crate::device::{Channel, ChannelId, Device};
use crate::error::{Error, Result};
use crate::hardware::Family;
use crate::plist::{self, Writer};
use crate::record::User;

/// What became of the login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// The server manages this user, whose channel is open now.
    Managed(ChannelId),
    /// 410: the server does not want to.
    NotManaged,
    /// An empty AuthToken: the password was wrong.
    WrongPassword,
}

impl Device {
    /// A network user logs in; where the server takes that, the user channel opens with its own TokenUpdate.
    pub async fn log_in_network_user(&mut self, user: User, password: &str) -> Result<Login> {
        if self.record.hardware.family != Family::Mac || self.record.enrollment_id.is_some() {
            return Err(Error::Options("only Macs in a device enrollment have network users".into()));
        }
        if !self.mdm()?.per_user_connections {
            return Err(Error::Profile("com.apple.mdm.per-user-connections is not among the capabilities".into()));
        }
        let names = (user.short_name.clone(), user.id.clone());
        self.channels.push(Channel::new(Some(user))?);
        let channel = ChannelId(self.channels.len() - 1);
        match self.prove_network_user(channel, &names.0, password).await {
            Ok(Ok(token)) => {
                self.channel_mut(channel)?.auth_token = token;
                self.token_update(channel).await?;
                Ok(Login::Managed(channel))
            }
            Ok(Err(refused)) => {
                self.channels.pop();
                Ok(refused)
            }
            Err(error) => {
                self.channels.pop();
                Err(error)
            }
        }
    }

    /// The AuthToken, where the server asked for a proof.
    async fn prove_network_user(
        &self,
        channel: ChannelId,
        name: &str,
        password: &str,
    ) -> Result<std::result::Result<Option<String>, Login>> {
        let first = self.send(channel, "UserAuthenticate", &Writer::new()).await?;
        let challenge = match first.status {
            410 => return Ok(Err(Login::NotManaged)),
            200 => plist::parse(&first.body)?.text("DigestChallenge").unwrap_or_default().to_owned(),
            _ => return Err(first.refused(&self.mdm()?.check_in_url)),
        };
        if challenge.is_empty() {
            return Ok(Ok(None));
        }
        let response = digest_response(&challenge, name, password, &self.mdm()?.check_in_url)?;
        let keys = Writer::new().string("DigestResponse", &response);
        let second = self.send(channel, "UserAuthenticate", &keys).await?;
        if second.status != 200 {
            return Err(second.refused(&self.mdm()?.check_in_url));
        }
        let token = plist::parse(&second.body)?.text("AuthToken").unwrap_or_default().to_owned();
        Ok(if token.is_empty() { Err(Login::WrongPassword) } else { Ok(Some(token)) })
    }
}

fn md5(text: &str) -> Result<String> {
    Ok(hex::encode(hash(MessageDigest::md5(), text.as_bytes())?))
}

/// The answer to a digest challenge (RFC 2617 section 3.2.2), as the text of an Authorization header.
fn digest_response(challenge: &str, name: &str, password: &str, url: &str) -> Result<String> {
    let value = |key: &str| {
        let parameters = challenge.strip_prefix("Digest ")?.split(',').map(str::trim);
        let pairs = parameters.filter_map(|pair| pair.split_once('='));
        pairs.filter(|(found, _)| *found == key).map(|(_, value)| value.trim_matches('"').to_owned()).next()
    };
    let wrong = |key: &str| Error::Protocol(format!("DigestChallenge without {key}: {challenge}"));
    let (realm, nonce) = (value("realm").ok_or_else(|| wrong("realm"))?, value("nonce").ok_or_else(|| wrong("nonce"))?);
    let uri = url::Url::parse(url).map(|url| url.path().to_owned()).unwrap_or_default();
    let (one, two) = (md5(&format!("{name}:{realm}:{password}"))?, md5(&format!("PUT:{uri}"))?);
    let start = format!("Digest username=\"{name}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\"");
    if value("qop").is_some_and(|qop| qop.split(' ').any(|qop| qop == "auth")) {
        let mut cnonce = [0; 8];
        openssl::rand::rand_bytes(&mut cnonce)?;
        let cnonce = hex::encode(cnonce);
        let response = md5(&format!("{one}:{nonce}:00000001:{cnonce}:auth:{two}"))?;
        return Ok(format!("{start}, response=\"{response}\", qop=auth, nc=00000001, cnonce=\"{cnonce}\""));
    }
    let response = md5(&format!("{one}:{nonce}:{two}"))?;
    Ok(format!("{start}, response=\"{response}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 2617 section 3.5 without qop, its method and path replaced by a Mac's.
    #[test]
    fn the_digest_is_that_of_the_rfc() {
        let challenge = "Digest realm=\"testrealm@host.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\"";
        let made = digest_response(challenge, "Mufasa", "Circle Of Life", "https://mdm.example/dir").unwrap();
        let ha1 = "939e7578ed9e3c518a452acee763bce9";
        let ha2 = md5("PUT:/dir").unwrap();
        let wanted = md5(&format!("{ha1}:dcd98b7102dd2f0e8b11d0f600bfb0c093:{ha2}")).unwrap();
        assert!(made.contains(&format!("response=\"{wanted}\"")), "{made}");
        assert!(digest_response("Basic x", "a", "b", "https://c/").is_err());
    }
}
