//! Internet addresses as text, written as C's `inet_ntop` writes them.

use std::net::{IpAddr, Ipv6Addr};

/// The text of an address, without its scope.
pub fn text(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => dotted(address.octets()),
        IpAddr::V6(address) if is_v4_compatible(address) => {
            // The standard library writes these in hexadecimal, C does not.
            let [.., a, b, c, d] = address.octets();
            format!("::{a}.{b}.{c}.{d}")
        }
        IpAddr::V6(address) => address.to_string(),
    }
}

/// Four numbers with dots. Each connection and each datagram needs one, and formatting machinery takes its time.
fn dotted(octets: [u8; 4]) -> String {
    let mut text = String::with_capacity(15);
    for (index, octet) in octets.into_iter().enumerate() {
        if index > 0 {
            text.push('.');
        }
        for (divisor, least) in [(100, 100), (10, 10), (1, 0)] {
            if octet >= least {
                text.push(char::from(b'0' + octet / divisor % 10));
            }
        }
    }
    text
}

/// Whether all but the last 32 bits are 0, and not the first 16 of those.
fn is_v4_compatible(address: Ipv6Addr) -> bool {
    matches!(address.segments(), [0, 0, 0, 0, 0, 0, high, _] if high != 0)
}

#[cfg(test)]
mod tests;
