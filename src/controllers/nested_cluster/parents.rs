//! What a stock SPIRE server is to be told of a nested cluster, and how that is reported. Pure.

use crate::api::conditions::{Report, State};
use crate::api::{NestedCluster, SpireParent, WiredParent};
use crate::controllers::nested_cluster::settings::name_of;
use crate::controllers::nested_cluster::status::Problem;
use crate::domains::K8sPsatSettings;
use crate::nested::kubeconfig::ChildKubeconfig;
use crate::nested::parent::Wiring;

const WIRED: &str = "Wired";

/// How far the cluster can be told of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Standing<'a> {
    /// It answers by this kubeconfig.
    Reached(&'a ChildKubeconfig),
    /// It does not answer, or not with sense.
    NotReached,
    /// Another cluster answers.
    OtherCluster,
}

/// What is to be done about one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Tell it this.
    Write(Wiring),
    /// Leave it as it is.
    Keep(Option<Problem>),
    /// It must not know the cluster, for this reason where there is one to tell.
    TakeOut(Option<Problem>),
}

/// What to do about a server, which `is_wired` if it was told of the cluster.
pub(super) fn step(standing: Standing<'_>, agents: &K8sPsatSettings, is_wired: bool) -> Step {
    match standing {
        Standing::Reached(kubeconfig) => match Wiring::of(kubeconfig, agents) {
            Ok(wiring) => Step::Write(wiring),
            Err(error) => Step::TakeOut(Some(Problem::new(
                "UnsupportedCredential",
                crate::error_chain(&error),
            ))),
        },
        Standing::NotReached if is_wired => Step::Keep(None),
        Standing::NotReached => Step::Keep(Some(Problem::new(
            "NotReached",
            "a server is told of the cluster once it was reached",
        ))),
        Standing::OtherCluster => Step::TakeOut(Some(Problem::new(
            "OtherCluster",
            "another cluster answers, of which no server is told",
        ))),
    }
}

/// What became of the parents of a NestedCluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wired {
    /// Those that are told of the cluster, in order.
    pub(super) parents: Vec<WiredParent>,
    /// What stands in the way, with the server that it concerns.
    pub(super) problems: Vec<(WiredParent, Problem)>,
}

impl Wired {
    /// The condition; none where nothing is wished, and nothing left.
    pub(super) fn report(&self) -> Option<Report> {
        let names = |parents: &mut dyn Iterator<Item = &WiredParent>| {
            let names = parents.map(|it| format!("{}/{}", it.namespace, it.name));
            names.collect::<Vec<_>>().join(", ")
        };
        if let Some((_, first)) = self.problems.first() {
            let words = self.problems.iter();
            let words = words.map(|(parent, problem)| {
                format!("{}: {}", names(&mut [parent].into_iter()), problem.message)
            });
            let message = words.collect::<Vec<_>>().join("\n");
            return Some(Report::new(WIRED, State::False, first.reason, message));
        }
        if self.parents.is_empty() {
            return None;
        }
        let message = format!("told of the cluster: {}", names(&mut self.parents.iter()));
        Some(Report::new(WIRED, State::True, "Wired", message))
    }
}

/// The servers that `object` names or was told to, each with what it wishes of it now, if it does.
pub(super) fn parents(object: &NestedCluster) -> Vec<(WiredParent, Option<&SpireParent>)> {
    let told = object.status.iter().flat_map(|status| &status.parents);
    let named = |it: &WiredParent| {
        let mut parents = object.spec.parents.iter();
        parents.find(|parent| WiredParent::from(*parent) == *it)
    };
    let mut all: Vec<_> = object.spec.parents.iter().map(WiredParent::from).collect();
    all.extend(told.cloned());
    all.sort();
    all.dedup();
    all.into_iter().map(|it| (it.clone(), named(&it))).collect()
}

/// Which pods of the cluster of `object` are agents for `parent`.
pub(super) fn agents_of(
    object: &NestedCluster,
    parent: &SpireParent,
) -> Result<K8sPsatSettings, Problem> {
    let agents = parent.agents.as_ref().or(object.spec.agents.as_ref());
    let agents = agents.map(|agents| K8sPsatSettings::parse(&name_of(object), agents));
    let problem = |words: String| Problem::new("NoAgents", words);
    agents
        .ok_or_else(|| problem("name the service accounts of agents".into()))?
        .map_err(|error| problem(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::nested::kubeconfig::ReadOptions;

    fn object(parents: &Value, told: &Value) -> NestedCluster {
        serde_json::from_value(json!({
            "apiVersion": "spiffe-operator.io/v1alpha1", "kind": "NestedCluster",
            "metadata": {"name": "child01"},
            "spec": {
                "trustDomainRef": {"name": "example"},
                "kubeConfig": {"secretRef": {"name": "child01"}},
                "agents": {"serviceAccountAllowList": ["spire:agent"]},
                "parents": parents,
            },
            "status": {"parents": told},
        }))
        .unwrap()
    }

    fn parent(name: &str) -> Value {
        json!({"namespace": "spire", "name": name})
    }

    fn kubeconfig(user: &Value) -> ChildKubeconfig {
        let document = json!({
            "clusters": [{"name": "k", "cluster": {"server": "https://child01.test:6443"}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        });
        let options = ReadOptions::default();
        ChildKubeconfig::read(document.to_string().as_bytes(), &options).unwrap()
    }

    fn agents() -> K8sPsatSettings {
        let object = object(&json!([parent("a")]), &json!([]));
        agents_of(&object, &object.spec.parents[0]).unwrap()
    }

    #[test]
    fn only_a_cluster_that_answers_enters_and_one_that_is_down_stays() {
        let token = kubeconfig(&json!({"token": "abc"}));
        let reached = Standing::Reached(&token);
        let exec = kubeconfig(&json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "aws",
            "interactiveMode": "Never",
            "args": ["eks", "get-token", "--cluster-name", "c", "--region", "eu-north-1"],
        }}));
        let word = |standing, is_wired| match step(standing, &agents(), is_wired) {
            Step::Write(_) => "write",
            Step::Keep(None) => "keep",
            Step::Keep(Some(_)) => "wait",
            Step::TakeOut(_) => "take out",
        };
        for (standing, new, wired) in [
            (reached, "write", "write"),
            (Standing::NotReached, "wait", "keep"),
            (Standing::OtherCluster, "take out", "take out"),
            (Standing::Reached(&exec), "take out", "take out"),
        ] {
            assert_eq!(word(standing, false), new, "{standing:?}");
            assert_eq!(word(standing, true), wired, "{standing:?}");
        }
    }

    #[test]
    fn a_server_that_is_named_no_more_is_remembered() {
        let object = object(
            &json!([parent("b"), parent("a")]),
            &json!([parent("a"), parent("old")]),
        );
        let all = parents(&object);
        let shown: Vec<_> = all
            .iter()
            .map(|(parent, wish)| (parent.name.as_str(), wish.is_some()))
            .collect();
        assert_eq!(shown, [("a", true), ("b", true), ("old", false)]);
    }

    #[test]
    fn what_is_wrong_comes_before_what_is_right() {
        let server = |name: &str| WiredParent {
            namespace: "spire".into(),
            name: name.into(),
        };
        assert_eq!(Wired::default().report(), None);
        let mut wired = Wired {
            parents: vec![server("a"), server("b")],
            problems: Vec::new(),
        };
        let report = wired.report().unwrap();
        assert_eq!(report.message, "told of the cluster: spire/a, spire/b");
        wired
            .problems
            .push((server("b"), Problem::new("Forbidden", "no")));
        let report = wired.report().unwrap();
        assert_eq!((report.state, report.reason), (State::False, "Forbidden"));
        assert_eq!(report.message, "spire/b: no");
    }

    #[test]
    fn agents_of_a_server_come_before_those_of_the_cluster() {
        let own = json!({"serviceAccountAllowList": ["spire:other"]});
        let mut with_own = parent("a");
        with_own["agents"] = own;
        let mut object = object(&json!([with_own, parent("b")]), &json!([]));
        let agents = |object: &NestedCluster, index: usize| {
            let agents = agents_of(object, &object.spec.parents[index]);
            agents.map(|agents| agents.service_accounts.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(agents(&object, 0).unwrap(), ["spire:other"]);
        assert_eq!(agents(&object, 1).unwrap(), ["spire:agent"]);
        object.spec.agents = None;
        assert_eq!(agents(&object, 1).unwrap_err().reason, "NoAgents");
    }
}
