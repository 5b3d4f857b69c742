//! The attestation object of `device-attest-01`: CBOR (RFC 8949), a map of `fmt` and `attStmt`.

use crate::error::{Error, Result};

/// An attestation object: CBOR (RFC 8949), a map of `fmt` and `attStmt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// `fmt`: `apple`, or `none`.
    pub format: String,
    /// `x5c` of the statement, DER, the leaf first; empty where the format has none.
    pub x5c: Vec<Vec<u8>>,
}

impl Statement {
    /// What a device sends that has an attestation.
    pub fn apple(x5c: Vec<Vec<u8>>) -> Self {
        Self { format: "apple".into(), x5c }
    }

    /// What a device sends that has none (open question Q1).
    pub fn none() -> Self {
        Self { format: "none".into(), x5c: Vec::new() }
    }

    /// The CBOR bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        head(&mut bytes, 5, 2);
        text(&mut bytes, "fmt");
        text(&mut bytes, &self.format);
        text(&mut bytes, "attStmt");
        if self.x5c.is_empty() {
            head(&mut bytes, 5, 0);
        } else {
            head(&mut bytes, 5, 1);
            text(&mut bytes, "x5c");
            head(&mut bytes, 4, self.x5c.len());
            for certificate in &self.x5c {
                head(&mut bytes, 2, certificate.len());
                bytes.extend_from_slice(certificate);
            }
        }
        bytes
    }

    /// Reads the two formats; anything else is an error.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Cbor { rest: bytes };
        let mut statement = Self { format: String::new(), x5c: Vec::new() };
        for _ in 0..reader.head(5)? {
            match reader.text()?.as_str() {
                "fmt" => statement.format = reader.text()?,
                "attStmt" => {
                    for _ in 0..reader.head(5)? {
                        if reader.text()? != "x5c" {
                            return Err(cbor("attStmt has only x5c"));
                        }
                        for _ in 0..reader.head(4)? {
                            statement.x5c.push(reader.string(2)?.to_vec());
                        }
                    }
                }
                _ => return Err(cbor("an unknown key")),
            }
        }
        if !reader.rest.is_empty() {
            return Err(cbor("bytes after the end"));
        }
        Ok(statement)
    }
}

fn cbor(why: &str) -> Error {
    Error::Acme(format!("attestation object: {why}"))
}

fn head(bytes: &mut Vec<u8>, major: u8, length: usize) {
    let major = major << 5;
    match u16::try_from(length) {
        Ok(short @ 0..=23) => bytes.push(major | short.to_be_bytes()[1]),
        Ok(short @ 24..=255) => bytes.extend([major | 0x18, short.to_be_bytes()[1]]),
        Ok(long) => {
            bytes.push(major | 0x19);
            bytes.extend(long.to_be_bytes());
        }
        Err(_) => {
            bytes.push(major | 0x1b);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
}

fn text(bytes: &mut Vec<u8>, value: &str) {
    head(bytes, 3, value.len());
    bytes.extend_from_slice(value.as_bytes());
}

struct Cbor<'a> {
    rest: &'a [u8],
}

impl<'a> Cbor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| cbor("too short"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// The length or count of an item that must be of this major type.
    fn head(&mut self, major: u8) -> Result<usize> {
        let first = self.take(1)?.first().copied().unwrap_or_default();
        if first >> 5 != major {
            return Err(cbor("another type was expected"));
        }
        let length = match first & 0x1f {
            short @ 0..=23 => u64::from(short),
            long @ 24..=27 => self.take(1 << (long - 24))?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            _ => return Err(cbor("indefinite lengths are not used")),
        };
        usize::try_from(length).ok().filter(|length| *length <= 1 << 20).ok_or_else(|| cbor("too long"))
    }

    fn string(&mut self, major: u8) -> Result<&'a [u8]> {
        let length = self.head(major)?;
        self.take(length)
    }

    fn text(&mut self) -> Result<String> {
        String::from_utf8(self.string(3)?.to_vec()).map_err(|_| cbor("text is UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_reads_back_and_junk_does_not() {
        for statement in [Statement::none(), Statement::apple(vec![vec![7; 700], vec![8; 30], vec![9; 3]])] {
            assert_eq!(Statement::decode(&statement.encode()).unwrap(), statement);
        }
        assert_eq!(Statement::none().encode(), b"\xa2cfmtdnonegattStmt\xa0");
        let good = Statement::apple(vec![vec![1; 300]]).encode();
        for end in 0..good.len() {
            assert!(Statement::decode(&good[..end]).is_err());
        }
        assert!(Statement::decode(b"\xa1\x63fmt\x9f").is_err());
    }
}
