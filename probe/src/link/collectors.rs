//! Which collector is dialled next: those of the configuration in turn, or the one that the probe joined. Never dials.

use crate::identity::Address;

/// The collectors of the mesh, as this probe reaches them.
#[derive(Debug, Clone)]
pub(super) struct Collectors {
    /// In the order of preference; never empty.
    addresses: Vec<Address>,
    present: usize,
}

impl Collectors {
    /// Those that the operator has named; without any, the one that the probe was told when it joined.
    pub(super) fn new(named: Vec<Address>, joined: Address) -> Self {
        let addresses = if named.is_empty() { vec![joined] } else { named };
        Self { addresses, present: 0 }
    }

    /// The one to dial.
    pub(super) fn present(&self) -> &Address {
        &self.addresses[self.present]
    }

    /// The present one could not be reached, or has ended its stream: the next is tried, whatever the reason was. Whoever
    /// was overloaded or stopped is not asked again at once, and whoever is dead costs one attempt of each round.
    pub(super) fn give_up(&mut self) {
        self.present = (self.present + 1) % self.addresses.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse("mesh_addresses", text).unwrap()
    }

    #[test]
    fn each_collector_has_its_turn() {
        let (one, two) = (address("one.example:7401"), address("two.example:7401"));
        let mut collectors = Collectors::new(vec![one.clone(), two.clone()], address("joined.example:7401"));
        assert_eq!(*collectors.present(), one);
        collectors.give_up();
        assert_eq!(*collectors.present(), two);
        collectors.give_up();
        assert_eq!(*collectors.present(), one);
    }

    #[test]
    fn without_a_list_it_is_the_one_that_was_joined() {
        let joined = address("joined.example:7401");
        let mut collectors = Collectors::new(Vec::new(), joined.clone());
        collectors.give_up();
        assert_eq!(*collectors.present(), joined);
    }
}
