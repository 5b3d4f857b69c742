//! The hardware of simulated devices, written from Apple's product and chip lists.
//!
//! This is the simulator's own table: a device decides by it what it would accept, without asking
//! the server's data. The classes are the rows of the table under `Attest` on Apple's page of the
//! payload `com.apple.security.acme`.

/// A family of devices; each has an operating system of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// iPhone with iOS.
    IPhone,
    /// iPad with iPadOS.
    IPad,
    /// iPod touch with iOS.
    IPod,
    /// Mac with macOS.
    Mac,
    /// Apple TV with tvOS.
    AppleTv,
    /// Apple Watch with watchOS.
    Watch,
    /// Apple Vision with visionOS.
    Vision,
}

impl Family {
    /// Name of the operating system.
    pub fn os(self) -> &'static str {
        match self {
            Self::IPhone | Self::IPod => "iOS",
            Self::IPad => "iPadOS",
            Self::Mac => "macOS",
            Self::AppleTv => "tvOS",
            Self::Watch => "watchOS",
            Self::Vision => "visionOS",
        }
    }
}

/// What Apple's table says about `Attest` on this hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attestation {
    /// The device attests.
    Supported,
    /// The device accepts the key and gives no attestation.
    Ignored,
    /// `Attest` set to true is an error.
    MustBeFalse,
}

/// One product.
#[derive(Debug, PartialEq, Eq)]
pub struct Hardware {
    /// `ProductName`, for example `iPhone17,2`.
    pub product_name: &'static str,
    /// What it is.
    pub family: Family,
    /// What people call it.
    pub marketing_name: &'static str,
    /// The chip that decides.
    pub chip: &'static str,
    /// Row of Apple's table.
    pub attestation: Attestation,
    /// Whether a hardware-bound key can be made (Secure Enclave; on Macs T2 or Apple silicon).
    pub secure_enclave: bool,
}

impl Hardware {
    /// Whether a Mac runs on Apple silicon, a virtual one included.
    pub fn apple_silicon(&self) -> bool {
        self.family == Family::Mac && !self.chip.starts_with("Intel")
    }
}

const fn row(
    product_name: &'static str,
    family: Family,
    marketing_name: &'static str,
    chip: &'static str,
    attestation: Attestation,
    secure_enclave: bool,
) -> Hardware {
    Hardware { product_name, family, marketing_name, chip, attestation, secure_enclave }
}

use Attestation::{Ignored, MustBeFalse, Supported};
use Family::{AppleTv, IPad, IPhone, IPod, Mac, Vision, Watch};

/// Every product a simulated device can be.
pub const HARDWARE: &[Hardware] = &[
    row("iPhone8,1", IPhone, "iPhone 6s", "A9", Ignored, true),
    row("iPhone9,1", IPhone, "iPhone 7", "A10 Fusion", Ignored, true),
    row("iPhone9,3", IPhone, "iPhone 7", "A10 Fusion", Ignored, true),
    row("iPhone10,1", IPhone, "iPhone 8", "A11 Bionic", Supported, true),
    row("iPhone10,6", IPhone, "iPhone X", "A11 Bionic", Supported, true),
    row("iPhone11,2", IPhone, "iPhone XS", "A12 Bionic", Supported, true),
    row("iPhone12,8", IPhone, "iPhone SE (2nd generation)", "A13 Bionic", Supported, true),
    row("iPhone14,5", IPhone, "iPhone 13", "A15 Bionic", Supported, true),
    row("iPhone15,4", IPhone, "iPhone 15", "A16 Bionic", Supported, true),
    row("iPhone17,2", IPhone, "iPhone 16 Pro Max", "A18 Pro", Supported, true),
    row("iPhone18,1", IPhone, "iPhone 17 Pro", "A19 Pro", Supported, true),
    row("iPhone18,4", IPhone, "iPhone Air", "A19 Pro", Supported, true),
    row("iPhone19,2", IPhone, "iPhone 18 Pro", "A20 Pro", Supported, true),
    row("iPhone23,1", IPhone, "a later iPhone", "later than A20", Supported, true),
    row("iPod9,1", IPod, "iPod touch (7th generation)", "A10 Fusion", Ignored, true),
    row("iPad6,11", IPad, "iPad (5th generation)", "A9", Ignored, true),
    row("iPad7,5", IPad, "iPad (6th generation)", "A10 Fusion", Ignored, true),
    row("iPad7,3", IPad, "iPad Pro (10.5-inch)", "A10X Fusion", Ignored, true),
    row("iPad7,11", IPad, "iPad (7th generation)", "A10 Fusion", Ignored, true),
    row("iPad8,1", IPad, "iPad Pro (11-inch)", "A12X Bionic", Supported, true),
    row("iPad11,6", IPad, "iPad (8th generation)", "A12 Bionic", Supported, true),
    row("iPad13,16", IPad, "iPad Air (5th generation)", "M1", Supported, true),
    row("iPad13,18", IPad, "iPad (10th generation)", "A14 Bionic", Supported, true),
    row("iPad16,3", IPad, "iPad Pro 11-inch (M4)", "M4", Supported, true),
    row("iPad17,1", IPad, "iPad Pro 11-inch (M5)", "M5", Supported, true),
    row("MacBookPro13,1", Mac, "MacBook Pro (13-inch, 2016)", "Intel", MustBeFalse, false),
    row("MacBookPro14,2", Mac, "MacBook Pro (13-inch, 2017)", "Intel+T1", MustBeFalse, false),
    row("iMac19,1", Mac, "iMac (Retina 5K, 27-inch, 2019)", "Intel", MustBeFalse, false),
    row("MacBookPro15,1", Mac, "MacBook Pro (15-inch, 2018)", "Intel+T2", Ignored, true),
    row("MacBookPro16,1", Mac, "MacBook Pro (16-inch, 2019)", "Intel+T2", Ignored, true),
    row("iMac20,1", Mac, "iMac (Retina 5K, 27-inch, 2020)", "Intel+T2", Ignored, true),
    row("Macmini8,1", Mac, "Mac mini (2018)", "Intel+T2", Ignored, true),
    row("MacBookAir10,1", Mac, "MacBook Air (M1, 2020)", "M1", Supported, true),
    row("Mac14,2", Mac, "MacBook Air (M2, 2022)", "M2", Supported, true),
    row("Mac16,10", Mac, "Mac mini (2024)", "M4", Supported, true),
    row("Mac17,2", Mac, "MacBook Pro (14-inch, M5)", "M5", Supported, true),
    row("Mac17,5", Mac, "MacBook Neo", "A18 Pro", Supported, true),
    row("VirtualMac2,1", Mac, "Apple Virtual Machine 1", "virtual", MustBeFalse, false),
    row("AppleTV5,3", AppleTv, "Apple TV HD", "A8", Ignored, true),
    row("AppleTV6,2", AppleTv, "Apple TV 4K (1st generation)", "A10X Fusion", Ignored, true),
    row("AppleTV11,1", AppleTv, "Apple TV 4K (2nd generation)", "A12 Bionic", Supported, true),
    row("AppleTV14,1", AppleTv, "Apple TV 4K (3rd generation)", "A15 Bionic", Supported, true),
    row("Watch3,4", Watch, "Apple Watch Series 3", "S3", Ignored, false),
    row("Watch6,2", Watch, "Apple Watch Series 6", "S6", Supported, true),
    row("Watch7,3", Watch, "Apple Watch Series 9", "S9", Supported, true),
    row("RealityDevice14,1", Vision, "Apple Vision Pro", "M2", Supported, true),
    // Nobody knows what this one can do, so nothing may be asked of it.
    row("Hologram1,1", Vision, "a product of no known name", "unknown", MustBeFalse, false),
];

/// The product of this name.
pub fn find(product_name: &str) -> Option<&'static Hardware> {
    HARDWARE.iter().find(|hardware| hardware.product_name == product_name)
}

/// An operating system version, compared number by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number, 0 where absent.
    pub minor: u32,
    /// Third number, 0 where absent.
    pub patch: u32,
}

impl Version {
    /// `17.4.1` and shorter forms; anything unreadable counts as 0.
    pub fn parse(text: &str) -> Self {
        let mut numbers = text.split('.').map(|part| part.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Self { major: next(), minor: next(), patch: next() }
    }

    /// The version `major.minor`.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor, patch: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(Version::parse("13.10") > Version::parse("13.9.2"));
        assert_eq!(Version::parse("16"), Version::new(16, 0));
    }

    #[test]
    fn each_product_stands_once_and_only_macs_are_apple_silicon_macs() {
        for hardware in HARDWARE {
            let name = hardware.product_name;
            assert_eq!(HARDWARE.iter().filter(|other| other.product_name == name).count(), 1, "{name}");
            assert!(!hardware.apple_silicon() || hardware.family == Family::Mac);
        }
        assert!(find("MacBookAir10,1").unwrap().apple_silicon());
        assert!(!find("Macmini8,1").unwrap().apple_silicon());
    }
}
