//! The attestation object of `device-attest-01`: CBOR (RFC 8949), a map with `fmt` and `attStmt` as WebAuthn has it.
//!
//! Read under limits, without recursion beyond them (TH-47): 64 KiB, eight levels, five certificates. Lengths are definite, as
//! WebAuthn's canonical form demands; a key twice, or a byte after the end, is refused.

use super::{AttestationError, CHAIN};

/// Largest attestation object (threats-and-guarantees.md, section (e)).
const MAX_BYTES: usize = 64 * 1024;
/// Levels of arrays, maps and tags within each other.
const MAX_DEPTH: u8 = 8;

/// Takes the certificates out of an attestation object of the format `apple`: `attStmt.x5c`, DER, the leaf first.
///
/// # Errors
/// [`AttestationError::TooLarge`], [`AttestationError::Malformed`]; [`AttestationError::NoStatement`] where the device had no
/// attestation to give, [`AttestationError::Format`] for a format that is neither; [`AttestationError::ChainLength`].
pub fn read_object(object: &[u8]) -> Result<Vec<Vec<u8>>, AttestationError> {
    if object.len() > MAX_BYTES {
        return Err(AttestationError::TooLarge);
    }
    let mut cbor = Cbor { rest: object };
    let (mut format, mut statement) = (None, None);
    for _ in 0..cbor.expect(Major::Map)? {
        match cbor.text()? {
            "fmt" if format.is_none() => format = Some(cbor.text()?),
            "attStmt" if statement.is_none() => statement = Some(x5c(&mut cbor)?),
            "fmt" | "attStmt" => return Err(AttestationError::Malformed),
            _ => cbor.skip(1)?,
        }
    }
    if !cbor.rest.is_empty() {
        return Err(AttestationError::Malformed);
    }
    match (format, statement) {
        (Some("apple"), Some(Some(chain))) => Ok(chain),
        // Nothing, or an empty statement: the device obtained no attestation (open question Q1).
        (Some("none"), _) | (Some("apple"), Some(None) | None) | (None, None) => Err(AttestationError::NoStatement),
        (Some(_), _) => Err(AttestationError::Format),
        (None, Some(_)) => Err(AttestationError::Malformed),
    }
}

/// `x5c` of a statement, where it is there.
fn x5c(cbor: &mut Cbor<'_>) -> Result<Option<Vec<Vec<u8>>>, AttestationError> {
    let mut found = None;
    for _ in 0..cbor.expect(Major::Map)? {
        match cbor.text()? {
            "x5c" if found.is_none() => {
                let length = cbor.expect(Major::Array)?;
                if usize::try_from(length).map_or(true, |length| !CHAIN.contains(&length)) {
                    return Err(AttestationError::ChainLength);
                }
                found = Some((0..length).map(|_| cbor.bytes()).collect::<Result<Vec<_>, _>>()?);
            }
            "x5c" => return Err(AttestationError::Malformed),
            _ => cbor.skip(2)?,
        }
    }
    Ok(found)
}

/// The major types (RFC 8949 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Major {
    Unsigned,
    Negative,
    Bytes,
    Text,
    Array,
    Map,
    Tag,
    Simple,
}

struct Cbor<'a> {
    rest: &'a [u8],
}

impl<'a> Cbor<'a> {
    fn take(&mut self, length: u64) -> Result<&'a [u8], AttestationError> {
        let length = usize::try_from(length).map_err(|_| AttestationError::Malformed)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(AttestationError::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The type of the next item, and its argument.
    fn head(&mut self) -> Result<(Major, u64), AttestationError> {
        let first = self.take(1)?.first().copied().ok_or(AttestationError::Malformed)?;
        let major = match first >> 5 {
            0 => Major::Unsigned,
            1 => Major::Negative,
            2 => Major::Bytes,
            3 => Major::Text,
            4 => Major::Array,
            5 => Major::Map,
            6 => Major::Tag,
            _ => Major::Simple,
        };
        let argument = match first & 0x1f {
            short @ 0..=23 => u64::from(short),
            long @ 24..=27 => self.take(1 << (long - 24))?.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
            // 28 to 30 are reserved, 31 is an indefinite length.
            _ => return Err(AttestationError::Malformed),
        };
        Ok((major, argument))
    }

    fn expect(&mut self, wanted: Major) -> Result<u64, AttestationError> {
        let (major, argument) = self.head()?;
        if major == wanted { Ok(argument) } else { Err(AttestationError::Malformed) }
    }

    fn text(&mut self) -> Result<&'a str, AttestationError> {
        let length = self.expect(Major::Text)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| AttestationError::Malformed)
    }

    fn bytes(&mut self) -> Result<Vec<u8>, AttestationError> {
        let length = self.expect(Major::Bytes)?;
        self.take(length).map(<[u8]>::to_vec)
    }

    /// Passes over one item that stands `depth` levels deep. Every item has a byte at least, so that the work is bounded by the
    /// size of the object, whatever count a map announces.
    fn skip(&mut self, depth: u8) -> Result<(), AttestationError> {
        if depth >= MAX_DEPTH {
            return Err(AttestationError::Malformed);
        }
        let (major, argument) = self.head()?;
        let items = match major {
            Major::Unsigned | Major::Negative | Major::Simple => 0,
            Major::Bytes | Major::Text => {
                self.take(argument)?;
                0
            }
            Major::Array => argument,
            Major::Map => argument.checked_mul(2).ok_or(AttestationError::Malformed)?,
            Major::Tag => 1,
        };
        for _ in 0..items {
            self.skip(depth + 1)?;
        }
        Ok(())
    }
}
