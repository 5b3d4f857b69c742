//! Servers of Apple's portal: the key pair that the portal encrypts to, and the token that comes of it.

use std::time::Duration;

use mdm_core::crypto::issue::issue_recipient;
use mdm_core::crypto::key::PrivateKey;
use mdm_core::time::Timestamp;
use store::Tx;
use store::ade::Server;
use store::ade::servers::NewToken;
use uuid::Uuid;

use crate::token::Token;
use crate::{Context, Error, Health};

/// How long the certificate for the portal is valid: several tokens, which last a year each.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(5 * 365 * 86_400);

/// A key pair for a server that is to be made. Making one takes a while: do it outside a transaction.
#[derive(Debug)]
pub struct PortalKey {
    key: PrivateKey,
    certificate: Vec<u8>,
}

impl PortalKey {
    /// A new RSA key of 2048 bits and its self-signed certificate, which names `server`.
    pub fn generate(context: &Context, server: &str) -> Result<Self, Error> {
        let key = PrivateKey::generate_rsa(2048).map_err(|_| Error::Key)?;
        let now = context.clock.now();
        let name: String = format!("Assay {server}").chars().take(64).collect();
        let certificate =
            issue_recipient(&key, &name, now, CERTIFICATE_LIFE, &context.random).map_err(|_| Error::Key)?;
        Ok(Self { key, certificate })
    }
}

fn sealed_key(id: Uuid) -> String {
    format!("ade_server.key_sealed:{id}")
}

fn sealed_token(id: Uuid) -> String {
    format!("ade_server.token_sealed:{id}")
}

/// Makes a server that has no token yet.
pub async fn create(
    tx: &mut Tx,
    context: &Context,
    name: &str,
    key: &PortalKey,
    now: Timestamp,
) -> Result<Server, Error> {
    let fits = |c: char| c.is_ascii_alphanumeric() || " ._-".contains(c);
    if name.trim() != name || !(1..=64).contains(&name.len()) || !name.chars().all(fits) {
        return Err(Error::Name);
    }
    let id = context.random.uuid_v7(now);
    let pkcs8 = key.key.to_pkcs8_der().map_err(|_| Error::Key)?;
    let server = Server {
        id,
        name: name.to_owned(),
        certificate: key.certificate.clone(),
        key_sealed: context.sealer.seal(&sealed_key(id), pkcs8.expose(), &context.random),
        consumer_key: None,
        token_sealed: None,
        token_expires_at: None,
        token_at: None,
        account: None,
        default_profile_id: None,
        cursor: None,
        phase: "fetch".to_owned(),
        list_began_at: None,
        synced_at: None,
        health: Health::NoToken.as_str().to_owned(),
        health_text: None,
        health_at: None,
        failures: 0,
        due_at: now.0,
        created_at: now.0,
    };
    match store::ade::servers::insert(tx, &server).await {
        Err(store::Error::Duplicate(_)) => Err(Error::NameTaken(name.to_owned())),
        done => Ok(done.map(|()| server)?),
    }
}

/// Stores the token in `p7m`, as the portal gives it. A token of another server of the portal (another `consumer_key`) is
/// refused unless `force` says that it is meant: then the list is read anew, and until it is, no device of the former one
/// counts. A token that ends sooner than the stored one is refused: it is an older download.
pub async fn put_token(
    tx: &mut Tx,
    context: &Context,
    id: Uuid,
    p7m: &[u8],
    force: bool,
    now: Timestamp,
) -> Result<Server, Error> {
    let server = store::ade::servers::get(tx, id).await?.ok_or(Error::NoServer)?;
    let key =
        context.sealer.open(&sealed_key(id), &server.key_sealed).map_err(|_| Error::Stored("ade_server.key_sealed"))?;
    let key = PrivateKey::from_pkcs8_der(key.expose()).map_err(|_| Error::Stored("ade_server.key_sealed"))?;
    let token = Token::from_p7m(p7m, &key, &server.certificate, &context.random)?;
    if token.expires_at <= now {
        return Err(Error::Ended);
    }
    let same_server = server.consumer_key.as_deref() == Some(&token.consumer_key);
    if same_server && server.token_expires_at.is_some_and(|stored| token.expires_at.0 < stored) {
        return Err(Error::Older);
    }
    if server.consumer_key.is_some() && !same_server && !force {
        return Err(Error::OtherConsumerKey);
    }
    if let Some(other) = store::ade::servers::by_consumer_key(tx, &token.consumer_key).await?
        && other.id != id
    {
        return Err(Error::InUse(other.name));
    }
    let sealed = context.sealer.seal(&sealed_token(id), token.to_json().expose(), &context.random);
    let new = NewToken {
        consumer_key: &token.consumer_key,
        token_sealed: &sealed,
        expires_at: token.expires_at,
        same_server,
    };
    match store::ade::servers::put_token(tx, id, &new, now).await {
        // Somebody else put it at this very moment.
        Err(store::Error::Duplicate(_)) => return Err(Error::InUse("that was put just now".to_owned())),
        done => done?,
    }
    if !same_server {
        store::ade::devices::forget_all(tx, id, now).await?;
        store::ade::profiles::undefine(tx, id).await?;
    }
    store::ade::servers::get(tx, id).await?.ok_or(Error::NoServer)
}

/// The token of a server.
pub(crate) fn token(context: &Context, server: &Server) -> Result<Token, Error> {
    let sealed = server.token_sealed.as_deref().ok_or(Error::NoToken)?;
    let json =
        context.sealer.open(&sealed_token(server.id), sealed).map_err(|_| Error::Stored("ade_server.token_sealed"))?;
    Token::from_json(json.expose()).ok_or(Error::Stored("ade_server.token_sealed"))
}
