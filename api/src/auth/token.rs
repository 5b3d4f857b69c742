//! The text of a token.

use std::time::Duration;

use mdm_core::ids::TokenId;
use mdm_core::random::Random;
use mdm_core::secret::Secret;
use mdm_core::time::Timestamp;
use sha2::{Digest, Sha256};
use store::Tx;
use uuid::Uuid;

use super::Scopes;

const PREFIX: &str = "assay_";
/// How long a token is accepted where nothing else is asked: 90 days.
pub const DEFAULT_LIFE: Duration = Duration::from_hours(90 * 24);

/// A token that was just made: the only moment at which its text is known.
#[derive(Debug)]
pub struct Minted {
    /// What the caller sends.
    pub text: Secret<String>,
    /// What is stored.
    pub row: store::tokens::Row,
}

/// Makes a token and stores its hash.
pub async fn mint(
    tx: &mut Tx,
    random: &Random,
    now: Timestamp,
    name: &str,
    scopes: &Scopes,
    life: Duration,
    created_by: &str,
) -> Result<Minted, store::Error> {
    let id = TokenId(random.uuid_v7(now));
    let text = Secret::new(write(id, &random.token()));
    let row = store::tokens::Row {
        id: id.0,
        name: name.to_owned(),
        sha256: Sha256::digest(text.expose().as_bytes()).to_vec(),
        scopes: scopes.to_text(),
        expires_at: now.plus(life).0,
        last_used_at: None,
        revoked_at: None,
        created_by: created_by.to_owned(),
        created_at: now.0,
    };
    store::tokens::insert(tx, &row).await?;
    Ok(Minted { text, row })
}

fn write(id: TokenId, secret: &str) -> String {
    let body = format!("{PREFIX}{}_{secret}", id.0.simple());
    let crc = crc32(body.as_bytes());
    format!("{body}_{crc:08x}")
}

/// The id in a token's text, if the text is whole: the right form, and the right CRC.
pub(super) fn id_of(text: &str) -> Option<TokenId> {
    let (body, crc) = text.rsplit_once('_')?;
    let (id, secret) = body.strip_prefix(PREFIX)?.split_once('_')?;
    let whole = crc.len() == 8
        && u32::from_str_radix(crc, 16).ok()? == crc32(body.as_bytes())
        && id.len() == 32
        && secret.len() == 43;
    if whole { Uuid::try_parse(id).ok().map(TokenId) } else { None }
}

/// CRC-32 as in ISO 3309, gzip and PNG.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_common_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_token_is_read_back_and_a_mistyped_one_is_not() {
        let random = Random::seeded(1);
        let id = TokenId(random.uuid_v7(Timestamp(1_000)));
        let text = write(id, &random.token());
        assert_eq!(id_of(&text), Some(id));
        for wrong in
            [text.replace("assay_", "asay_"), text[..text.len() - 1].to_owned(), text.to_uppercase(), String::new()]
        {
            assert_eq!(id_of(&wrong), None, "{wrong}");
        }
        let mut flipped = text.into_bytes();
        flipped[45] = if flipped[45] == b'A' { b'B' } else { b'A' };
        assert_eq!(id_of(&String::from_utf8(flipped).unwrap()), None);
    }
}
