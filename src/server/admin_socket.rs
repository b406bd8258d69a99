//! The Unix socket for administration. Whoever can open it may do everything, so it is for the
//! operator's own user and group, and its folder must belong to that user, too.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::server::caller::Caller;
use crate::server::connection::Connection;
use crate::server::listener::ACCEPT_PAUSE;

/// Mode of the socket, as spire-server makes it.
const SOCKET_MODE: u32 = 0o770;
/// Mode of its folder where that has to be made.
const FOLDER_MODE: u32 = 0o750;
/// Who may write to a folder without being its owner or of its group: nobody.
const WRITABLE_BY_OTHERS: u32 = 0o002;

/// Why the administration socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminSocketError {
    /// Somebody else's folder, or one that all may write to.
    #[error("{folder} must belong to the operator's own user and not be writable by all")]
    Folder {
        /// The folder.
        folder: PathBuf,
    },
    /// Another server listens there, perhaps that of another TrustDomain.
    #[error(
        "{path} is served already; put {{name}} into --admin-socket where there are several TrustDomains"
    )]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// Something that is no socket of the operator's user is in the way.
    #[error("{path} exists and is no socket of the operator's own user; remove it")]
    InTheWay {
        /// Where.
        path: PathBuf,
    },
    /// The file system refuses.
    #[error("cannot make the socket {path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The socket at `path`, in a folder that is made where it is missing. A socket that was left there
/// by an earlier process is replaced.
///
/// # Errors
/// When the folder is not the operator's, or something else is in the way.
pub fn bind(path: &Path) -> Result<UnixListener, AdminSocketError> {
    // Of two TrustDomains that find the same socket left, one must see that the other has it.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = |source| AdminSocketError::Io {
        path: path.to_owned(),
        source,
    };
    let own = fs::metadata("/proc/self").map_err(failed)?.uid();
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut builder = fs::DirBuilder::new();
    let builder = builder.recursive(true).mode(FOLDER_MODE);
    builder.create(folder).map_err(failed)?;
    let metadata = fs::metadata(folder).map_err(failed)?;
    if metadata.uid() != own || metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(AdminSocketError::Folder {
            folder: folder.to_owned(),
        });
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() && found.uid() == own => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(AdminSocketError::InUse {
                    path: path.to_owned(),
                });
            }
            fs::remove_file(path).map_err(failed)?;
        }
        Ok(_) => {
            return Err(AdminSocketError::InTheWay {
                path: path.to_owned(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let mode = fs::Permissions::from_mode(SOCKET_MODE);
    fs::set_permissions(path, mode).map_err(failed)?;
    Ok(listener)
}

/// Accepts connections for ever; all end with `end`.
pub(super) async fn accept(
    listener: UnixListener,
    connections: mpsc::Sender<io::Result<Connection<UnixStream>>>,
    end: CancellationToken,
) {
    loop {
        let accepted = match listener.accept().await {
            Ok((stream, _)) => Ok(Connection::new(stream, Caller::Local, end.child_token())),
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Fails only once the server ends.
        if connections.send(accepted).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn replaces_a_socket_that_was_left_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("private/api.sock");
        let first = bind(&path).unwrap();
        assert_eq!(mode(&path), 0o770);
        assert_eq!(mode(path.parent().unwrap()), 0o750);
        let second = bind(&path).unwrap_err();
        assert!(matches!(second, AdminSocketError::InUse { .. }));
        drop(first);
        bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        let refused = bind(&path).unwrap_err();
        assert!(matches!(refused, AdminSocketError::InTheWay { .. }));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn does_not_listen_where_all_may_write() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let refused = bind(&folder.path().join("api.sock")).unwrap_err();
        assert!(matches!(refused, AdminSocketError::Folder { .. }));
    }
}
