//! `src/server/proto/generated`: messages, clients and servers for the interfaces in `proto/`. No
//! protoc is needed.

use std::{fs, path::Path};

use crate::Files;

/// Where the interfaces are.
const INTERFACES: &str = "proto";
/// Where the code goes.
pub(crate) const GENERATED: &str = "src/server/proto/generated";

pub(crate) fn files() -> Files {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(INTERFACES);
    let mut interfaces = Vec::new();
    find(&root, &root, &mut interfaces);
    interfaces.sort();
    let descriptors = protox::compile(&interfaces, [&root]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .out_dir(folder.path())
        .emit_rerun_if_changed(false)
        .extern_path(
            ".spire.api.server.entry.v1.SyncAuthorizedEntriesResponse",
            "crate::server::proto::entry::SyncAuthorizedEntriesResponse",
        )
        .compile_fds(descriptors)
        .unwrap();
    let generated = fs::read_dir(folder.path()).unwrap();
    generated
        .map(|file| {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            let code = fs::read_to_string(file.path()).unwrap();
            (Path::new(GENERATED).join(name), code)
        })
        .collect()
}

/// Paths of all interfaces below `folder`, from `root`.
fn find(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(root, &path, found);
        } else {
            let path = path.strip_prefix(root).unwrap();
            found.push(path.to_str().unwrap().to_owned());
        }
    }
}
