//! A configuration source of one's own: what an embedder writes to have the director follow a database, an API or,
//! here, lines of text in a directory: one file for each service, named as the service is (with `_` for `/`), one backend a line, with its weight.
//!
//! ```text
//! cargo run --no-default-features --example custom_config          # in a directory of its own, without root
//! ```

use dsrlb::balancer::{RealServer, VirtualService};
use dsrlb::config::{Changes, Config, ConfigSource, Host, Limits, SourceError, check};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The part to copy: gives a whole configuration whenever there is another one.
struct Directory {
    path: PathBuf,
    given: Option<String>,
}

impl Directory {
    /// Everything that matters, as one text, so that two readings can be compared.
    fn read(&self) -> std::io::Result<String> {
        let mut paths: Vec<_> = fs::read_dir(&self.path)?.flatten().map(|e| e.path()).collect();
        paths.sort();
        let mut text = String::new();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().replace('_', "/");
            text += &format!("service {name}\n{}\n", fs::read_to_string(&path)?);
        }
        Ok(text)
    }
}

impl ConfigSource for Directory {
    fn next(&mut self, timeout: Duration) -> Result<Option<Config>, SourceError> {
        let deadline = Instant::now() + timeout;
        loop {
            let unreadable = |error| {
                let path = self.path.display();
                SourceError::Unreadable(format!("{path}: {error}; does the directory exist?"))
            };
            let text = self.read().map_err(unreadable)?;
            if self.given.as_ref() != Some(&text) {
                // Noted before it is known to be good: the same fault is reported once.
                self.given = Some(text.clone());
                return parse(&text).map(Some).map_err(SourceError::Unreadable);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
    }
}

fn parse(text: &str) -> Result<Config, String> {
    let mut services: Vec<VirtualService> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let wrong = |what: &str| format!("{line:?}: {what}");
        let (first, second) = line.split_once(' ').unwrap_or((line, "1"));
        if first == "service" {
            let key = second.parse().map_err(|error| wrong(&format!("{error}")))?;
            services.push(VirtualService::new(key));
        } else if let Some(service) = services.pop() {
            let address = first.parse().map_err(|_| wrong("expected an address, then a weight"))?;
            let weight = second.parse().map_err(|_| wrong("a weight is 0 to 65535"))?;
            services.push(service.backend(RealServer::new(address).with_weight(weight)));
        }
    }
    Ok(services.into_iter().collect())
}

/// With the data path: the director asks the source, checks, applies and reports.
#[cfg(all(feature = "af-xdp", target_os = "linux"))]
#[allow(dead_code)]
fn in_a_director(source: Directory) -> Result<dsrlb::Director, dsrlb::director::StartError> {
    dsrlb::Director::builder("eth0").source(source).on_event(|event| eprintln!("{event}")).start()
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::temp_dir().join(format!("dsrlb-custom-config-{}", std::process::id()));
    fs::create_dir(&path)?;
    let shown = show(&path);
    fs::remove_dir_all(&path)?;
    shown
}

/// What the director does with each configuration, but for the packets.
fn show(path: &Path) -> Result<(), Box<dyn Error>> {
    let mut source = Directory { path: path.to_owned(), given: None };
    let mut current = Config::default();
    for (file, text) in [
        ("10.0.0.100:80_tcp", "10.0.0.11 1\n10.0.0.12 1\n"),
        ("10.0.0.100:80_tcp", "10.0.0.11 1\n10.0.0.13 2\n"),
        ("10.0.0.100:80_tcp", "10.0.0.100 1\n"),
        ("10.0.0.100:80_tcp", "10.0.0.13 2\n"),
    ] {
        fs::write(path.join(file), text)?;
        let next = source.next(Duration::from_secs(1))?.ok_or("nothing new")?;
        match check(&next, &Host::default(), &Limits::default()) {
            Ok(()) => {
                println!("applied: {}", Changes::between(&current, &next));
                current = next;
            }
            Err(error) => println!("refused: {error}"),
        }
    }
    Ok(())
}
