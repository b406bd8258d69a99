//! What lifetimes a chain of servers can promise: from the root's CA over the intermediate CAs down
//! to what workloads hold.
//!
//! Nothing outlives what signed it. A CA signs until its successor takes over, when a sixth of its
//! own life is left and at most seven days (SPIRE, `pkg/server/ca/manager/slot.go`); what it signs
//! last lives no longer than that. So each tier divides by six what it can promise to the one below,
//! however long the tier below would like its CA to live. A chain in which that leaves too little
//! works most of the time, and then fails: it is to be told before.

use jiff::SignedDuration;

use crate::authority::{signs_until_left, successor_when_left};

/// A server of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// What it is called.
    pub name: String,
    /// How long its CA lives.
    pub ca: CaLifetime,
}

/// How long a CA lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaLifetime {
    /// The server has CAs of this lifetime made, one after the other.
    Rotated(SignedDuration),
    /// There is one CA, with this much left of its life; it signs to the end.
    Left(SignedDuration),
}

/// What a chain can promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TtlBudget {
    /// The tiers, the root's first.
    pub tiers: Vec<TierBudget>,
    /// Shortest lifetime of a leaf when it is signed.
    pub leaf: SignedDuration,
    /// Whether that is enough.
    pub verdict: Verdict,
}

/// What a tier can promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierBudget {
    /// What the tier is called.
    pub name: String,
    /// Shortest lifetime of its CA when it is signed.
    pub ca: SignedDuration,
    /// Shortest lifetime of what it signs.
    pub signs_for: SignedDuration,
    /// How long it goes on signing at least while the tier above is away.
    pub survives: SignedDuration,
}

/// Whether a chain works.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Verdict {
    /// Every lifetime is what it is asked to be.
    #[error("every lifetime in the chain can be kept")]
    Kept,
    /// Leaves are shorter than asked for at times, and long enough.
    #[error(
        "leaves are to live for {wanted:#} and may get {leaf:#}, because of the CA of {tier}; \
         {}", advice(.needed.as_deref())
    )]
    Shortened {
        /// What is asked for.
        wanted: SignedDuration,
        /// What is promised.
        leaf: SignedDuration,
        /// The tier that gives less than it should.
        tier: String,
        /// What the CAs must live for, the root's first.
        needed: Option<Vec<(String, SignedDuration)>>,
    },
    /// Leaves are too short at times.
    #[error(
        "leaves must live for {least:#} at least and may get {leaf:#} only, because of the CA of \
         {tier}; {}", advice(.needed.as_deref())
    )]
    TooShort {
        /// The shortest that works.
        least: SignedDuration,
        /// What is promised.
        leaf: SignedDuration,
        /// The tier that gives less than it should.
        tier: String,
        /// What the CAs must live for, the root's first.
        needed: Option<Vec<(String, SignedDuration)>>,
    },
    /// No tier at all.
    #[error("the chain has no CA")]
    Empty,
}

/// What a chain of `tiers`, the root's first, can promise to leaves that are to live for `wanted`
/// and must live for `least`.
#[must_use]
pub fn ttl_budget(tiers: &[Tier], wanted: SignedDuration, least: SignedDuration) -> TtlBudget {
    let mut budgets: Vec<TierBudget> = Vec::with_capacity(tiers.len());
    for tier in tiers {
        let above = budgets.last().map(|above| above.signs_for);
        budgets.push(tier.budget(above));
    }
    let Some(lowest) = budgets.last() else {
        return TtlBudget {
            tiers: budgets,
            leaf: SignedDuration::ZERO,
            verdict: Verdict::Empty,
        };
    };
    let leaf = wanted.min(lowest.signs_for);
    let verdict = verdict(tiers, &budgets, leaf, wanted, least);
    TtlBudget {
        tiers: budgets,
        leaf,
        verdict,
    }
}

impl Tier {
    /// `above` is the shortest lifetime of what the tier above signs.
    fn budget(&self, above: Option<SignedDuration>) -> TierBudget {
        let wanted = match self.ca {
            CaLifetime::Rotated(ttl) | CaLifetime::Left(ttl) => ttl,
        };
        let ca = above.map_or(wanted, |above| above.min(wanted));
        let (signs_for, survives) = match self.ca {
            CaLifetime::Rotated(_) => (signs_until_left(ca), successor_when_left(ca)),
            CaLifetime::Left(_) => (ca, ca),
        };
        TierBudget {
            name: self.name.clone(),
            ca,
            signs_for,
            survives,
        }
    }

    /// Whether the tier's own CA would be long enough to sign for `below`.
    fn suffices(&self, below: SignedDuration) -> bool {
        match self.ca {
            CaLifetime::Rotated(ttl) => signs_until_left(ttl) >= below,
            CaLifetime::Left(left) => left >= below,
        }
    }
}

fn verdict(
    tiers: &[Tier],
    budgets: &[TierBudget],
    leaf: SignedDuration,
    wanted: SignedDuration,
    least: SignedDuration,
) -> Verdict {
    if leaf >= wanted.max(least) {
        return Verdict::Kept;
    }
    let target = wanted.max(least);
    let needed = needed(tiers, target);
    let tier = culprit(tiers, budgets, target);
    if leaf < least {
        Verdict::TooShort {
            least,
            leaf,
            tier,
            needed,
        }
    } else {
        Verdict::Shortened {
            wanted,
            leaf,
            tier,
            needed,
        }
    }
}

/// The highest tier whose CA is too short by itself for what stands below it.
fn culprit(tiers: &[Tier], budgets: &[TierBudget], leaf: SignedDuration) -> String {
    let mut below = leaf;
    let mut culprit = budgets.last().map(|last| last.name.clone());
    for tier in tiers.iter().rev() {
        if !tier.suffices(below) {
            culprit = Some(tier.name.clone());
        }
        below = match tier.ca {
            CaLifetime::Rotated(_) => match required(below) {
                Some(required) => required,
                None => break,
            },
            CaLifetime::Left(_) => below,
        };
    }
    culprit.unwrap_or_default()
}

/// What the CAs must live for so that a leaf can have `leaf`, the root's first; none where no
/// lifetime is enough.
fn needed(tiers: &[Tier], leaf: SignedDuration) -> Option<Vec<(String, SignedDuration)>> {
    let mut below = leaf;
    let mut needed = Vec::with_capacity(tiers.len());
    for tier in tiers.iter().rev() {
        below = match tier.ca {
            CaLifetime::Rotated(_) => required(below)?,
            CaLifetime::Left(_) => below,
        };
        needed.push((tier.name.clone(), below));
    }
    needed.reverse();
    Some(needed)
}

/// The shortest lifetime of a rotated CA that can sign for `below` until its successor takes over.
fn required(below: SignedDuration) -> Option<SignedDuration> {
    let ttl = below.checked_mul(6)?;
    (signs_until_left(ttl) >= below).then_some(ttl)
}

fn advice(needed: Option<&[(String, SignedDuration)]>) -> String {
    match needed {
        Some(needed) => {
            let each: Vec<String> = needed
                .iter()
                .map(|(name, ttl)| format!("{name} {ttl:#}"))
                .collect();
            format!("the CAs need to live for: {}", each.join(", "))
        }
        None => "no lifetime of the CAs is enough for that: give leaves a shorter one".into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);
    const MINUTE: SignedDuration = SignedDuration::from_mins(1);

    fn chain(hours: &[i64]) -> Vec<Tier> {
        let tier = |(index, hours): (usize, &i64)| Tier {
            name: format!("tier{index}"),
            ca: CaLifetime::Rotated(SignedDuration::from_hours(*hours)),
        };
        hours.iter().enumerate().map(tier).collect()
    }

    fn budget(hours: &[i64], wanted: SignedDuration) -> TtlBudget {
        ttl_budget(&chain(hours), wanted, MINUTE)
    }

    #[test]
    fn each_tier_promises_a_sixth_of_what_it_has() {
        for (hours, expected_minutes) in [
            (vec![24], 4 * 60),
            (vec![24, 24], 40),
            (vec![24, 24, 24], 6),
            (vec![168, 24], 4 * 60),
            (vec![216, 36, 6], 60),
            // A sixth of ten years is more than the seven days that a CA goes on signing at most.
            (vec![87_600], 7 * 24 * 60),
            (vec![87_600, 87_600], 28 * 60),
        ] {
            let leaf = budget(&hours, SignedDuration::from_hours(10_000)).leaf;
            assert_eq!(leaf.as_mins(), expected_minutes, "{hours:?}");
        }
    }

    #[test]
    fn a_tier_survives_from_the_time_its_successor_is_due() {
        let tiers = budget(&[24, 24, 24], HOUR).tiers;
        let minutes: Vec<_> = tiers
            .iter()
            .map(|tier| (tier.ca.as_mins(), tier.survives.as_mins()))
            .collect();
        assert_eq!(minutes, [(24 * 60, 12 * 60), (4 * 60, 2 * 60), (40, 20)]);
        let long = budget(&[87_600], HOUR).tiers;
        assert_eq!(
            long.first().map(|tier| tier.survives.as_hours()),
            Some(30 * 24)
        );
    }

    #[test]
    fn what_can_be_kept_is_kept() {
        for (hours, wanted) in [
            (vec![6], HOUR),
            (vec![36, 6], HOUR),
            (vec![216, 36, 6], HOUR),
            (vec![168, 24], SignedDuration::from_hours(4)),
        ] {
            assert_eq!(budget(&hours, wanted).verdict, Verdict::Kept, "{hours:?}");
        }
    }

    #[test]
    fn what_cannot_is_told_with_the_tier_and_the_remedy() {
        let Verdict::Shortened {
            wanted,
            leaf,
            tier,
            needed,
        } = budget(&[24, 24], HOUR).verdict
        else {
            panic!()
        };
        assert_eq!((wanted, leaf.as_mins()), (HOUR, 40));
        assert_eq!(tier, "tier0", "the child's CA would do if the root gave it");
        let needed: Vec<_> = needed
            .unwrap()
            .into_iter()
            .map(|(_, ttl)| ttl.as_hours())
            .collect();
        assert_eq!(needed, [36, 6]);
        let said = budget(&[168, 1], HOUR).verdict.to_string();
        assert_eq!(
            said,
            "leaves are to live for 1h and may get 10m, because of the CA of tier1; \
             the CAs need to live for: tier0 36h, tier1 6h"
        );
        let said = budget(&[24, 24], SignedDuration::from_hours(200))
            .verdict
            .to_string();
        assert!(said.ends_with("give leaves a shorter one"), "{said}");
    }

    #[test]
    fn too_short_is_worse_than_shortened() {
        let least_hour = ttl_budget(&chain(&[24, 24]), SignedDuration::from_hours(4), HOUR).verdict;
        assert!(
            matches!(least_hour, Verdict::TooShort { .. }),
            "{least_hour:?}"
        );
        let least_minutes = ttl_budget(
            &chain(&[24, 24]),
            SignedDuration::from_hours(4),
            SignedDuration::from_mins(40),
        )
        .verdict;
        assert!(
            matches!(least_minutes, Verdict::Shortened { .. }),
            "{least_minutes:?}"
        );
        assert_eq!(ttl_budget(&[], HOUR, MINUTE).verdict, Verdict::Empty);
    }

    #[test]
    fn a_ca_that_is_not_rotated_signs_to_its_end() {
        let mut tiers = chain(&[0, 24]);
        tiers[0].ca = CaLifetime::Left(SignedDuration::from_hours(12));
        let budget = ttl_budget(&tiers, SignedDuration::from_hours(3), MINUTE);
        assert_eq!(budget.leaf, SignedDuration::from_hours(2));
        let Verdict::Shortened { tier, .. } = budget.verdict else {
            panic!()
        };
        assert_eq!(tier, "tier0");
        tiers[0].ca = CaLifetime::Left(SignedDuration::from_hours(18));
        assert_eq!(
            ttl_budget(&tiers, SignedDuration::from_hours(3), MINUTE).verdict,
            Verdict::Kept
        );
    }

    proptest! {
        #[test]
        fn nothing_outlives_what_is_above_it_and_the_remedy_works(
            hours in prop::collection::vec(0_i64..20_000, 1..5),
            wanted in 1_i64..10_000,
        ) {
            let wanted = SignedDuration::from_mins(wanted);
            let budget = budget(&hours, wanted);
            for pair in budget.tiers.windows(2) {
                prop_assert!(pair[1].ca <= pair[0].signs_for);
            }
            prop_assert!(budget.leaf <= wanted);
            prop_assert_eq!(budget.verdict == Verdict::Kept, budget.leaf == wanted);
            if let Verdict::Shortened { needed: Some(needed), tier, .. } = budget.verdict {
                prop_assert!(hours.len() == needed.len() && !tier.is_empty());
                let better: Vec<Tier> = needed
                    .into_iter()
                    .map(|(name, ttl)| Tier { name, ca: CaLifetime::Rotated(ttl) })
                    .collect();
                prop_assert_eq!(ttl_budget(&better, wanted, MINUTE).verdict, Verdict::Kept);
            }
        }
    }
}
