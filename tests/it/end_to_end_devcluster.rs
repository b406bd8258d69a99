//! The cluster that `make demo` uses, in the background: however it ends, the host is as before.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::support::{SOON, devcluster, wait_until};

/// What every node wants to set, and no namespace holds.
const SYSCTLS: &[&str] = &[
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];
/// Where servers of a node like to keep their state.
const FOLDERS: &[&str] = &["/etc", "/opt", "/run", "/var/lib", "/var/log"];
/// Words in the names of what they keep there. Other programs of the host come and go meanwhile.
const STATE: &[&str] = &[
    "cni",
    "containerd",
    "containers",
    "coredns",
    "etcd",
    "kube",
    "netns",
    "nft",
    "pods",
    "runc",
    "xtables",
];

#[tokio::test]
async fn a_cluster_in_the_background_leaves_the_host_as_it_was() {
    let before = Host::seen();
    let cluster = Background::new();
    assert!(cluster.run("status").is_err());
    let told = cluster.run("up").unwrap();
    assert!(told.contains("export KUBECONFIG="), "{told}");
    let told = cluster.run("status").unwrap();
    assert!(told.contains("the cluster is up"), "{told}");
    let nodes = run(Command::new(devcluster().unwrap())
        .args(["kubectl", "--dir"])
        .arg(&cluster.dir)
        .args(["get", "nodes", "-o", "name"]));
    assert_eq!(nodes.unwrap().trim(), "node/localhost");
    let again = cluster.run("up").unwrap();
    assert!(again.contains("the cluster is up already"), "{again}");
    cluster.run("down").unwrap();
    cluster.assert_gone(&before);
    // Once more is no mistake.
    cluster.run("down").unwrap();

    // Killed, it takes its servers, mounts and files with it.
    cluster.run("up").unwrap();
    let supervisor = fs::read_to_string(cluster.dir.join("supervisor.pid")).unwrap();
    run(Command::new("kill").args(["-9", &supervisor])).unwrap();
    wait_until("the killed cluster's files to go", SOON, || async {
        if cluster.dir.exists() {
            Err(format!("{} is there", cluster.dir.display()))
        } else {
            Ok(())
        }
    })
    .await;
    cluster.assert_gone(&before);
    let told = cluster.run("status").unwrap_err();
    assert!(told.contains("no cluster is running"), "{told}");
    cluster.run("down").unwrap();

    // Interrupted while it starts, it takes down what has started.
    let mut up = cluster
        .command("up")
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(up.stderr.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    lines
        .find(|line| line.contains("starting etcd"))
        .expect("a start");
    run(Command::new("kill").args(["-INT", &up.id().to_string()])).unwrap();
    let rest: Vec<_> = lines.collect();
    assert!(!up.wait().unwrap().success());
    assert!(
        rest.last().unwrap().contains("has been taken down"),
        "{rest:#?}"
    );
    cluster.run("down").unwrap();
    cluster.assert_gone(&before);
}

/// A cluster under a folder of its own; dropping it takes the cluster down.
struct Background {
    _folder: tempfile::TempDir,
    dir: PathBuf,
}

impl Background {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("cluster");
        Self {
            _folder: folder,
            dir,
        }
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(devcluster().unwrap());
        command.args([name, "--dir"]).arg(&self.dir);
        command
    }

    fn run(&self, name: &str) -> Result<String, String> {
        run(&mut self.command(name))
    }

    /// Nothing of the cluster is left, and nothing of the host has changed.
    fn assert_gone(&self, before: &Host) {
        assert!(!self.dir.exists());
        let after = Host::seen();
        assert_eq!(before.mounts, after.mounts);
        assert_eq!(before.interfaces, after.interfaces);
        assert_eq!(before.sysctls, after.sysctls);
        assert_eq!(before.folders, after.folders);
        let dir = self.dir.to_str().unwrap();
        let processes: Vec<_> = names("/proc")
            .into_iter()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).ok())
            .filter(|line| line.contains(dir))
            .collect();
        assert!(processes.is_empty(), "{processes:#?}");
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.run("down");
    }
}

/// What a cluster could change on its host.
struct Host {
    mounts: String,
    interfaces: Vec<String>,
    sysctls: BTreeMap<&'static str, String>,
    folders: BTreeMap<&'static str, Vec<String>>,
}

impl Host {
    fn seen() -> Self {
        let sysctl = |name: &str| fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap();
        Self {
            mounts: fs::read_to_string("/proc/self/mounts").unwrap(),
            interfaces: names("/sys/class/net"),
            sysctls: SYSCTLS.iter().map(|name| (*name, sysctl(name))).collect(),
            folders: FOLDERS
                .iter()
                .map(|folder| (*folder, state(folder)))
                .collect(),
        }
    }
}

/// What servers of a node keep in `folder`.
fn state(folder: &str) -> Vec<String> {
    let mut names = names(folder);
    names.retain(|name| STATE.iter().any(|word| name.contains(word)));
    names
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Gives all that the command says.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if output.status.success() {
        Ok(said)
    } else {
        Err(said)
    }
}
