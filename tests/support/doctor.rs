//! The doctor's example as a process, and what it says as JSON.

use super::lab::Lab;
use super::process::example;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

/// A configuration file for the lab: a service on port 80 of its IPv4 VIP with all backends, and these lines of the
/// data plane.
pub fn file(lab: &Lab, dataplane: &str) -> String {
    let mut text = format!(
        "[dataplane]\ninterface = \"{}\"\n{dataplane}\n[[service]]\nvip = \"{}/tcp\"\n",
        lab.director.interface,
        lab.vip4_port(80)
    );
    for host in &lab.backends {
        text +=
            &format!("[[service.backend]]\nid = \"{}\"\naddress = \"{}\"\n", host.name, host.v4);
    }
    text
}

/// In the director's namespace, behind these words.
pub fn doctor(lab: &Lab, before: &[&str], arguments: &[&str]) -> Output {
    let output = Command::new("ip")
        .args(["netns", "exec", lab.director.namespace.name()])
        .args(before)
        .arg(example("doctor"))
        .args(arguments)
        .output();
    output.unwrap()
}

#[track_caller]
pub fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}\n{errors}"))
}

/// Of the findings of that kind, in their order.
pub fn fields<'a>(json: &'a Value, id: &str, field: &str) -> Vec<&'a str> {
    let findings = json["findings"].as_array().unwrap().iter();
    findings.filter(|f| f["id"] == id).map(|f| f[field].as_str().unwrap()).collect()
}

pub fn severities<'a>(json: &'a Value, id: &str) -> Vec<&'a str> {
    fields(json, id, "severity")
}

/// A mount namespace in the director's network namespace, for as long as this lives: what is mounted, and what is
/// written into what is mounted, is nobody else's.
pub struct Room(Child);

impl Room {
    /// Makes one, and runs these commands of a shell in it.
    pub fn open(lab: &Lab, script: &str) -> Self {
        let mut child = Command::new("ip")
            .args([
                "netns",
                "exec",
                lab.director.namespace.name(),
                "unshare",
                "--mount",
                "sh",
                "-ec",
            ])
            .arg(format!("{script}\necho ready\nexec cat"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let room = Self(child);
        assert_eq!(line, "ready\n", "{script}");
        room
    }

    /// Runs a program in it.
    pub fn run(&self, command: &[&str]) -> Output {
        let pid = self.0.id().to_string();
        let entered = ["--target", &pid, "--mount", "--net"];
        Command::new("nsenter").args(entered).args(command).output().unwrap()
    }

    /// Types a command, word for word.
    #[track_caller]
    pub fn type_in(&self, command: &str) {
        let output = self.run(&["sh", "-ec", command]);
        assert!(output.status.success(), "{command}: {output:?}");
    }

    pub fn doctor(&self, arguments: &[&str]) -> Output {
        self.run(&[&[example("doctor").to_str().unwrap()], arguments].concat())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
