//! Internet addresses as text, written as C's `inet_ntop` writes them.

use std::net::{IpAddr, Ipv6Addr};

/// The text of an address, without its scope.
pub fn text(address: IpAddr) -> String {
    match address {
        IpAddr::V6(address) if is_v4_compatible(address) => {
            // The standard library writes these in hexadecimal, C does not.
            let [.., a, b, c, d] = address.octets();
            format!("::{a}.{b}.{c}.{d}")
        }
        other => other.to_string(),
    }
}

/// Whether all but the last 32 bits are 0, and not the first 16 of those.
fn is_v4_compatible(address: Ipv6Addr) -> bool {
    matches!(address.segments(), [0, 0, 0, 0, 0, 0, high, _] if high != 0)
}

#[cfg(test)]
mod tests;
