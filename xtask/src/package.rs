//! Packs the crate as it would be published, then uses it as a stranger would: the README's program, outside this tree.

use crate::scratch::Scratch;
use crate::{Result, install, process};
use std::fs;
use std::path::Path;
use std::process::Command;

pub(crate) fn run(flags: &[&str]) -> Result {
    install::ensure_packages()?;
    let crate_args = |more: &[&'static str]| [&["package", "--package", "dsrlb"], more].concat();
    process::run(process::cargo(&crate_args(&["--list"])).args(flags))?;
    process::run(process::cargo(&crate_args(&[])).args(flags))?;

    let target = process::target_dir()?;
    let metadata = process::output(&mut process::cargo(&["pkgid", "--package", "dsrlb"]))?;
    let version = metadata.trim().rsplit(['#', '@']).next().unwrap_or_default();
    let readme = process::root()?.join("README.md");
    let readme = fs::read_to_string(&readme)
        .map_err(|error| format!("reading {}: {error}", readme.display()))?;
    let program = program(&readme)
        .ok_or("README.md has no ```rust block with a `fn main` to build against the package")?;

    let scratch = Scratch::new("package")?;
    let name = format!("dsrlb-{version}");
    let archive = target.join("package").join(format!("{name}.crate"));
    process::run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(&scratch.0))?;
    for default_features in [false, true] {
        println!(
            "\n== The README's program, {} default features",
            if default_features { "with" } else { "without" }
        );
        let stranger = scratch.0.join(if default_features { "with" } else { "without" });
        write(&stranger.join("Cargo.toml"), &manifest(&scratch.0.join(&name), default_features))?;
        write(&stranger.join("src/main.rs"), &program)?;
        // Not in the scratch directory: a second run need not compile the dependencies again, and /tmp may be small.
        let mut cargo = process::cargo(&["run", "--manifest-path"]);
        cargo
            .arg(stranger.join("Cargo.toml"))
            .env("CARGO_TARGET_DIR", target.join("package-check"));
        process::run(&mut cargo)?;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result {
    let directory = file.parent().unwrap_or(file);
    fs::create_dir_all(directory)
        .map_err(|error| format!("making {}: {error}", directory.display()))?;
    fs::write(file, text).map_err(|error| format!("writing {}: {error}", file.display()))
}

fn manifest(dsrlb: &Path, default_features: bool) -> String {
    // Debug quotes and escapes the path, which for a path is what a TOML basic string wants.
    format!(
        "[package]\nname = \"stranger\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\ndsrlb = {{ path = {dsrlb:?}, default-features = {default_features} }}\n"
    )
}

/// The first Rust block with a `fn main` in a Markdown text.
fn program(markdown: &str) -> Option<String> {
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            continue;
        };
        // Every block is read to its end, so that the end of one is never taken for the start of another.
        let block: Vec<_> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
        if info.split(',').next() == Some("rust")
            && block.iter().any(|line| line.contains("fn main"))
        {
            return Some(block.join("\n") + "\n");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::program;

    #[test]
    fn the_program_is_the_first_rust_block_with_a_main() {
        let readme = "# x\n```sh\ncargo add\nfn main\n```\n```rust\nlet a = 1;\n```\ntext\n\
                      ```rust,no_run\nfn main() {\n}\n```\n```rust\nfn main() { other() }\n```\n";
        assert_eq!(program(readme).unwrap(), "fn main() {\n}\n");
        assert_eq!(program("```rust\nlet a = 1;\n```\nfn main in the text\n"), None);
    }
}
