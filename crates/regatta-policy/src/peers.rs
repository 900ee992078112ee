//! Whose word about a client's address is taken: proxies in front of the gateway.
//!
//! Pure: takes the peer's address and what the headers claim, gives the client's. Only the right-most hop that no
//! trusted proxy vouches for counts (RELIABILITY T25); whatever stands left of it, the client wrote itself.

use std::net::{IpAddr, Ipv6Addr};

/// Proxies in front of the gateway, and how they tell who their client is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Their networks.
    pub trusted: Vec<Network>,
    /// The header that all of them write. One, because a proxy passes on the other as the client wrote it.
    pub told_by: ToldBy,
    /// Whether they begin each connection with a PROXY header.
    pub preface: Preface,
}

/// The header that names a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToldBy {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// What stands before the first byte of a client on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preface {
    /// Nothing.
    #[default]
    None,
    /// A PROXY protocol header of version 2, from trusted proxies; from others nothing.
    ProxyV2,
}

/// A network: the addresses that share a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    prefix: u128,
    length: u32,
}

impl Network {
    /// `10.0.0.0/8`, `fd00::/8`, or a single address; `None` if it is none, or has bits behind its prefix.
    pub fn parse(text: &str) -> Option<Network> {
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let address: IpAddr = address.parse().ok()?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let length: u32 = match length {
            None => whole,
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
        };
        if length > whole {
            return None;
        }
        let network = Network { prefix: bits(address), length: length + 128 - whole };
        (network.prefix & !mask(network.length) == 0).then_some(network)
    }

    /// Whether `address` is in it.
    pub fn contains(self, address: IpAddr) -> bool {
        bits(address) & mask(self.length) == self.prefix
    }
}

/// IPv4 as its mapped IPv6 form, so that `::ffff:10.0.0.1` is `10.0.0.1`.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn mask(length: u32) -> u128 {
    u128::MAX.checked_shl(128 - length).unwrap_or(0)
}

impl Proxies {
    /// Whether `address` is a trusted proxy's.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// The client behind `peer`. `claims` are the values of the header of `told_by`, in the order of the message.
    ///
    /// Walks from the right as long as trusted proxies vouch; what is no address ends the walk at who said it.
    pub fn client<'a>(&self, peer: IpAddr, claims: impl DoubleEndedIterator<Item = &'a str>) -> IpAddr {
        let mut client = peer;
        if !self.trusts(peer) {
            return client;
        }
        for claim in claims.rev().flat_map(|value| value.rsplit(',')) {
            let named = match self.told_by {
                ToldBy::XForwardedFor => address(claim.trim()),
                ToldBy::Forwarded => forwarded_for(claim),
            };
            let Some(named) = named else { break };
            client = named;
            if !self.trusts(named) {
                break;
            }
        }
        client
    }
}

/// `for=` of one element of `Forwarded`; obfuscated names (`_hidden`, `unknown`) are no addresses.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let mut named = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    let (_, value) = named.next()?;
    address(value.trim().trim_matches('"'))
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    if let Some(inner) = text.strip_prefix('[') {
        let (inner, _port) = inner.split_once(']')?;
        return inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let whole = text.parse().ok();
    whole.or_else(|| text.parse().ok().map(|socket: std::net::SocketAddr| socket.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn proxies(told_by: ToldBy) -> Proxies {
        let trusted = ["10.0.0.0/8", "fd00::/8"].iter().filter_map(|text| Network::parse(text)).collect();
        Proxies { trusted, told_by, preface: Preface::None }
    }

    #[test]
    fn networks_hold_what_shares_their_prefix() {
        let network = |text: &str| Network::parse(text).expect("a network");
        assert!(network("10.0.0.0/8").contains(ip("10.255.0.1")));
        assert!(network("10.0.0.0/8").contains(ip("::ffff:10.1.2.3")), "mapped addresses are the same");
        assert!(!network("10.0.0.0/8").contains(ip("11.0.0.1")));
        assert!(network("0.0.0.0/0").contains(ip("1.2.3.4")) && !network("0.0.0.0/0").contains(ip("::1")));
        assert!(network("::/0").contains(ip("2001:db8::1")));
        assert!(
            network("192.0.2.7").contains(ip("192.0.2.7")) && !network("192.0.2.7").contains(ip("192.0.2.8"))
        );
        for bad in ["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "host", "", "::/129"] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_client_is_the_right_most_hop_that_nobody_vouches_for() {
        let proxies = proxies(ToldBy::XForwardedFor);
        for (peer, claims, client) in [
            ("203.0.113.9", &["1.1.1.1"][..], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", &["10.9.9.9"], "10.9.9.9"),
            ("10.0.0.1", &["1.1.1.1, nonsense"], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, nonsense, 10.0.0.3"], "10.0.0.3"),
            ("10.0.0.1", &["1.1.1.1, "], "10.0.0.1"),
            ("fd00::1", &["[2001:db8::7]:4711"], "2001:db8::7"),
            ("10.0.0.1", &["198.51.100.7:80"], "198.51.100.7"),
        ] {
            assert_eq!(proxies.client(ip(peer), claims.iter().copied()), ip(client), "{peer} {claims:?}");
        }
    }

    #[test]
    fn the_standard_header_is_read_where_it_is_the_one_that_is_written() {
        let proxies = proxies(ToldBy::Forwarded);
        for (claims, client) in [
            ("for=1.1.1.1, for=198.51.100.7;proto=https", "198.51.100.7"),
            ("proto=https;FOR=\"[2001:db8::7]:80\"", "2001:db8::7"),
            ("for=1.1.1.1, for=_hidden", "10.0.0.1"),
            ("for=unknown", "10.0.0.1"),
            ("1.1.1.1", "10.0.0.1"),
        ] {
            assert_eq!(proxies.client(ip("10.0.0.1"), [claims].into_iter()), ip(client), "{claims}");
        }
    }
}
