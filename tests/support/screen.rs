//! A program in a terminal, of which every cell can be looked at: tmux.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A server of its own with one terminal of 80 by 24, which ends with this; also when this process is killed.
pub struct Screen {
    server: Child,
    /// Where its socket is.
    directory: tempfile::TempDir,
}

fn tmux(directory: &Path) -> Command {
    let mut command = Command::new("tmux");
    command.env("TMUX_TMPDIR", directory).env("LC_ALL", "C.UTF-8").env_remove("TMUX");
    command.args(["-L", "dsrlb", "-f", "/dev/null", "-u"]);
    command
}

impl Screen {
    /// A terminal in a network namespace, with this in it.
    pub fn start(namespace: &str, program: &Path, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let inner = tmux(directory.path());
        let server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "ip", "netns", "exec", namespace, "tmux", "-D"])
            .args(inner.get_args())
            .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let screen = Self { server, directory };
        let new = ["new-session", "-d", "-x", "80", "-y", "24"];
        let begun = Instant::now();
        // Until the server listens.
        while !screen
            .run(&[&new[..], &[program.to_str().unwrap()], arguments].concat())
            .status
            .success()
        {
            assert!(begun.elapsed() < Duration::from_secs(5), "tmux has no terminal after 5 s");
            std::thread::sleep(Duration::from_millis(20));
        }
        screen
    }

    fn run(&self, arguments: &[&str]) -> Output {
        // Not a server of its own, outside of the namespace.
        tmux(self.directory.path()).arg("-N").args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// The process id of the program.
    pub fn program(&self) -> u32 {
        let said = self.run(&["display-message", "-p", "#{pane_pid}"]).stdout;
        String::from_utf8(said).unwrap().trim().parse().unwrap()
    }

    /// What is there, line by line; nothing once the program has ended.
    pub fn text(&self) -> String {
        String::from_utf8(self.run(&["capture-pane", "-p"]).stdout).unwrap()
    }

    /// The same with its colours, as escape sequences, and to the end of each line.
    pub fn coloured(&self) -> String {
        String::from_utf8(self.run(&["capture-pane", "-p", "-e", "-N"]).stdout).unwrap()
    }

    /// Presses keys, by tmux's names for them.
    pub fn press(&self, keys: &[&str]) {
        assert!(self.run(&[&["send-keys"], keys].concat()).status.success(), "{keys:?}");
    }

    /// Waits until what is there is as it should be, and returns it.
    pub fn until(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let text = self.text();
            if condition(&text) {
                return text;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "not within 10 s: {what}\n{text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.run(&["kill-server"]);
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
