//! Running `spire-server` processes, by `/proc`, and the one signal that they get.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::signals::Server;

/// What the program is called.
const PROGRAM: &str = "spire-server";
/// The subcommand that serves; others end by SIGUSR1, or before it comes.
const SUBCOMMAND: &str = "run";
/// Ticks of a second in `/proc`, whatever the kernel's own.
const TICKS: u64 = 100;
/// SIGUSR1 in a mask of signals.
const SIGUSR1: u64 = 1 << 9;

/// Time since the machine's start.
pub(super) fn uptime() -> Option<Duration> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let seconds = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// All servers of the process namespace.
pub(super) fn running() -> Vec<Server> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(server).collect()
}

/// Has a server read its plugin data anew.
///
/// # Errors
/// When it is not the process any more that was found, or is another user's.
pub(super) fn reload(found: &Server) -> io::Result<()> {
    let pid = Pid::from_raw(found.pid).ok_or(io::ErrorKind::InvalidInput)?;
    // From here on it is this process or none: a new one does not get the signal for it.
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    if server(found.pid).as_ref() != Some(found) {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    Ok(pidfd_send_signal(process, Signal::USR1)?)
}

fn server(pid: i32) -> Option<Server> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    let command_line = read("cmdline").ok()?;
    if !serves(&command_line) {
        return None;
    }
    Some(Server {
        pid,
        started: started(&read("stat").ok()?)?,
        has_handler: has_handler(&read("status").ok()?)?,
    })
}

/// Whether a command line, each argument ended by a zero byte, is that of a server.
fn serves(command_line: &str) -> bool {
    let mut arguments = command_line.split('\0');
    let program = arguments.next().and_then(|path| path.rsplit('/').next());
    program == Some(PROGRAM) && arguments.next() == Some(SUBCOMMAND)
}

/// When a process started, from `/proc/<pid>/stat`.
fn started(stat: &str) -> Option<Duration> {
    // Its name is in parentheses, and may have some itself. What follows begins with field 3.
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks: u64 = fields.split(' ').nth(22 - 3)?.parse().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS))
}

/// Whether a process has a handler for SIGUSR1, from `/proc/<pid>/status`.
fn has_handler(status: &str) -> Option<bool> {
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigCgt:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(mask & SIGUSR1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_its_command_line() {
        for (line, expected) in [
            ("/opt/spire/bin/spire-server\0run\0-config\0a\0", true),
            ("spire-server\0run\0", true),
            ("spire-server\0healthcheck\0", false),
            ("spire-server\0", false),
            ("/bin/spire-server-helper\0run\0", false),
            ("vi\0spire-server\0run\0", false),
            ("", false),
        ] {
            assert_eq!(serves(line), expected, "{line:?}");
        }
    }

    #[test]
    fn proc_is_read_as_the_kernel_writes_it() {
        let stat = "41 (a) b) S 1 41 41 0 -1 4194304 1 0 0 0 5 3 0 0 20 0 9 0 12345 999 1";
        assert_eq!(started(stat), Some(Duration::from_millis(123_450)));
        assert_eq!(started("41 (a) S 1"), None);
        let status = |mask| format!("Name:\ta\nSigIgn:\t{mask}\nSigCgt:\t{mask}\n");
        assert_eq!(has_handler(&status("fffffffd7fc1feff")), Some(true));
        assert_eq!(has_handler(&status("0000000000000100")), Some(false));
        assert_eq!(has_handler("Name:\ta\n"), None);
    }

    #[test]
    fn this_process_is_none_and_gets_no_signal() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(server(own), None);
        let taken_for_one = Server {
            pid: own,
            started: Duration::ZERO,
            has_handler: true,
        };
        // It would end this process.
        assert!(reload(&taken_for_one).is_err());
        assert!(uptime().unwrap() > Duration::ZERO);
    }
}
