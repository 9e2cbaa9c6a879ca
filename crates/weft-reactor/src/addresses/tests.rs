use std::net::Ipv4Addr;

use super::*;

/// How C writes some addresses that there is more than one way to write.
const IN_C: &[([u16; 8], &str)] = &[
    ([0, 0, 0, 0, 0, 0, 0, 0], "::"),
    ([0, 0, 0, 0, 0, 0, 0, 1], "::1"),
    ([0, 0, 0, 0, 0, 0, 0, 0xffff], "::ffff"),
    ([0, 0, 0, 0, 0, 0, 1, 0], "::0.1.0.0"),
    ([0, 0, 0, 0, 0, 0, 0x102, 0x304], "::1.2.3.4"),
    ([0, 0, 0, 0, 0, 0, 1, 0x203], "::0.1.2.3"),
    ([0, 0, 0, 0, 0, 0, 0x100, 0], "::1.0.0.0"),
    ([0, 0, 0, 0, 0, 0xffff, 0x102, 0x304], "::ffff:1.2.3.4"),
    ([0, 0, 0, 0, 0xffff, 0, 0x102, 0x304], "::ffff:0:102:304"),
    ([1, 0, 0, 0, 0, 0, 0, 0], "1::"),
    ([1, 0, 0, 2, 0, 0, 0, 0], "1:0:0:2::"),
    ([0, 0, 1, 0, 0, 0, 0, 0], "0:0:1::"),
    ([1, 0, 0, 2, 0, 0, 0, 3], "1:0:0:2::3"),
    ([1, 2, 3, 4, 5, 6, 7, 0], "1:2:3:4:5:6:7:0"),
    ([0, 2, 3, 4, 5, 6, 7, 8], "0:2:3:4:5:6:7:8"),
    ([1, 0, 3, 4, 5, 6, 7, 8], "1:0:3:4:5:6:7:8"),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 1], "fe80::1"),
    ([0x2001, 0xdb8, 0, 0, 0xa, 0, 0, 1], "2001:db8::a:0:0:1"),
    ([0x64, 0xff9b, 0, 0, 0, 0, 0x102, 0x304], "64:ff9b::102:304"),
    ([0, 0, 0, 0, 0, 1, 0, 0], "::1:0:0"),
    ([0, 0, 0, 0, 1, 0, 0, 0], "::1:0:0:0"),
];

#[test]
fn addresses_of_ipv6_look_as_in_c() {
    for (segments, expected) in IN_C {
        assert_eq!(text(Ipv6Addr::from(*segments).into()), *expected);
    }
}

#[test]
fn addresses_of_ipv4_look_as_in_c() {
    for octet in 0..=255_u8 {
        let octets = [octet, 0, 255 - octet, octet];
        let expected = octets.map(|octet| octet.to_string()).join(".");
        assert_eq!(text(Ipv4Addr::from(octets).into()), expected);
    }
}
