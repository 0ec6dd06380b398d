//! Names of drop reasons. The kernel's numbers differ from release to release, so that only names are compared.

use std::collections::BTreeMap;

/// Names of drop reasons of the running kernel, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reasons(BTreeMap<u32, String>);

impl Reasons {
    /// From the enumerators of `enum skb_drop_reason`. Their common prefixes are left out.
    pub fn new(names: impl IntoIterator<Item = (u32, String)>) -> Reasons {
        let short = |name: String| {
            let short = name.strip_prefix("SKB_DROP_REASON_").or(name.strip_prefix("SKB_")).map(str::to_owned);
            short.unwrap_or(name)
        };
        Reasons(names.into_iter().map(|(number, name)| (number, short(name))).collect())
    }

    /// Name of a reason, such as `NETFILTER_DROP`.
    #[must_use]
    pub fn name(&self, reason: u32) -> Option<&str> {
        self.0.get(&reason).map(String::as_str)
    }

    pub(super) fn is(&self, reason: Option<u32>, name: &str) -> bool {
        reason.and_then(|reason| self.name(reason)) == Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::Reasons;

    #[test]
    fn reasons_lose_their_prefix() {
        let names = [(1, "SKB_CONSUMED"), (2, "SKB_DROP_REASON_NOT_SPECIFIED"), (3, "ODD")];
        let reasons = Reasons::new(names.map(|(number, name)| (number, name.to_owned())));
        assert_eq!(reasons.name(1), Some("CONSUMED"));
        assert_eq!(reasons.name(2), Some("NOT_SPECIFIED"));
        assert_eq!(reasons.name(3), Some("ODD"));
        assert_eq!(reasons.name(4), None);
    }
}
