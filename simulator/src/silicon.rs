//! Apple's tables of silicon, by chip: what the simulator holds a server's table of products to.
//!
//! Source: Apple, "ACMECertificate", the table under `Attest` (A10X Fusion, S3 and earlier ignore it; A11 Bionic, A12X, S4
//! and later, every M and all of Vision support it; Macs: T1 and earlier must be false, T2 ignores it, Apple silicon
//! supports it) and the text of `HardwareBound`. Virtual Macs and the transition kit stand with those that can do nothing.

use crate::hardware::{Attestation, Family};

/// The row of the table for a chip of a family, and whether hardware-bound keys can be made there.
///
/// `None` for a chip whose place in the table can't be told from its name.
pub fn of_chip(family: Family, chip: &str) -> Option<(Attestation, bool)> {
    let first = chip.split([' ', '/', '(']).next().unwrap_or_default();
    if family == Family::Mac {
        return match chip {
            "Intel" | "Intel+T1" => Some((Attestation::MustBeFalse, false)),
            "Intel+T2" => Some((Attestation::Ignored, true)),
            other if other.starts_with("virtual") || other.contains("Transition Kit") => {
                Some((Attestation::MustBeFalse, false))
            }
            _ => number(first, "M").or(number(first, "A")).map(|_| (Attestation::Supported, true)),
        };
    }
    if chip.contains("later than A") || number(first, "M").is_some() {
        return Some((Attestation::Supported, true));
    }
    if family == Family::Watch {
        // S1P is an S1 of another making.
        return number(first.trim_end_matches('P'), "S").map(|number| supported_from(number, 4, 4));
    }
    if first.starts_with("S5L") || chip.starts_with("Intel") {
        return Some((Attestation::Ignored, false));
    }
    // The Secure Enclave came with the A7; A11 Bionic is the first that attests.
    number(first.trim_end_matches(['X', 'Z']), "A").map(|number| supported_from(number, 11, 7))
}

fn supported_from(number: u32, attests: u32, enclave: u32) -> (Attestation, bool) {
    (if number >= attests { Attestation::Supported } else { Attestation::Ignored }, number >= enclave)
}

fn number(text: &str, prefix: &str) -> Option<u32> {
    text.strip_prefix(prefix)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::HARDWARE;

    #[test]
    fn the_two_tables_of_the_simulator_agree() {
        for hardware in HARDWARE.iter().filter(|hardware| hardware.chip != "unknown") {
            let of_chip = of_chip(hardware.family, hardware.chip);
            assert_eq!(of_chip, Some((hardware.attestation, hardware.secure_enclave)), "{}", hardware.product_name);
        }
        assert_eq!(of_chip(Family::IPad, "A13"), Some((Attestation::Supported, true)));
        assert_eq!(of_chip(Family::IPhone, "Z9"), None);
    }
}
