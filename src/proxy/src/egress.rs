//! Which addresses may be dialled. A name is somebody else's to change, so what it leads to is judged
//! each time it is asked for, and what was judged is what is dialled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bits of an address.
const V4_BITS: u8 = 32;
const V6_BITS: u8 = 128;

/// What can be at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// A host of the Internet.
    Public,
    /// This machine, or one of a network that is somebody's own, or of one in examples.
    Private,
    /// No provider can be there: a cloud's metadata service, a group of hosts, no host at all.
    Never,
}

/// Where metadata services of clouds answer whoever asks, outside link-local addresses.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Special blocks (RFC 6890 and IANA's two registries of them); the first that holds an address counts.
const BLOCKS: [(IpAddr, u8, Reach); 24] = [
    v4([0, 0, 0, 0], 8, Reach::Never),
    v4([10, 0, 0, 0], 8, Reach::Private),
    v4([100, 64, 0, 0], 10, Reach::Private),
    v4([127, 0, 0, 0], 8, Reach::Private),
    v4([169, 254, 0, 0], 16, Reach::Never),
    v4([172, 16, 0, 0], 12, Reach::Private),
    v4([192, 0, 0, 0], 24, Reach::Never),
    v4([192, 0, 2, 0], 24, Reach::Private),
    v4([192, 88, 99, 0], 24, Reach::Never),
    v4([192, 168, 0, 0], 16, Reach::Private),
    v4([198, 18, 0, 0], 15, Reach::Private),
    v4([198, 51, 100, 0], 24, Reach::Private),
    v4([203, 0, 113, 0], 24, Reach::Private),
    // Groups of hosts, what is reserved, and everybody.
    v4([224, 0, 0, 0], 3, Reach::Never),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, Reach::Private),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, Reach::Private),
    // Teredo, benchmarks, ORCHID and its second version, documentation, all within what is public.
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, Reach::Never),
    v6([0x2001, 0x2, 0, 0, 0, 0, 0, 0], 48, Reach::Never),
    v6([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28, Reach::Never),
    v6([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28, Reach::Never),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, Reach::Private),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, Reach::Private),
    v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3, Reach::Public),
    // The rest is link-local, site-local, groups, or nobody's.
    v6([0, 0, 0, 0, 0, 0, 0, 0], 0, Reach::Never),
];

const fn v4([a, b, c, d]: [u8; 4], bits: u8, reach: Reach) -> (IpAddr, u8, Reach) {
    (IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits, reach)
}

const fn v6(segments: [u16; 8], bits: u8, reach: Reach) -> (IpAddr, u8, Reach) {
    (IpAddr::V6(Ipv6Addr::from_segments(segments)), bits, reach)
}

/// What can be at this address. One that stands for an IPv4 address is judged as that.
pub fn reach(address: IpAddr) -> Reach {
    let address = embedded(address).map_or(address, IpAddr::V4);
    if METADATA.contains(&address) {
        return Reach::Never;
    }
    let block = BLOCKS.iter().find(|(block, bits, _)| Network::new(*block, *bits).holds(address));
    block.map_or(Reach::Public, |(_, _, reach)| *reach)
}

/// The IPv4 address that an IPv6 address leads to: mapped (RFC 4291, section 2.5.5.2), translated (RFC
/// 6052, section 2.1) or by 6to4 (RFC 3056, section 2).
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(six) = address else { return None };
    let four = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match six.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(four(high, low))
        }
        [0x2002, high, low, ..] => Some(four(high, low)),
        _ => None,
    }
}

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    first: IpAddr,
    bits: u8,
}

impl Network {
    const fn new(first: IpAddr, bits: u8) -> Self {
        Self { first, bits }
    }

    /// Reads `address/bits`, as in `10.0.0.0/8`; no bit behind the first `bits` may be set.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let digits = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
        let network = Self::new(address.parse().ok()?, bits.parse().ok()?);
        let longest = if network.first.is_ipv4() { V4_BITS } else { V6_BITS };
        let lowest = mask(value(network.first), longest.checked_sub(network.bits)?);
        (digits && lowest == value(network.first)).then_some(network)
    }

    fn holds(&self, address: IpAddr) -> bool {
        let longest = match (self.first, address) {
            (IpAddr::V4(_), IpAddr::V4(_)) => V4_BITS,
            (IpAddr::V6(_), IpAddr::V6(_)) => V6_BITS,
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        let rest = longest.saturating_sub(self.bits);
        mask(value(address), rest) == mask(value(self.first), rest)
    }
}

/// An address as a number.
fn value(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(four) => u128::from(four.to_bits()),
        IpAddr::V6(six) => six.to_bits(),
    }
}

/// The number without its last `rest` bits.
fn mask(value: u128, rest: u8) -> u128 {
    u128::MAX.checked_shl(rest.into()).map_or(0, |mask| value & mask)
}

/// Where names may lead, beside public addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    allowed: Vec<Network>,
}

impl Egress {
    /// Lets names lead to private addresses of these networks.
    pub const fn new(allowed: Vec<Network>) -> Self {
        Self { allowed }
    }

    /// Whether this host of a base URL may be dialled at an address that it was found at. An address that
    /// stands in the configuration is the operator's own word; `localhost` is this machine.
    pub fn permits(&self, host: &str, address: IpAddr) -> bool {
        let address = embedded(address).map_or(address, IpAddr::V4);
        let private = || {
            let typed = host.parse::<IpAddr>().is_ok();
            let local = host == "localhost" && address.is_loopback();
            typed || local || self.allowed.iter().any(|network| network.holds(address))
        };
        match reach(address) {
            Reach::Public => true,
            Reach::Private => private(),
            Reach::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_special_address_is_what_it_is() {
        let table = [
            (
                Reach::Never,
                "0.0.0.0 0.1.2.3 169.254.0.1 169.254.169.254 169.254.170.2 192.0.0.1 192.88.99.1",
            ),
            (Reach::Never, "192.0.0.192 224.0.0.1 239.1.2.3 240.0.0.1 255.255.255.255"),
            (Reach::Never, "100.100.100.200 168.63.129.16"),
            (Reach::Never, ":: ff02::1 fe80::1 fe80::a9fe:a9fe fec0::1 fd00:ec2::254 fd20:ce::254"),
            (Reach::Never, "2001::1 2001:2::1 2001:10::1 2001:20::1 100::1"),
            (Reach::Never, "::127.0.0.1 ::8.8.8.8 5f00::1 4000::1 64:ff9b:1::a00:1 e000::1"),
            (Reach::Never, "::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1"),
            (Reach::Never, "::ffff:0.0.0.0 64:ff9b:: 2002:e000:1:: ::ffff:100.100.100.200"),
            (Reach::Private, "127.0.0.1 127.1.2.3 127.255.255.255 10.0.0.1 10.255.255.255"),
            (Reach::Private, "172.16.0.1 172.31.255.255 192.168.0.1 192.168.255.255 100.64.0.1"),
            (Reach::Private, "100.127.255.255 198.18.0.1 198.19.255.255 ::1 fc00::1 fdff::1"),
            (Reach::Private, "::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 64:ff9b::a00:1"),
            (Reach::Private, "192.0.2.1 198.51.100.7 203.0.113.9 2001:db8::1 3fff::1"),
            (Reach::Private, "2002:7f00:1::1 2002:c0a8:1::1 fd00:ec2::253"),
            (Reach::Public, "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 172.15.255.255 172.32.0.0"),
            (
                Reach::Public,
                "100.63.255.255 100.128.0.0 192.167.255.255 192.169.0.0 198.17.255.255",
            ),
            (Reach::Public, "198.20.0.0 223.255.255.255 169.253.255.255 169.255.0.0 126.1.1.1"),
            (Reach::Public, "2606:4700::1111 2a00:1450:4001::200e 2001:4860:4860::8888"),
            (Reach::Public, "::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1"),
        ];
        let mut rows = 0;
        for (expected, addresses) in table {
            for text in addresses.split(' ') {
                assert_eq!(reach(address(text)), expected, "{text}");
                rows += 1;
            }
        }
        assert!(rows >= 60, "{rows} rows");
    }

    #[test]
    fn networks_are_read_as_they_are_written() {
        for sound in ["10.0.0.0/8", "10.1.2.3/32", "0.0.0.0/0", "fc00::/7", "::1/128", "::/0"] {
            assert!(Network::parse(sound).is_some(), "{sound}");
        }
        for odd in [
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "fc00::/129",
            "fc00::1/7",
            "a/8",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            " 10.0.0.0/8",
            "10/8",
            "/8",
            "",
        ] {
            assert!(Network::parse(odd).is_none(), "{odd}");
        }
    }

    #[test]
    fn names_lead_to_public_addresses_and_where_it_is_allowed() {
        let nowhere = Egress::default();
        let own = Egress::new(
            ["10.1.0.0/16", "fd12::/16"].map(|one| Network::parse(one).unwrap()).into(),
        );
        let everywhere =
            Egress::new(["0.0.0.0/0", "::/0"].map(|one| Network::parse(one).unwrap()).into());
        for (host, at, by_default, with_own) in [
            ("api.example", "8.8.8.8", true, true),
            ("vllm.example", "10.1.2.3", false, true),
            ("vllm.example", "::ffff:10.1.2.3", false, true),
            ("vllm.example", "10.2.2.3", false, false),
            ("vllm.example", "fd12::1", false, true),
            ("vllm.example", "127.0.0.1", false, false),
            ("vllm.example", "::1", false, false),
            ("localhost", "127.0.0.1", true, true),
            ("localhost", "::1", true, true),
            ("localhost", "10.2.2.3", false, false),
            ("localhost.example", "127.0.0.1", false, false),
            ("10.2.2.3", "10.2.2.3", true, true),
            ("::1", "::1", true, true),
        ] {
            let address = address(at);
            assert_eq!(nowhere.permits(host, address), by_default, "{host} at {at}");
            assert_eq!(own.permits(host, address), with_own, "{host} at {at}");
            assert!(everywhere.permits(host, address), "{host} at {at}");
        }
        // What nobody provides at is dialled on nobody's word.
        for at in
            ["169.254.169.254", "100.100.100.200", "0.0.0.0", "fd00:ec2::254", "255.255.255.255"]
        {
            assert!(!everywhere.permits("metadata.google.internal", address(at)), "{at}");
            assert!(!everywhere.permits(at, address(at)), "{at}");
        }
    }
}
