//! Which addresses pictures may come from: those of the public internet.
//!
//! A URL in an item's metadata is written by a stranger. Without this check it could make us ask a machine that only we can
//! reach: a database beside us, a router, or the service at 169.254.169.254 that hands out a cloud machine's keys.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Blocks of IPv4 that are not public, by the registry of special-purpose addresses (IANA): base, length, what it is.
const IPV4: [([u8; 4], u32, &str); 18] = [
    ([0, 0, 0, 0], 8, "an unspecified address"),
    ([10, 0, 0, 0], 8, "a private address"),
    ([100, 64, 0, 0], 10, "an address behind a carrier's NAT"),
    ([127, 0, 0, 0], 8, "a loopback address"),
    // The platform's own endpoint on every Azure machine, although the block is a public one.
    ([168, 63, 129, 16], 32, "an address of the cloud platform"),
    ([169, 254, 0, 0], 16, "a link-local address"),
    ([172, 16, 0, 0], 12, "a private address"),
    ([192, 0, 0, 0], 24, "an address for protocols"),
    ([192, 0, 2, 0], 24, "an address for documentation"),
    ([192, 31, 196, 0], 24, "an address for protocols"),
    ([192, 52, 193, 0], 24, "an address for protocols"),
    ([192, 88, 99, 0], 24, "an address of a 6to4 relay"),
    ([192, 168, 0, 0], 16, "a private address"),
    ([198, 18, 0, 0], 15, "an address for benchmarks"),
    ([198, 51, 100, 0], 24, "an address for documentation"),
    ([203, 0, 113, 0], 24, "an address for documentation"),
    ([224, 0, 0, 0], 4, "a multicast address"),
    ([240, 0, 0, 0], 4, "a reserved address"),
];

/// The same for IPv6. What is outside 2000::/3 is refused anyway; the blocks there only have better names.
const IPV6: [(u128, u32, &str); 11] = [
    (0, 128, "an unspecified address"),
    (1, 128, "a loopback address"),
    (0, 96, "an IPv4-compatible address"),
    (0xfc00 << 112, 7, "a private address"),
    (0xfe80 << 112, 10, "a link-local address"),
    (0xfec0 << 112, 10, "a site-local address"),
    (0xff00 << 112, 8, "a multicast address"),
    // Teredo, ORCHID and benchmarks are in it.
    (0x2001 << 112, 23, "an address for protocols"),
    (0x2001_0db8 << 96, 32, "an address for documentation"),
    (0x3fff << 112, 20, "an address for documentation"),
    (0x0064_ff9b_0001 << 80, 48, "an address of a local NAT64"),
];

/// Why nothing is asked at an address, or nothing if it is public.
pub(super) fn refusal(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => refusal_v4(v4),
        IpAddr::V6(v6) => embedded(v6).map_or_else(|| refusal_v6(v6), refusal_v4),
    }
}

fn refusal_v4(address: Ipv4Addr) -> Option<&'static str> {
    let bits = u32::from(address);
    let within = |base: [u8; 4], len: u32| bits >> (32 - len) == u32::from_be_bytes(base) >> (32 - len);
    IPV4.iter().find(|(base, len, _)| within(*base, *len)).map(|(_, _, what)| *what)
}

fn refusal_v6(address: Ipv6Addr) -> Option<&'static str> {
    let bits = u128::from(address);
    let within = |base: u128, len: u32| bits >> (128 - len) == base >> (128 - len);
    let named = IPV6.iter().find(|(base, len, _)| within(*base, *len)).map(|(_, _, what)| *what);
    named.or((!within(0x2000 << 112, 3)).then_some("not a public address"))
}

/// The IPv4 address that packets to this one end at: IPv4-mapped (::ffff:0:0/96), NAT64 (64:ff9b::/96), 6to4 (2002::/16).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, high, low] = address.segments();
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => None,
    }
}
