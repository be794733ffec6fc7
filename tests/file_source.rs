//! The source that follows a file, on real files.

use dsrlb::config::{Config, ConfigSource, FileSource, SourceError};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(10);
/// Longer than any file has to be left alone.
const NOTHING_COMES: Duration = Duration::from_millis(1500);

fn text(backends: usize) -> String {
    let backend = |n| format!("[[service.backend]]\naddress = \"10.0.0.{n}\"\n");
    let backends: String = (1..=backends).map(backend).collect();
    format!(
        "[dataplane]\ninterface = \"eth0\"\n[[service]]\nvip = \"10.0.0.100:80/tcp\"\n{backends}"
    )
}

fn backends(config: &Config) -> usize {
    config.services.iter().map(|bound| bound.service.backends.len()).sum()
}

/// A file with one backend, and a source that has given it.
fn followed() -> (TempDir, PathBuf, FileSource) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dsrlb.toml");
    fs::write(&path, text(1)).unwrap();
    let source = opened(&path);
    (directory, path, source)
}

fn opened(path: &Path) -> FileSource {
    let mut source = FileSource::open(path).unwrap();
    assert_eq!(source.dataplane().unwrap().ingress(), "eth0");
    let first = source.next(Duration::ZERO).unwrap().expect("the first comes at once");
    assert_eq!(backends(&first), 1);
    source
}

#[track_caller]
fn expect(source: &mut FileSource, count: usize) {
    let config = source.next(LONG).unwrap().expect("a configuration");
    assert_eq!(backends(&config), count);
}

#[track_caller]
fn expect_nothing(source: &mut FileSource) {
    assert!(source.next(NOTHING_COMES).unwrap().is_none());
}

#[track_caller]
fn expect_error(source: &mut FileSource, says: &str) {
    let error = source.next(LONG).expect_err("a refusal").to_string();
    assert!(error.contains(says), "{error}");
}

fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, path).unwrap();
}

#[test]
fn a_file_renamed_over_is_read_once() {
    let (_directory, path, mut source) = followed();
    for count in 2..5 {
        replace(&path, &text(count));
        expect(&mut source, count);
    }
    expect_nothing(&mut source);
}

#[test]
fn what_is_written_in_two_steps_is_read_when_it_is_whole() {
    let (_directory, path, mut source) = followed();
    let whole = text(4);
    // The first half is a valid configuration of fewer backends.
    let half = text(2).len();
    let writer = std::thread::spawn(move || {
        let mut file = File::create(path).unwrap();
        sleep(Duration::from_millis(300));
        file.write_all(&whole.as_bytes()[..half]).unwrap();
        sleep(Duration::from_millis(300));
        file.write_all(&whole.as_bytes()[half..]).unwrap();
    });
    expect(&mut source, 4);
    writer.join().unwrap();
    expect_nothing(&mut source);
}

#[test]
fn bad_content_is_reported_once_and_good_content_follows() {
    let (_directory, path, mut source) = followed();
    replace(&path, "[[service]]\nvip = 5\nhsah = \"x\"\n");
    expect_error(&mut source, "2 problems");
    expect_nothing(&mut source);
    replace(&path, "");
    expect_error(&mut source, "empty");
    replace(&path, "[dataplane\n");
    expect_error(&mut source, "line 1, column");
    fs::write(&path, b"# \xff").unwrap();
    expect_error(&mut source, "UTF-8");
    replace(&path, &text(3));
    expect(&mut source, 3);
    expect_nothing(&mut source);
}

#[test]
fn where_metrics_are_served_is_not_changed_by_a_running_file() {
    let (_directory, path, mut source) = followed();
    assert!(source.metrics().is_none());
    let with = |port| format!("[metrics]\nlisten = \"127.0.0.1:{port}\"\n{}", text(2));
    replace(&path, &with(9100));
    expect_error(&mut source, "metrics.listen: 127.0.0.1:9100: was \"not there\" at the start");
    let mut source = FileSource::open(&path).unwrap();
    assert_eq!(source.metrics().unwrap().listen.port(), 9100);
    expect(&mut source, 2);
    replace(&path, &with(9101));
    expect_error(&mut source, "was \"127.0.0.1:9100\"");
    replace(&path, &text(2));
    expect_error(&mut source, "metrics.listen: not there");
}

#[test]
fn a_touch_without_a_change_and_files_beside_it_are_no_news() {
    let (directory, path, mut source) = followed();
    fs::write(&path, text(1)).unwrap();
    replace(&path, &text(1));
    fs::write(directory.path().join(".dsrlb.toml.swp"), "x").unwrap();
    fs::write(directory.path().join("4913"), "").unwrap();
    expect_nothing(&mut source);
}

#[test]
fn a_file_that_is_gone_for_a_moment_is_not_missed_and_for_long_it_is_reported() {
    let (_directory, path, mut source) = followed();
    fs::remove_file(&path).unwrap();
    assert!(source.next(Duration::from_millis(300)).unwrap().is_none());
    fs::write(&path, text(2)).unwrap();
    expect(&mut source, 2);

    fs::remove_file(&path).unwrap();
    let error = source.next(LONG).unwrap_err();
    assert!(matches!(&error, SourceError::Unreadable(why) if why.contains("cannot be read")));
    expect_nothing(&mut source);
    fs::write(&path, text(3)).unwrap();
    expect(&mut source, 3);
}

/// As a `ConfigMap` is mounted: `dsrlb.toml` -> `..data/dsrlb.toml`, `..data` -> `..1`.
#[test]
fn links_that_are_swapped_are_followed() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let publish = |number: usize| {
        let version = root.join(format!("..{number}"));
        fs::create_dir(&version).unwrap();
        fs::write(version.join("dsrlb.toml"), text(number)).unwrap();
        symlink(format!("..{number}"), root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    };
    publish(1);
    symlink("..data/dsrlb.toml", root.join("dsrlb.toml")).unwrap();
    let mut source = opened(&root.join("dsrlb.toml"));
    publish(2);
    expect(&mut source, 2);
    fs::remove_dir_all(root.join("..1")).unwrap();
    publish(3);
    expect(&mut source, 3);
    expect_nothing(&mut source);
}

#[test]
fn a_directory_in_the_place_of_the_one_that_is_watched_is_found() {
    let (directory, path, _) = followed();
    let inner = directory.path().join("etc");
    fs::create_dir(&inner).unwrap();
    fs::rename(path, inner.join("dsrlb.toml")).unwrap();
    let mut source = opened(&inner.join("dsrlb.toml"));
    fs::rename(&inner, directory.path().join("old")).unwrap();
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("dsrlb.toml"), text(2)).unwrap();
    expect(&mut source, 2);
}

#[test]
fn what_is_set_at_start_cannot_be_changed() {
    let (_directory, path, mut source) = followed();
    replace(&path, &text(2).replace("\"eth0\"", "\"eth1\"\nmode = \"copy\""));
    let error = source.next(LONG).unwrap_err().to_string();
    assert!(error.contains("dataplane.interfaces: eth1: was \"eth0\" at the start"), "{error}");
    assert!(error.contains("dataplane.mode: copy: was \"auto\""), "{error}");
    // The same in other words is no change.
    let same = "interfaces = [\"eth0\"]\nmode = \"auto\"\nmax-services = 1024";
    replace(&path, &text(2).replace("interface = \"eth0\"", same));
    expect(&mut source, 2);
}

#[test]
fn what_cannot_be_a_configuration_is_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dsrlb.toml");
    let refused = |path: &Path| FileSource::open(path).unwrap_err().to_string();
    assert!(refused(&path).contains("cannot be read"));
    assert!(refused(directory.path()).contains("not a file"));
    fs::write(&path, " \n").unwrap();
    assert!(refused(&path).contains("empty"));
    let large = File::create(&path).unwrap();
    large.set_len((16 << 20) + 1).unwrap();
    assert!(refused(&path).contains("at most 16777216 bytes"));
}
