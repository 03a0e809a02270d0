//! The lab's one network: which addresses it takes, and where the admin stands on it.
//!
//! Pure.

use std::net::Ipv4Addr;

use super::{LabError, LabHost};

/// The network that holds every host of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subnet {
    /// The lowest address, which names the network.
    network: Ipv4Addr,
    /// Its length in bits: 24 or 16.
    pub prefix: u8,
    /// The switch's own address, from which the admin reaches the hosts.
    pub admin: Ipv4Addr,
}

impl Subnet {
    /// Finds the smallest network, /24 or /16, that holds all hosts.
    ///
    /// # Errors
    /// [`LabError::NoHosts`], [`LabError::Address`] for an address no host can have, [`LabError::SameAddress`],
    /// [`LabError::Subnets`] when no /16 holds all.
    pub fn of(hosts: &[LabHost]) -> Result<Self, LabError> {
        let first = hosts.first().ok_or(LabError::NoHosts)?;
        let prefix =
            if hosts.iter().all(|host| mask(host.address, 24) == mask(first.address, 24)) { 24 } else { 16 };
        let network = mask(first.address, prefix);
        for (index, host) in hosts.iter().enumerate() {
            check(host)?;
            if mask(host.address, prefix) != network {
                return Err(LabError::Subnets {
                    one: first.id.clone(),
                    one_address: first.address,
                    other: host.id.clone(),
                    other_address: host.address,
                });
            }
            if let Some(same) = hosts[..index].iter().find(|other| other.address == host.address) {
                return Err(LabError::SameAddress {
                    one: same.id.clone(),
                    other: host.id.clone(),
                    address: host.address,
                });
            }
            if [network, broadcast(network, prefix)].contains(&host.address) {
                return Err(LabError::Address {
                    host: host.id.clone(),
                    address: host.address.to_string(),
                    reason: "is the first or last address of its network, which no host can have",
                });
            }
        }
        let taken = |address: &Ipv4Addr| hosts.iter().any(|host| host.address == *address);
        let first_number = network.to_bits() + 1;
        let admin = (first_number..broadcast(network, prefix).to_bits()).map(Ipv4Addr::from_bits);
        let admin = admin.into_iter().find(|address| !taken(address)).ok_or(LabError::NetworkFull)?;
        Ok(Self { network, prefix, admin })
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

fn check(host: &LabHost) -> Result<(), LabError> {
    let address = host.address;
    let reason = if address.is_loopback() {
        "is a loopback address"
    } else if address.is_multicast() || address.is_broadcast() {
        "is not the address of one host"
    } else if address.octets()[0] == 0 {
        "is reserved"
    } else {
        return Ok(());
    };
    Err(LabError::Address { host: host.id.clone(), address: address.to_string(), reason })
}

fn mask(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << (32 - u32::from(prefix))))
}

fn broadcast(network: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(network.to_bits() | (u32::MAX >> u32::from(prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HostId;

    fn subnet(addresses: &[&str]) -> Result<Subnet, LabError> {
        let hosts: Vec<_> = addresses
            .iter()
            .enumerate()
            .map(|(index, address)| LabHost {
                id: HostId::new(format!("h{index}")).unwrap(),
                address: address.parse().unwrap(),
                hypervisor: false,
            })
            .collect();
        Subnet::of(&hosts)
    }

    #[test]
    fn hosts_of_one_24_get_a_24_and_the_admin_stands_at_1() {
        let subnet = subnet(&["10.77.0.11", "10.77.0.254"]).unwrap();
        assert_eq!(subnet.to_string(), "10.77.0.0/24");
        assert_eq!(subnet.admin, Ipv4Addr::new(10, 77, 0, 1));
    }

    #[test]
    fn admin_takes_the_first_free_address_when_1_is_a_host() {
        let subnet = subnet(&["192.168.5.2", "192.168.5.1", "192.168.5.4"]).unwrap();
        assert_eq!(subnet.admin, Ipv4Addr::new(192, 168, 5, 3));
    }

    #[test]
    fn hosts_of_two_24s_share_a_16() {
        let subnet = subnet(&["10.77.0.11", "10.77.9.0", "10.77.9.255"]).unwrap();
        assert_eq!(subnet.to_string(), "10.77.0.0/16");
        assert_eq!(subnet.admin, Ipv4Addr::new(10, 77, 0, 1));
    }

    #[test]
    fn hosts_that_no_16_holds_are_refused() {
        assert!(matches!(subnet(&["10.77.0.11", "10.78.0.11"]), Err(LabError::Subnets { .. })));
    }

    #[test]
    fn addresses_no_host_can_have_are_refused() {
        for bad in ["127.0.0.2", "224.0.0.5", "255.255.255.255", "0.0.0.7", "10.1.1.0", "10.1.1.255"] {
            assert!(matches!(subnet(&[bad]), Err(LabError::Address { .. })), "{bad}");
        }
    }

    #[test]
    fn two_hosts_with_one_address_are_refused() {
        assert!(matches!(subnet(&["10.1.1.7", "10.1.1.7"]), Err(LabError::SameAddress { .. })));
    }

    #[test]
    fn lab_without_hosts_is_refused() {
        assert!(matches!(subnet(&[]), Err(LabError::NoHosts)));
    }
}
