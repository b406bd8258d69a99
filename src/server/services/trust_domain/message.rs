//! Federation relationships as messages, and back. Pure.

use axum::http::Uri;

use crate::server::proto::types;
use crate::server::proto::types::federation_relationship::BundleEndpointProfile;
use crate::server::services::bundle::message as bundle_message;
use crate::server::services::ids;
use crate::spiffe::{Bundle, TrustDomainName};
use crate::store::federation::{EndpointProfile, FederationRelationship, ForeignTrustDomain};

/// A relationship of a message.
#[derive(Clone, Debug)]
pub(super) struct Given {
    /// With whom.
    pub(super) trust_domain: TrustDomainName,
    /// What it is.
    pub(super) relationship: FederationRelationship,
    /// The bundle to begin with.
    pub(super) bundle: Option<Bundle>,
}

impl Given {
    /// Reads a message.
    ///
    /// # Errors
    /// In words for the caller.
    pub(super) fn read(message: &types::FederationRelationship) -> Result<Self, String> {
        let trust_domain = ids::trust_domain(&message.trust_domain)
            .map_err(|error| format!("failed to parse trust domain: {error}"))?;
        check_url(&message.bundle_endpoint_url)?;
        let profile = match &message.bundle_endpoint_profile {
            Some(BundleEndpointProfile::HttpsWeb(_)) => EndpointProfile::HttpsWeb,
            Some(BundleEndpointProfile::HttpsSpiffe(profile)) => EndpointProfile::HttpsSpiffe {
                endpoint_spiffe_id: profile
                    .endpoint_spiffe_id
                    .parse()
                    .map_err(|error| format!("failed to parse endpoint SPIFFE ID: {error}"))?,
            },
            None => return Err("unsupported bundle endpoint profile type: <nil>".into()),
        };
        let bundle = message.trust_domain_bundle.as_ref();
        let bundle = bundle
            .map(bundle_message::from_proto)
            .transpose()
            .map_err(|error| format!("failed to parse bundle: {error}"))?;
        if let Some(bundle) = bundle.as_ref()
            && *bundle.trust_domain() != trust_domain
        {
            return Err(format!(
                "trust domain bundle (\"{}\") must match the trust domain of the federation \
                 relationship (\"{trust_domain}\")",
                bundle.trust_domain()
            ));
        }
        Ok(Self {
            trust_domain,
            relationship: FederationRelationship {
                bundle_endpoint_url: message.bundle_endpoint_url.clone(),
                profile,
            },
            bundle,
        })
    }

    /// Puts into `known` those parts that `mask` names; all without one.
    pub(super) fn update(
        &self,
        known: &mut FederationRelationship,
        bundle: &mut Option<Bundle>,
        mask: Option<&types::FederationRelationshipMask>,
    ) {
        let takes = |of: fn(&types::FederationRelationshipMask) -> bool| mask.is_none_or(of);
        if takes(|mask| mask.bundle_endpoint_url) {
            known
                .bundle_endpoint_url
                .clone_from(&self.relationship.bundle_endpoint_url);
        }
        if takes(|mask| mask.bundle_endpoint_profile) {
            known.profile = self.relationship.profile.clone();
        }
        if takes(|mask| mask.trust_domain_bundle) && self.bundle.is_some() {
            bundle.clone_from(&self.bundle);
        }
    }
}

/// As a bundle endpoint has it (SPIFFE Federation §5.2).
fn check_url(url: &str) -> Result<(), &'static str> {
    let uri = url.parse::<Uri>();
    let uri = uri.map_err(|_| "failed to parse bundle endpoint URL: it is malformed")?;
    if uri.scheme_str() != Some("https") {
        return Err("bundle endpoint URL must use the https scheme");
    }
    let authority = uri.authority().map_or("", |it| it.as_str());
    if uri.host().is_none_or(str::is_empty) {
        return Err("bundle endpoint URL must specify the host");
    }
    if authority.contains('@') {
        return Err("bundle endpoint URL must not contain user info");
    }
    Ok(())
}

/// A relationship as a message, less what the mask leaves out.
pub(super) fn to_proto(
    known: &ForeignTrustDomain,
    relationship: &FederationRelationship,
    mask: Option<&types::FederationRelationshipMask>,
) -> types::FederationRelationship {
    let shows = |of: fn(&types::FederationRelationshipMask) -> bool| mask.is_none_or(of);
    let mut message = types::FederationRelationship {
        trust_domain: known.trust_domain.to_string(),
        ..types::FederationRelationship::default()
    };
    if shows(|mask| mask.bundle_endpoint_url) {
        message
            .bundle_endpoint_url
            .clone_from(&relationship.bundle_endpoint_url);
    }
    if shows(|mask| mask.bundle_endpoint_profile) {
        message.bundle_endpoint_profile = Some(match &relationship.profile {
            EndpointProfile::HttpsWeb => BundleEndpointProfile::HttpsWeb(types::HttpsWebProfile {}),
            EndpointProfile::HttpsSpiffe { endpoint_spiffe_id } => {
                BundleEndpointProfile::HttpsSpiffe(types::HttpsspiffeProfile {
                    endpoint_spiffe_id: endpoint_spiffe_id.to_string(),
                })
            }
        });
    }
    if shows(|mask| mask.trust_domain_bundle) {
        let bundle = known.bundle.as_ref();
        message.trust_domain_bundle = bundle.map(|bundle| bundle_message::to_proto(bundle, None));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> types::FederationRelationship {
        types::FederationRelationship {
            trust_domain: "other.org".into(),
            bundle_endpoint_url: "https://other.org:8443/bundle".into(),
            trust_domain_bundle: Some(types::Bundle {
                trust_domain: "other.org".into(),
                sequence_number: 3,
                ..types::Bundle::default()
            }),
            bundle_endpoint_profile: Some(BundleEndpointProfile::HttpsSpiffe(
                types::HttpsspiffeProfile {
                    endpoint_spiffe_id: "spiffe://other.org/spire/server".into(),
                },
            )),
        }
    }

    #[test]
    fn comes_back_as_it_went() {
        for profile in [
            message().bundle_endpoint_profile,
            Some(BundleEndpointProfile::HttpsWeb(types::HttpsWebProfile {})),
        ] {
            let message = types::FederationRelationship {
                bundle_endpoint_profile: profile,
                ..message()
            };
            let given = Given::read(&message).unwrap();
            let known = ForeignTrustDomain {
                trust_domain: given.trust_domain.clone(),
                bundle: given.bundle.clone(),
                relationship: Some(given.relationship.clone()),
            };
            assert_eq!(to_proto(&known, &given.relationship, None), message);
            let mask = types::FederationRelationshipMask::default();
            let bare = types::FederationRelationship {
                trust_domain: "other.org".into(),
                ..types::FederationRelationship::default()
            };
            assert_eq!(to_proto(&known, &given.relationship, Some(&mask)), bare);
        }
    }

    #[test]
    fn an_update_takes_what_the_mask_names() {
        let given = Given::read(&message()).unwrap();
        let before = FederationRelationship {
            bundle_endpoint_url: "https://before.org".into(),
            profile: EndpointProfile::HttpsWeb,
        };
        let (mut known, mut bundle) = (before.clone(), None);
        let mask = types::FederationRelationshipMask {
            bundle_endpoint_url: true,
            ..types::FederationRelationshipMask::default()
        };
        given.update(&mut known, &mut bundle, Some(&mask));
        assert_eq!(known.bundle_endpoint_url, "https://other.org:8443/bundle");
        assert_eq!((known.profile, bundle), (before.profile.clone(), None));
        let (mut known, mut bundle) = (before, None);
        given.update(&mut known, &mut bundle, None);
        assert_eq!((known, bundle), (given.relationship, given.bundle));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |change: fn(&mut types::FederationRelationship)| {
            let mut message = message();
            change(&mut message);
            Given::read(&message).unwrap_err()
        };
        for (problem, expected) in [
            (
                with(|it| it.trust_domain = "No!".into()),
                "failed to parse trust domain: ",
            ),
            (
                with(|it| it.bundle_endpoint_url = "http://other.org".into()),
                "bundle endpoint URL must use the https scheme",
            ),
            (
                with(|it| it.bundle_endpoint_url = "other.org".into()),
                "bundle endpoint URL must use the https scheme",
            ),
            (
                with(|it| it.bundle_endpoint_url = "https://a:b@other.org".into()),
                "bundle endpoint URL must not contain user info",
            ),
            (
                with(|it| it.bundle_endpoint_url = "https://".into()),
                "failed to parse bundle endpoint URL: ",
            ),
            (
                with(|it| it.bundle_endpoint_profile = None),
                "unsupported bundle endpoint profile type: <nil>",
            ),
            (
                with(|it| {
                    it.bundle_endpoint_profile = Some(BundleEndpointProfile::HttpsSpiffe(
                        types::HttpsspiffeProfile::default(),
                    ));
                }),
                "failed to parse endpoint SPIFFE ID: ",
            ),
            (
                with(|it| it.trust_domain = "third.org".into()),
                "trust domain bundle (\"other.org\") must match the trust domain of the \
                 federation relationship (\"third.org\")",
            ),
        ] {
            assert!(problem.starts_with(expected), "{problem}");
        }
    }
}
