//! A program that a test runs, in a process of its own.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::Mutex,
    time::Duration,
};

use super::wait::wait_until;

/// Runs a program until it ends or standard input does, and prints its process id. What the program
/// prints goes to standard error.
const SUPERVISE: &str = r#"exec 3<&0; "$@" >&2 & pid=$!; echo $pid
(cat >/dev/null; kill -9 $pid 2>/dev/null) <&3 3<&- & exec 3<&-; wait $pid"#;

/// A running program. Dropping it kills it, and so does the end of the test process; if the test has
/// failed, its log is printed.
pub(crate) struct Process {
    name: String,
    supervisor: Mutex<Child>,
    /// Held open for as long as the program shall live.
    _input: ChildStdin,
    id: String,
    log: PathBuf,
}

impl Process {
    /// Starts `program`, `name` in words. Its output is appended to `log`.
    pub(crate) fn start<A: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        log: PathBuf,
    ) -> Self {
        Self::start_with(name, program, arguments, &[], log)
    }

    /// The same with further variables in its environment.
    pub(crate) fn start_with<A: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        environment: &[(&str, &OsStr)],
        log: PathBuf,
    ) -> Self {
        let output = File::options().create(true).append(true).open(&log);
        let mut supervisor = Command::new("/bin/sh")
            .args(["-c", SUPERVISE, "sh"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(output.unwrap())
            .spawn()
            .unwrap();
        let mut id = String::new();
        BufReader::new(supervisor.stdout.take().unwrap())
            .read_line(&mut id)
            .unwrap();
        Self {
            name: name.to_owned(),
            _input: supervisor.stdin.take().unwrap(),
            supervisor: Mutex::new(supervisor),
            id: id.trim().to_owned(),
            log,
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// All it has printed.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `probe` gives a value, for as long as the program runs. Its log is shown when it
    /// ends or the deadline passes.
    pub(crate) async fn wait_until<T, F, Fut>(
        &self,
        what: &str,
        deadline: Duration,
        mut probe: F,
    ) -> T
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, String>>,
    {
        wait_until(what, deadline, || {
            if let Some(status) = self.status() {
                panic!("{} ended ({status}), waiting for {what}", self.name);
            }
            probe()
        })
        .await
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self, deadline: Duration) -> ExitStatus {
        wait_until(&format!("{} to end", self.name), deadline, || async {
            self.status().ok_or_else(|| "it runs".to_owned())
        })
        .await
    }

    /// How it ended, if it has.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        self.supervisor.lock().unwrap().try_wait().unwrap()
    }

    /// Sends a signal, such as `TERM` or `KILL`.
    pub(crate) fn signal(&self, signal: &str) {
        assert!(self.try_signal(signal), "{} has ended already", self.name);
    }

    /// Sends a signal, unless it has ended.
    pub(crate) fn try_signal(&self, signal: &str) -> bool {
        let kill = Command::new("kill")
            .args(["-s", signal, &self.id])
            .stderr(Stdio::null())
            .status();
        kill.unwrap().success()
    }

    /// The CPU time it has used.
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id)).unwrap();
        // After the program's name, which is in parentheses: fields 14 and 15 are user and system
        // time in hundredths of a second.
        let fields = stat.rsplit_once(") ").unwrap().1;
        let times = fields.split(' ').skip(11).take(2);
        Duration::from_millis(times.map(|time| time.parse::<u64>().unwrap() * 10).sum())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status().is_none() {
            self.try_signal("KILL");
            let _ = self.supervisor.get_mut().unwrap().wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the log of {}:\n{}", self.name, self.log());
        }
    }
}
