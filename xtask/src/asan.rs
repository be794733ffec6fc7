//! The namespace tests under AddressSanitizer: the only code that may be `unsafe` is what they run.

use crate::{Result, binaries, install, namespaces, process};
use std::process::Command;

pub(crate) fn run() -> Result {
    install::ensure_packages()?;
    let host = host(&process::output(Command::new("rustc").arg("-vV"))?)?;
    // Naming the target, even though it is the host, keeps the sanitizer out of build scripts and procedural macros.
    let sanitized = |args: &[&str]| {
        let mut cargo = process::nightly(&[args, &["--all-features", "--target", &host]].concat())?;
        cargo
            .env("RUSTFLAGS", "-Zsanitizer=address")
            .env("CARGO_TARGET_DIR", process::target_dir()?.join("asan"));
        Ok::<_, String>(cargo)
    };
    // Some of the tests start examples as processes of their own.
    process::run(&mut sanitized(&["build", "--examples"])?)?;
    let mut tests = sanitized(&["test", "--test", "netns_*"])?;
    let note = namespaces::run(&binaries::build(&mut tests)?)?;
    println!("\nAddressSanitizer found nothing: {note}");
    Ok(())
}

fn host(verbose_version: &str) -> Result<String> {
    let host = verbose_version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "`rustc -vV` names no host".into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_host_is_what_rustc_says_it_is() {
        let version =
            "rustc 1.95.0\nbinary: rustc\nhost: aarch64-unknown-linux-gnu\nrelease: 1.95.0\n";
        assert_eq!(super::host(version).unwrap(), "aarch64-unknown-linux-gnu");
        assert!(super::host("rustc 1.95.0").is_err());
    }
}
