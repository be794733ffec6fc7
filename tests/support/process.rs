//! The examples as processes of their own.

#[path = "example.rs"]
mod example;

pub use example::example;

use super::lab::Lab;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
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
