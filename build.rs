//! Compiles the XDP program when the AF_XDP data path is built; does nothing otherwise.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = "src/dataplane/af_xdp/redirect.bpf.c";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    let wanted = env::var_os("CARGO_FEATURE_AF_XDP").is_some()
        && env::var("CARGO_CFG_TARGET_OS")? == "linux";
    if wanted {
        compile_program()?;
    }
    Ok(())
}

fn compile_program() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={SOURCE}");
    println!("cargo:rerun-if-env-changed=CLANG");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let object = PathBuf::from(env::var("OUT_DIR")?).join("redirect.bpf.o");

    let mut command = Command::new(&clang);
    command
        .args(["-O2", "-g", "-target", "bpf", "-Wall", "-Wextra"])
        .args(["-c", SOURCE, "-o"])
        .arg(&object)
        // libbpf-sys installs the headers of the libbpf it builds and says where.
        .arg(format!("-I{}", env::var("DEP_BPF_INCLUDE")?));
    // Debian and its kin keep asm/types.h in a directory of the architecture, which clang does not
    // search when it compiles for BPF.
    let multiarch = format!("/usr/include/{}-linux-gnu", env::var("CARGO_CFG_TARGET_ARCH")?);
    if Path::new(&multiarch).is_dir() {
        command.arg(format!("-I{multiarch}"));
    }

    let output = command.output().map_err(|error| {
        format!(
            "cannot run `{clang}` to compile the XDP program: {error}; install clang \
             (Debian, Ubuntu, Fedora: the package `clang`) or name another with CLANG=…, \
             or build without the feature `af-xdp`"
        )
    })?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "{clang} could not compile {SOURCE} ({}); if a header is missing, install the kernel's \
             user-space headers (Debian, Ubuntu: linux-libc-dev; Fedora: kernel-headers):\n{message}",
            output.status
        )
        .into());
    }
    Ok(())
}
