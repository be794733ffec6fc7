//! The examples as processes of their own.

use super::lab::Lab;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The example as a process of its own in the director's namespace, killed when dropped.
pub struct Example(pub Child);

impl Example {
    pub fn simple_vip(lab: &Lab, arguments: &[&str]) -> Self {
        let interface = ["--interface", &lab.director.interface];
        Self::start(lab, "simple_vip", &[&interface, arguments].concat())
    }

    pub fn start(lab: &Lab, name: &str, arguments: &[&str]) -> Self {
        let child = Command::new("ip")
            .args(["netns", "exec", lab.director.namespace.name()])
            .arg(example(name))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Examples are built along with the tests, into the directory above theirs.
pub fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let path = path.join("examples").join(name);
    assert!(path.exists(), "{} is not built; run `cargo test` without --test", path.display());
    path
}
