//! What `make demo CLUSTER=current` asks, and of which cluster. Nothing here gets as far as a
//! cluster; what the demo does there has no test.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use tempfile::TempDir;

const FIRST: &str = "https://127.0.0.1:1";
const SECOND: &str = "https://127.0.0.1:2";

#[test]
fn the_demo_uses_the_cluster_that_it_asked_about() {
    let mut demo = Demo::asking_about_the_first();
    demo.select(SECOND);
    demo.input.write_all(b"yes\n").unwrap();
    let (status, said) = demo.ended();
    assert_ne!(status, Some(0));
    // It cannot be reached, and that is how it is seen.
    assert!(said.contains("127.0.0.1:1 was refused"), "{said}");
    assert!(!said.contains("127.0.0.1:2"), "{said}");
}

#[test]
fn any_other_answer_ends_the_demo_without_a_failure() {
    for answer in [&b"no\n"[..], b"\n", b"\x04"] {
        let mut demo = Demo::asking_about_the_first();
        demo.input.write_all(answer).unwrap();
        let (status, said) = demo.ended();
        assert_eq!(status, Some(0), "{answer:?}: {said}");
        assert!(said.contains("Nothing was done"), "{answer:?}: {said}");
    }
}

/// The demo, at a terminal of its own.
struct Demo {
    folder: TempDir,
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    said: String,
}

impl Demo {
    fn asking_about_the_first() -> Self {
        let folder = tempfile::tempdir().unwrap();
        symlink(kubectl(), folder.path().join("kubectl")).unwrap();
        select(folder.path(), FIRST);
        let path = std::env::var_os("PATH").unwrap();
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("dev/demo.sh"))
            .arg("/dev/null")
            .env(
                "PATH",
                format!("{}:{}", folder.path().display(), path.display()),
            )
            .env("KUBECONFIG", folder.path().join("kubeconfig"))
            .env("TMPDIR", folder.path())
            .env("CLUSTER", "current")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut demo = Self {
            input: child.stdin.take().unwrap(),
            output: child.stdout.take().unwrap(),
            child,
            folder,
            said: String::new(),
        };
        while !demo.said.contains("Type yes to go on: ") {
            assert!(demo.read(), "{}", demo.said);
        }
        assert!(demo.said.contains(FIRST), "{}", demo.said);
        demo
    }

    /// Makes another cluster the current one.
    fn select(&self, server: &str) {
        select(self.folder.path(), server);
    }

    /// Reads some more; false at the end.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 1024];
        let length = self.output.read(&mut buffer).unwrap();
        self.said += &String::from_utf8_lossy(&buffer[..length]);
        length > 0
    }

    /// Exit status and all that was said. No credentials are left behind.
    fn ended(mut self) -> (Option<i32>, String) {
        while self.read() {}
        let status = self.child.wait().unwrap();
        let left: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("tmp"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        (status.code(), self.said)
    }
}

fn select(folder: &Path, server: &str) {
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n\
         users: [{{name: u, user: {{token: t}}}}]\n"
    );
    fs::write(folder.join("kubeconfig"), text).unwrap();
}

/// The pinned kubectl, which `make servers` builds.
pub(crate) fn kubectl() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"),
        PathBuf::from,
    );
    let builds = fs::read_dir(cache.join("spiffe-operator/bin")).unwrap();
    builds
        .map(|build| build.unwrap().path().join("kubectl"))
        .find(|path| path.exists())
        .expect("kubectl is built")
}
