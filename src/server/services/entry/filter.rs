//! Which entries an administrator asks for. Pure.

use std::collections::BTreeSet;

use tonic::Status;

use crate::registration::{Entry, EntrySelector};
use crate::server::proto::entry::{count_entries_request, list_entries_request};
use crate::server::proto::types::federates_with_match::MatchBehavior as OfTrustDomains;
use crate::server::proto::types::selector_match::MatchBehavior as OfSelectors;
use crate::server::services::entry::convert;
use crate::spiffe::{SpiffeId, TrustDomainName};
use crate::store::agents::SelectorMatch;

/// What entries must be to be shown. What is not set does not matter.
#[derive(Debug, Default)]
pub(super) struct Filter {
    spiffe_id: Option<SpiffeId>,
    parent_id: Option<SpiffeId>,
    selectors: Option<(SelectorMatch, BTreeSet<String>)>,
    federates_with: Option<(SelectorMatch, BTreeSet<String>)>,
    hint: Option<String>,
    downstream: bool,
}

impl Filter {
    /// The filter of a request; without one all is allowed.
    ///
    /// # Errors
    /// `InvalidArgument` when it is malformed.
    pub(super) fn of(
        filter: Option<&list_entries_request::Filter>,
        trust_domain: &TrustDomainName,
    ) -> Result<Self, Status> {
        let parsed = filter.map(|filter| Self::parse(filter, trust_domain));
        let parsed = parsed.transpose().map_err(Status::invalid_argument)?;
        Ok(parsed.unwrap_or_default())
    }

    /// What is malformed is said in spire-server's words.
    fn parse(
        filter: &list_entries_request::Filter,
        trust_domain: &TrustDomainName,
    ) -> Result<Self, String> {
        let malformed = |what: &str| {
            let what = what.to_owned();
            move |error: String| format!("malformed {what} filter: {error}")
        };
        let mut parsed = Self {
            hint: filter.by_hint.clone().filter(|hint| !hint.is_empty()),
            // `false` asks for all, as spire-server takes it; its command line always sends it.
            downstream: filter.by_downstream == Some(true),
            ..Self::default()
        };
        if let Some(id) = &filter.by_parent_id {
            let id = convert::member_id(trust_domain, Some(id)).map_err(malformed("parent ID"))?;
            parsed.parent_id = Some(id);
        }
        if let Some(id) = &filter.by_spiffe_id {
            let id = convert::workload_id(trust_domain, Some(id));
            parsed.spiffe_id = Some(id.map_err(malformed("SPIFFE ID"))?);
        }
        if let Some(by) = &filter.by_selectors {
            let selectors = convert::selectors(&by.selectors).map_err(malformed("selectors"))?;
            if selectors.is_empty() {
                return Err(malformed("selectors")("empty selector set".into()));
            }
            let how = match OfSelectors::try_from(by.r#match) {
                Ok(OfSelectors::MatchAny) => SelectorMatch::Any,
                Ok(OfSelectors::MatchExact) => SelectorMatch::Exact,
                Ok(OfSelectors::MatchSubset) => SelectorMatch::Subset,
                Ok(OfSelectors::MatchSuperset) => SelectorMatch::Superset,
                Err(error) => return Err(malformed("selectors")(error.to_string())),
            };
            parsed.selectors = Some((how, selectors.into_iter().collect()));
        }
        if let Some(by) = &filter.by_federates_with {
            let names = by.trust_domains.iter().map(|name| {
                let name = TrustDomainName::from_name_or_id(name);
                name.map(|name| name.to_string())
                    .map_err(|error| malformed("federates with")(error.to_string()))
            });
            let names: BTreeSet<_> = names.collect::<Result<_, _>>()?;
            if names.is_empty() {
                return Err(malformed("federates with")("empty trust domain set".into()));
            }
            let how = match OfTrustDomains::try_from(by.r#match) {
                Ok(OfTrustDomains::MatchAny) => SelectorMatch::Any,
                Ok(OfTrustDomains::MatchExact) => SelectorMatch::Exact,
                Ok(OfTrustDomains::MatchSubset) => SelectorMatch::Subset,
                Ok(OfTrustDomains::MatchSuperset) => SelectorMatch::Superset,
                Err(error) => return Err(malformed("federates with")(error.to_string())),
            };
            parsed.federates_with = Some((how, names));
        }
        Ok(parsed)
    }

    /// Whether `entry` is to be shown.
    pub(super) fn allows(&self, entry: &Entry) -> bool {
        fn is<T: PartialEq>(wanted: Option<&T>, found: &T) -> bool {
            wanted.is_none_or(|wanted| wanted == found)
        }
        let hint = self.hint.as_deref();
        is(self.spiffe_id.as_ref(), &entry.spiffe_id)
            && is(self.parent_id.as_ref(), &entry.parent_id)
            && (entry.downstream || !self.downstream)
            && hint.is_none_or(|hint| entry.hint.as_deref() == Some(hint))
            && holds(
                self.selectors.as_ref(),
                entry.selectors.iter().map(EntrySelector::as_str),
            )
            && holds(
                self.federates_with.as_ref(),
                entry.federates_with.iter().map(TrustDomainName::as_str),
            )
    }
}

fn holds<'a>(
    wanted: Option<&(SelectorMatch, BTreeSet<String>)>,
    has: impl Iterator<Item = &'a str>,
) -> bool {
    wanted.is_none_or(|(how, asked_for)| {
        let asked_for = asked_for.iter().map(String::as_str).collect();
        how.holds(&has.collect(), &asked_for)
    })
}

/// The filter of `CountEntries` has the fields of the other.
pub(super) fn of_count(filter: count_entries_request::Filter) -> list_entries_request::Filter {
    let count_entries_request::Filter {
        by_spiffe_id,
        by_parent_id,
        by_selectors,
        by_federates_with,
        by_hint,
        by_downstream,
    } = filter;
    list_entries_request::Filter {
        by_spiffe_id,
        by_parent_id,
        by_selectors,
        by_federates_with,
        by_hint,
        by_downstream,
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::OfSelectors as S;
    use super::OfTrustDomains as T;
    use super::list_entries_request::Filter as F;
    use super::*;
    use crate::api::RegistrationEntrySpec;
    use crate::server::proto::types::{FederatesWithMatch, Selector, SelectorMatch, Spiffeid};

    fn entry() -> Entry {
        let strings = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let spec = RegistrationEntrySpec {
            spiffe_id: "spiffe://e.org/web".into(),
            parent_id: "spiffe://e.org/p".into(),
            selectors: strings(&["a:1", "b:2"]),
            federates_with: strings(&["f.org", "g.org"]),
            hint: Some("main".into()),
            downstream: true,
            ..RegistrationEntrySpec::default()
        };
        convert::wanted(&spec, &"e.org".parse().unwrap()).unwrap()
    }

    fn parse(filter: &list_entries_request::Filter) -> Result<Filter, Status> {
        Filter::of(Some(filter), &"e.org".parse().unwrap())
    }

    fn id(path: &str) -> Spiffeid {
        Spiffeid {
            trust_domain: "e.org".into(),
            path: path.into(),
        }
    }

    fn selectors(how: OfSelectors, pairs: &[(&str, &str)]) -> list_entries_request::Filter {
        let selectors = pairs.iter().map(|(kind, value)| Selector {
            r#type: (*kind).into(),
            value: (*value).into(),
        });
        list_entries_request::Filter {
            by_selectors: Some(SelectorMatch {
                selectors: selectors.collect(),
                r#match: how.into(),
            }),
            ..list_entries_request::Filter::default()
        }
    }

    fn federates_with(how: OfTrustDomains, names: &[&str]) -> list_entries_request::Filter {
        list_entries_request::Filter {
            by_federates_with: Some(FederatesWithMatch {
                trust_domains: names.iter().map(ToString::to_string).collect(),
                r#match: how.into(),
            }),
            ..list_entries_request::Filter::default()
        }
    }

    #[test]
    fn each_part_allows_what_it_says() {
        let none = F::default();
        let hint = |hint: &str| F {
            by_hint: Some(hint.into()),
            ..F::default()
        };
        let downstream = |value| F {
            by_downstream: Some(value),
            ..F::default()
        };
        let spiffe_id = |path| F {
            by_spiffe_id: Some(id(path)),
            ..F::default()
        };
        let parent_id = |path| F {
            by_parent_id: Some(id(path)),
            ..F::default()
        };
        for (filter, allowed) in [
            (none, true),
            (spiffe_id("/web"), true),
            (spiffe_id("/other"), false),
            (parent_id("/p"), true),
            (parent_id("/web"), false),
            (hint("main"), true),
            (hint("other"), false),
            (hint(""), true),
            (downstream(true), true),
            (downstream(false), true),
        ] {
            let parsed = parse(&filter).unwrap();
            assert_eq!(parsed.allows(&entry()), allowed, "{filter:?}");
        }
        let upper = Entry {
            downstream: false,
            ..entry()
        };
        for (filter, allowed) in [(downstream(true), false), (downstream(false), true)] {
            assert_eq!(parse(&filter).unwrap().allows(&upper), allowed);
        }
    }

    #[test]
    fn sets_are_compared_as_asked() {
        let (one, two) = (("a", "1"), ("b", "2"));
        let three = ("c", "3");
        for (how, pairs, allowed) in [
            (S::MatchExact, &[two, one][..], true),
            (S::MatchExact, &[one], false),
            (S::MatchExact, &[one, two, three], false),
            (S::MatchSubset, &[one, two, three], true),
            (S::MatchSubset, &[one], false),
            (S::MatchSuperset, &[one], true),
            (S::MatchSuperset, &[one, three], false),
            (S::MatchAny, &[one, three], true),
            (S::MatchAny, &[three], false),
        ] {
            let filter = parse(&selectors(how, pairs)).unwrap();
            assert_eq!(filter.allows(&entry()), allowed, "{how:?} {pairs:?}");
        }
        for (how, names, allowed) in [
            (T::MatchExact, &["g.org", "f.org", "f.org"][..], true),
            (T::MatchExact, &["f.org"], false),
            (T::MatchSubset, &["f.org", "g.org", "h.org"], true),
            (T::MatchSubset, &["f.org"], false),
            (T::MatchSuperset, &["spiffe://f.org"], true),
            (T::MatchSuperset, &["h.org"], false),
            (T::MatchAny, &["h.org", "f.org"], true),
            (T::MatchAny, &["h.org"], false),
        ] {
            let filter = parse(&federates_with(how, names)).unwrap();
            assert_eq!(filter.allows(&entry()), allowed, "{how:?} {names:?}");
        }
    }

    #[test]
    fn refuses_what_is_malformed_in_the_words_of_spire_server() {
        let mut unknown = selectors(OfSelectors::MatchAny, &[("a", "1")]);
        unknown.by_selectors.as_mut().unwrap().r#match = 17;
        for (filter, words) in [
            (
                F {
                    by_parent_id: Some(id("")),
                    ..F::default()
                },
                "malformed parent ID filter: ",
            ),
            (
                F {
                    by_spiffe_id: Some(id("/spire/server")),
                    ..F::default()
                },
                "malformed SPIFFE ID filter: ",
            ),
            (
                selectors(OfSelectors::MatchExact, &[]),
                "malformed selectors filter: empty selector set",
            ),
            (
                selectors(OfSelectors::MatchExact, &[("", "1")]),
                "malformed selectors filter: missing selector type",
            ),
            (unknown, "malformed selectors filter: "),
            (
                federates_with(OfTrustDomains::MatchExact, &[]),
                "malformed federates with filter: empty trust domain set",
            ),
            (
                federates_with(OfTrustDomains::MatchExact, &["F.org"]),
                "malformed federates with filter: ",
            ),
        ] {
            let status = parse(&filter).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().starts_with(words), "{status:?}");
        }
    }
}
