//! Where the examples are.

use std::path::PathBuf;

/// Examples are built along with the tests, into the directory above theirs.
pub fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let path = path.join("examples").join(name);
    assert!(path.exists(), "{} is not built; run `cargo test` without --test", path.display());
    path
}
