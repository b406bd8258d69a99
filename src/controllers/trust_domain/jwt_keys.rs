//! Warning of a bundle with more JWT keys than some who verify tokens take.

use kube::Resource;

use crate::api::TrustDomain;
use crate::controllers::trust_domain::worker::Worker;
use crate::runtime::events::Severity;

/// What AWS IAM takes of an identity provider.
const MOST: usize = 100;
/// How many are warned of.
const MANY: usize = 80;

impl Worker {
    pub(super) fn tell_many_jwt_keys(&self, object: &TrustDomain, count: usize) {
        let Some(note) = warning(count) else {
            return;
        };
        let regarding = object.object_ref(&());
        self.context.recorder.publish_example(
            regarding,
            Severity::Warning,
            "ManyJWTKeys",
            "Publish",
            &note,
        );
    }
}

fn warning(count: usize) -> Option<String> {
    (count >= MANY).then(|| {
        format!(
            "the bundle has {count} JWT keys, and some who verify tokens, such as AWS IAM, take no \
             more than {MOST}; servers that are chained below publish them: let there be fewer of \
             those, or let their keys live shorter"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_warned_of() {
        assert_eq!(warning(MANY - 1), None);
        let warning = warning(MANY).unwrap();
        assert!(warning.starts_with("the bundle has 80 JWT keys"));
    }
}
