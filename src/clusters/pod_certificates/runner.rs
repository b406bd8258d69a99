//! The signer of a trust domain in a cluster, running with what is known now.

use kube::api::ApiResource;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::clusters::pod_certificates::{Signer, run};
use crate::runtime::context::Context;

/// Runs the signer, or none. It ends when this is dropped.
#[derive(Default)]
pub struct SignerRunner {
    running: Option<Running>,
}

struct Running {
    signer_name: String,
    resource: ApiResource,
    settings: watch::Sender<Signer>,
    task: AbortOnDropHandle<()>,
}

impl SignerRunner {
    /// Runs `signer` from now on, where the cluster has the kind `resource`.
    pub fn run(&mut self, context: &Context, signer: Signer, resource: Option<ApiResource>) {
        let Some(resource) = resource else {
            self.stop();
            return;
        };
        if let Some(running) = &self.running
            && running.signer_name == signer.signer_name
            && running.resource == resource
            && !running.task.is_finished()
        {
            running.settings.send_if_modified(|old| {
                let changed = !old.is_same(&signer);
                *old = signer;
                changed
            });
            return;
        }
        let signer_name = signer.signer_name.clone();
        let (settings, receiver) = watch::channel(signer);
        let task = run(context.clone(), receiver, resource.clone());
        self.running = Some(Running {
            signer_name,
            resource,
            settings,
            task: AbortOnDropHandle::new(tokio::spawn(task)),
        });
    }

    /// Ends the signer.
    pub fn stop(&mut self) {
        self.running = None;
    }
}
