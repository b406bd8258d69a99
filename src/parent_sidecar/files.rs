//! The files that a server reads: each is replaced as a whole, and only when it changes.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::Folders;
use super::plan::{Files, Plan, plan};
use crate::nested::parent::PLUGIN_DATA_FILE;
use crate::runtime::clock;

/// Most bytes of a file that are read: more than fits into a ConfigMap or a Secret.
const MAX_LENGTH: u64 = 2 << 20;
/// Beginning of names that are the kubelet's, or ours while a file is being written.
const HIDDEN: &str = "..";

/// What went wrong with a file.
#[derive(Debug, thiserror::Error)]
#[error("{}", path.display())]
pub struct FileError {
    path: PathBuf,
    source: io::Error,
}

/// What was put in place.
#[derive(Debug)]
pub(super) struct Placed {
    plan: Plan,
    /// Whether the plugin data changed.
    pub(super) is_changed: bool,
    /// How long ago it did.
    pub(super) age: Duration,
}

impl Placed {
    /// What was left out.
    pub(super) fn problem(&self) -> Option<String> {
        let problems = &self.plan.problems;
        (!problems.is_empty()).then(|| problems.join("; "))
    }

    /// Logs what was written.
    pub(super) fn log_changes(&self) {
        for file in self.plan.credentials.keys() {
            tracing::info!(file, "written");
        }
        if self.is_changed {
            tracing::info!(file = PLUGIN_DATA_FILE, "written");
        }
    }

    /// Removes the credentials of clusters that are no more.
    pub(super) fn remove(&self, target: &Path) -> Result<(), FileError> {
        for file in &self.plan.remove {
            let path = target.join(file);
            fs::remove_file(&path).map_err(|source| FileError { path, source })?;
            tracing::info!(file, "removed");
        }
        Ok(())
    }
}

/// Puts in place what is mounted, but removes nothing yet.
pub(super) fn place(folders: &Folders) -> Result<Placed, FileError> {
    let target = &folders.target;
    let present = read_folder(target)?;
    let config = read_folder(&folders.config)?;
    let secret = read_folder(&folders.secret)?;
    let plan = plan(&config, &secret, &present, &target.to_string_lossy());
    for (file, bytes) in &plan.credentials {
        replace(target, file, bytes)?;
    }
    if let Some(text) = &plan.plugin_data {
        replace(target, PLUGIN_DATA_FILE, text.as_bytes())?;
    }
    Ok(Placed {
        is_changed: plan.plugin_data.is_some(),
        age: age(&target.join(PLUGIN_DATA_FILE))?,
        plan,
    })
}

/// The files of a folder. One that vanishes meanwhile is none.
fn read_folder(folder: &Path) -> Result<Files, FileError> {
    let mut files = Files::new();
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| FileError { path, source }
    };
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let entry = entry.map_err(failed(folder))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name.starts_with(HIDDEN) || !entry.path().is_file() {
            continue;
        }
        match read(&entry.path()) {
            Ok(bytes) => drop(files.insert(name, bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&entry.path())(error)),
        }
    }
    Ok(files)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = fs::File::open(path)?.take(MAX_LENGTH + 1);
    let length = file.read_to_end(&mut bytes)?;
    if u64::try_from(length).is_ok_and(|length| length <= MAX_LENGTH) {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::FileTooLarge.into())
    }
}

/// Replaces a file in one step, so that nobody reads half of it.
fn replace(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), FileError> {
    let path = folder.join(name);
    let new = folder.join(format!("{HIDDEN}{name}"));
    let write = || {
        let mut options = fs::OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&new)?.write_all(bytes)?;
        fs::rename(&new, &path)
    };
    write().map_err(|source| FileError { path, source })
}

fn age(path: &Path) -> Result<Duration, FileError> {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let modified = modified.map_err(|source| FileError {
        path: path.to_owned(),
        source,
    })?;
    // A clock that was set back makes it new.
    let age = Timestamp::try_from(modified).map(|modified| clock::now().duration_since(modified));
    Ok(age
        .ok()
        .and_then(|age| age.try_into().ok())
        .unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// Mounts `files` as the kubelet does.
    fn mount(folder: &Path, version: &str, files: &[(&str, &str)]) {
        let data = folder.join(format!("..{version}"));
        fs::create_dir_all(&data).unwrap();
        for (name, text) in files {
            fs::write(data.join(name), text).unwrap();
            let link = folder.join(name);
            if !link.is_symlink() {
                symlink(format!("..data/{name}"), link).unwrap();
            }
        }
        let new = folder.join("..data_tmp");
        symlink(format!("..{version}"), &new).unwrap();
        fs::rename(new, folder.join("..data")).unwrap();
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_symlink() && !entry.path().exists() {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    #[test]
    fn what_the_kubelet_mounts_is_put_in_place() {
        let root = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = root.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let folders = Folders {
            config: folder("config"),
            secret: folder("secret"),
            target: folder("target"),
        };
        let text = |name: &str| fs::read_to_string(folders.target.join(name)).unwrap();
        let first = place(&folders).unwrap();
        assert!(first.is_changed);
        assert!(text(PLUGIN_DATA_FILE).contains("\"clusters\": {}"));
        assert!(!place(&folders).unwrap().is_changed);

        let credentials = [("a.kubeconfig", "{}"), ("a.token", "1")];
        mount(&folders.secret, "1", &credentials);
        mount(&folders.config, "1", &[("a.json", "{}")]);
        assert!(place(&folders).unwrap().is_changed);
        assert_eq!(text("a.token"), "1");
        let mode = fs::metadata(folders.target.join("a.token"))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);

        mount(
            &folders.secret,
            "2",
            &[("a.kubeconfig", "{}"), ("a.token", "2")],
        );
        assert!(!place(&folders).unwrap().is_changed);
        assert_eq!(text("a.token"), "2");

        mount(&folders.config, "2", &[]);
        let removed = place(&folders).unwrap();
        assert!(removed.is_changed);
        assert!(
            folders.target.join("a.token").exists(),
            "until the server was told"
        );
        removed.remove(&folders.target).unwrap();
        let left: Vec<_> = fs::read_dir(&folders.target).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let nowhere = PathBuf::from("/nowhere");
        let folders = Folders {
            config: nowhere.clone(),
            secret: nowhere.clone(),
            target: nowhere,
        };
        let error = place(&folders).unwrap_err();
        assert!(crate::error_chain(&error).starts_with("/nowhere: "));
    }
}
