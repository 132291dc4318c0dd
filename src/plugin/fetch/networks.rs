//! Addresses that plugins may connect to: the public ones, and those that the operator grants.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses that are not public and that the operator grants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    granted: Vec<Network>,
}

/// An address and the number of leading bits that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Networks {
    /// Permits public addresses and these networks.
    #[must_use]
    pub fn new(granted: Vec<Network>) -> Self {
        Self { granted }
    }

    /// True if this address may be connected to.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.granted.iter().any(|network| network.holds(address))
    }
}

impl Network {
    /// Parses `10.1.0.0/16`, `fd00::/8`, or one address.
    ///
    /// # Errors
    /// The text is neither an address nor a network; the error says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected an address or a network such as 10.1.0.0/16, got {text:?}");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| wrong()))?;
        if bits > most { Err(wrong()) } else { Ok(Self { address, bits }) }
    }

    fn holds(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = u32::from(own) ^ u32::from(other);
                self.bits == 0 || differ >> (32 - self.bits) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = u128::from(own) ^ u128::from(other);
                self.bits == 0 || differ >> (128 - self.bits) == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// True for an address of the internet at large, by the registries of special addresses.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !special
}

/// Only global unicast, without the ranges that embed an IPv4 address or have a special purpose.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let global = a & 0xe000 == 0x2000;
    global && a != 0x2002 && !(a == 0x2001 && (b < 0x0200 || b == 0x0db8)) && a & 0xfff0 != 0x3ff0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_need_a_grant() {
        let free = Networks::default();
        for text in
            ["1.1.1.1", "8.8.8.8", "172.15.0.1", "172.32.0.1", "100.63.0.1", "2606:4700::1111", "::ffff:1.1.1.1"]
        {
            assert!(free.permits(text.parse().unwrap()), "{text}");
        }
        for text in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "fec0::1",
        ] {
            assert!(!free.permits(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn granted_networks_are_permitted() {
        let granted = ["127.0.0.1", "10.1.0.0/16", "fd00::/8"].map(|text| Network::parse(text).unwrap());
        let networks = Networks::new(granted.to_vec());
        for (text, permitted) in [
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("10.1.200.3", true),
            ("10.2.0.1", false),
            ("fd12::1", true),
            ("fc00::1", false),
            ("::ffff:127.0.0.1", true),
            ("1.1.1.1", true),
        ] {
            assert_eq!(networks.permits(text.parse().unwrap()), permitted, "{text}");
        }
        assert!(Networks::new(vec![Network::parse("0.0.0.0/0").unwrap()]).permits([127, 0, 0, 1].into()));
        for text in ["10.1.0.0/33", "10.1/16", "lan", "10.0.0.0/-1", ""] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
    }
}
