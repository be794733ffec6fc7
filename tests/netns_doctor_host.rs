//! The doctor on hosts that let it see little, or that are not as they should be: in containers, without `/proc`, where
//! a filter refuses system calls, on an old kernel. Its example is a process there; nothing of the host is changed:
//! what has to be otherwise is so for that process, or in a mount namespace of the test's own.

#[path = "../examples/lab/mod.rs"]
mod lab;
#[path = "support/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "support/doctor.rs"]
mod program;
#[path = "support/skip.rs"]
mod skip;

use lab::{HttpServer, Lab, LabOptions, http_get};
use nix::libc;
use process::{Example, example};
use program::{Room, doctor, fields, file, json, severities};
use serde_json::Value;
use std::fs::File;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(300);

/// What docker mounts, masks, makes read-only and leaves of root's capabilities, unless told; here with the host's own
/// files. Beside it there is the program, where anybody may run it, and a configuration.
const CONTAINER: &str = "
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
touch /run/doctor && mount --bind \"$DOCTOR\" /run/doctor
printf %s \"$CONFIG\" > /run/dsrlb.toml
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -o remount,bind,ro /sys
for path in /proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger; do
  [ ! -e $path ] || { mount --bind $path $path; mount -o remount,bind,ro $path; }
done
for path in /proc/acpi /proc/asound /proc/scsi /sys/firmware; do
  [ ! -e $path ] || mount -t tmpfs -o ro tmpfs $path
done
for path in kcore keys latency_stats sched_debug timer_list timer_stats; do
  [ ! -e /proc/$path ] || mount --bind /dev/null /proc/$path
done
";

/// Docker's default set.
const AS_ROOT: &str = "setpriv --bounding-set=-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,\
    +setpcap,+net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap prlimit --memlock=65536:65536";
const AS_NOBODY: &str =
    "setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --no-new-privs";

fn start(tag: &'static str) -> Option<(Lab, Vec<HttpServer>)> {
    let lab = Lab::build_or_skip(&LabOptions { backends: 2, ..LabOptions::named(tag) })?;
    let servers = lab.start_http(80).unwrap();
    Some((lab, servers))
}

/// Runs the doctor in a container, behind these words, with the lab's network or with none of its own making. It has
/// a minute, and takes seconds.
fn contained(lab: &Lab, network: &[&str], who: &str, arguments: &str) -> Output {
    let script = format!("{CONTAINER}exec timeout -k 5 60 {who} /run/doctor {arguments}");
    let output = Command::new("ip")
        .args(["netns", "exec", lab.director.namespace.name()])
        .args(["unshare", "--mount", "--pid", "--fork"])
        .args(network)
        .args(["sh", "-ec", &script])
        .env("DOCTOR", example("doctor"))
        .env("CONFIG", file(lab, ""))
        .output();
    output.unwrap()
}

/// What was said, after it is seen to be coherent: the status is that of the worst finding, and all that was not looked
/// at has a finding that says why.
#[track_caller]
fn coherent(output: &Output) -> Value {
    let said = json(output);
    println!("{said:#}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("panicked"), "{errors}");
    let findings = said["findings"].as_array().unwrap();
    let is_bad = findings.iter().any(|finding| finding["severity"] == "error");
    assert_eq!(output.status.code(), Some(i32::from(is_bad)), "{errors}");
    let unseen: Vec<&str> = said["not_looked_at"]
        .as_array()
        .unwrap()
        .iter()
        .map(|what| what.as_str().unwrap())
        .collect();
    assert_eq!(fields(&said, "not-looked-at", "subject"), unseen);
    assert!(fields(&said, "not-looked-at", "evidence").iter().all(|why| !why.is_empty()));
    assert!(severities(&said, "not-looked-at").iter().all(|severity| *severity == "warning"));
    said
}

/// Why something with these words in its name was not looked at.
#[track_caller]
fn why<'a>(said: &'a Value, what: &str) -> &'a str {
    let subjects = fields(said, "not-looked-at", "subject");
    let found = subjects.iter().position(|subject| subject.contains(what));
    let found = found.unwrap_or_else(|| panic!("{what} was looked at, or not spoken of: {said:#}"));
    fields(said, "not-looked-at", "evidence")[found]
}

#[track_caller]
fn all_looked_at(said: &Value) {
    assert_eq!(fields(said, "not-looked-at", "subject"), [""; 0]);
}

#[test]
fn in_a_container_it_says_what_it_could_not_look_at() {
    let Some((lab, _servers)) = start("doccont") else { return };
    let with_file = "--config /run/dsrlb.toml --json";
    let said = coherent(&contained(&lab, &[], AS_ROOT, with_file));
    assert!(why(&said, "the XDP mode").contains("not permitted to load an XDP program"));
    assert!(why(&said, "the backends' neighbours").contains("CAP_NET_ADMIN"));
    assert_eq!(why(&said, "whether backends serve"), "the ways to 2 of 2 are not known");
    assert_eq!(severities(&said, "neighbour"), [""; 0], "nobody was asked");
    assert!(why(&said, "the other end of the veth pair eth0").contains("cannot find"));
    assert_eq!(severities(&said, "capabilities"), ["warning"]);
    assert!(fields(&said, "capabilities", "evidence")[0].contains("CAP_BPF, CAP_NET_ADMIN"));
    // 64 KiB, as docker has it; nothing that could be started there has that limit.
    assert_eq!(severities(&said, "memlock"), ["warning"]);
    // What takes no rights is told as without the container, where the kernel comes to know the backends, too.
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), file(&lab, "")).unwrap();
    let free = coherent(&doctor(&lab, &[], &["--config", path.path().to_str().unwrap(), "--json"]));
    all_looked_at(&free);
    for id in
        ["carrier", "frame-size", "gro", "lro", "vlan-stripping", "ip-forwarding", "vip-claimed"]
    {
        assert_eq!(severities(&said, id), severities(&free, id), "{id}");
        assert!(!severities(&said, id).is_empty(), "{id}");
    }
    let text = contained(&lab, &[], AS_ROOT, "--config /run/dsrlb.toml");
    assert_eq!(text.status.code(), Some(0), "{text:?}");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("warning  not-looked-at"), "{text}");

    let nobody = coherent(&contained(&lab, &[], AS_NOBODY, with_file));
    assert!(why(&nobody, "who answers for the VIPs").contains("not permitted"), "{nobody:#}");
    assert_eq!(severities(&nobody, "af-xdp"), ["warning"]);
    assert_eq!(severities(&nobody, "frame-size"), ["ok"]);

    // A container's own network has no such interface.
    for who in [AS_ROOT, AS_NOBODY] {
        let alone = coherent(&contained(&lab, &["--net"], who, with_file));
        assert_eq!(severities(&alone, "interface-missing"), ["error"]);
        assert!(why(&alone, "what the driver grants").contains("cannot be used"));
    }
    // An error is one there, too.
    lab.director.namespace.run("ip", &["link", "set", "dev", "eth0", "down"]).unwrap();
    let down = contained(&lab, &[], AS_ROOT, with_file);
    assert_eq!(severities(&coherent(&down), "interface-down"), ["error"]);
    assert_eq!(down.status.code(), Some(1));
}

/// All capabilities, in a user namespace of nobody's, over an interface of its own: what rootless containers have.
#[test]
fn in_a_user_namespace_capabilities_do_not_count() {
    let Some((lab, _servers)) = start("docuser") else { return };
    let script = "ip link add eth0 type veth peer name eth1
        ethtool -K eth1 tx off > /dev/null
        ip link set eth0 up && ip link set eth1 up && ip addr add 10.9.0.1/24 dev eth0
        exec timeout -k 5 60 /proc/self/fd/0 --interface eth0 --json";
    let words: Vec<&str> =
        AS_NOBODY.split(' ').chain(["unshare", "--user", "--map-root-user"]).collect();
    let start = |command: &[&str]| {
        Command::new("ip")
            .args(["netns", "exec", lab.director.namespace.name()])
            .args(&words)
            .args(command)
            .stdin(File::open(example("doctor")).unwrap())
            .output()
            .unwrap()
    };
    let apart = ["--net", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-ec", script];
    // With all that is needed: a namespace may be granted without the rights inside, or without a /proc of its own.
    let trial = start(&[&apart[..7], &["ip link add x type veth peer name y"]].concat());
    if !trial.status.success() {
        skip::kernel_cannot(&format!("no user namespaces for nobody: {trial:?}"));
        return;
    }
    let output = start(&apart);
    let said = coherent(&output);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(severities(&said, "capabilities"), ["warning"]);
    assert!(fields(&said, "capabilities", "evidence")[0].contains("user namespace"), "{said:#}");
    assert!(why(&said, "the XDP mode").contains("not permitted"));
    assert_eq!(severities(&said, "carrier"), ["ok"]);

    // There without any capability, beside the interface that has them.
    let script = script.replace("/proc/self/fd/0", "setpriv --bounding-set=-all /proc/self/fd/0");
    let said = coherent(&start(&[&apart[..7], &[&script]].concat()));
    assert_eq!(severities(&said, "af-xdp"), ["warning"]);
}

#[test]
fn what_proc_does_not_tell_is_not_taken_for_well() {
    let Some((lab, _servers)) = start("docproc") else { return };
    let run = |script: &str| {
        let script = format!("{script} && exec \"$0\" --interface eth0 --json");
        let path = example("doctor");
        let output =
            inside(&lab, &["unshare", "--mount", "sh", "-ec", &script, path.to_str().unwrap()]);
        coherent(&output)
    };
    all_looked_at(&run("true"));
    let said = run("mount -t tmpfs tmpfs /proc/sys");
    let of = "rp_filter, IPv4 forwarding, IPv6 forwarding of eth0";
    assert!(why(&said, of).contains("No such file"), "{said:#}");
    assert_eq!(fields(&said, "not-looked-at", "subject"), [of]);
    assert!(
        severities(&said, "rp-filter").is_empty() && severities(&said, "ip-forwarding").is_empty()
    );
    assert_eq!(severities(&said, "xdp-mode"), ["ok"]);

    let said = run("mount -t tmpfs tmpfs /proc");
    for what in ["the capabilities", "the limit of locked memory", "huge pages", of] {
        why(&said, what);
    }
    assert_eq!(severities(&said, "kernel-version"), ["ok"]);
    assert_eq!(severities(&said, "frame-size"), ["ok"]);
}

/// A program in the director's namespace.
fn inside(lab: &Lab, command: &[&str]) -> Output {
    let enter = ["netns", "exec", lab.director.namespace.name()];
    Command::new("ip").args(enter).args(command).output().unwrap()
}

/// Has the kernel refuse a system call with one value of one argument (seccomp(2)), and becomes the program that is
/// named behind these numbers.
const REFUSE: &str = r#"
import ctypes, os, struct, sys
call, argument, value, error = map(int, sys.argv[1:5])
low = 16 + 8 * argument + (4 if sys.byteorder == "big" else 0)
instructions = [
    (0x20, 0, 0, 0), (0x15, 0, 3, call), (0x20, 0, 0, low), (0x15, 0, 1, value),
    (0x06, 0, 0, 0x00050000 | error), (0x06, 0, 0, 0x7fff0000),
]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *i) for i in instructions))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
program = Program(len(instructions), ctypes.addressof(code))
if ctypes.CDLL(None, use_errno=True).prctl(22, 2, ctypes.byref(program), 0, 0) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[5], sys.argv[5:])
"#;

/// What is said where this call is refused, with this value of the argument with this number; none without python3.
fn refusing(lab: &Lab, call: libc::c_long, argument: u32, value: u32, error: i32) -> Option<Value> {
    if !skip::has("python3", "--version", "python3", "to refuse system calls") {
        return None;
    }
    let numbers = [call.to_string(), argument.to_string(), value.to_string(), error.to_string()];
    let mut words = vec!["python3", "-c", REFUSE];
    words.extend(numbers.iter().map(String::as_str));
    Some(coherent(&doctor(lab, &words, &["--interface", "eth0", "--json"])))
}

#[test]
fn what_the_kernel_refuses_to_tell_is_not_taken_for_well() {
    let Some((lab, _servers)) = start("docrefuse") else { return };
    let usual = coherent(&doctor(&lab, &[], &["--interface", "eth0", "--json"]));
    all_looked_at(&usual);
    assert_eq!(severities(&usual, "af-xdp"), ["ok"]);

    const SIOCETHTOOL: u32 = 0x8946;
    let Some(said) = refusing(&lab, libc::SYS_ioctl, 1, SIOCETHTOOL, libc::EPERM) else { return };
    let of =
        "queues, the table of queues, RX rings, LRO, GRO in hardware, GRO, VLAN stripping of eth0";
    assert!(why(&said, of).contains("Operation not permitted"), "{said:#}");
    assert!(why(&said, "the other end").contains("its driver cannot be asked"), "{said:#}");
    for id in ["lro", "gro", "gro-hw", "vlan-stripping", "queues-unbound", "peer-checksum"] {
        assert_eq!(severities(&usual, id), ["ok"], "{id}");
        assert!(severities(&said, id).is_empty(), "{id}");
    }

    let netlink = libc::AF_NETLINK as u32;
    let said = refusing(&lab, libc::SYS_socket, 0, netlink, libc::EACCES).unwrap();
    assert!(why(&said, "the interfaces").contains("Permission denied"));
    assert!(severities(&said, "interface-missing").is_empty());

    // As by a kernel without CONFIG_XDP_SOCKETS.
    let xdp = libc::AF_XDP as u32;
    let said = refusing(&lab, libc::SYS_socket, 0, xdp, libc::EAFNOSUPPORT).unwrap();
    assert_eq!(severities(&said, "af-xdp"), ["error"]);
    let said = refusing(&lab, libc::SYS_socket, 0, xdp, libc::EPERM).unwrap();
    assert_eq!(severities(&said, "af-xdp"), ["warning"]);
}

/// The kernel gives a process with this personality another version than its own (`UNAME26`, personality(2)).
#[test]
fn a_kernel_that_says_to_be_too_old_is_found() {
    let Some((lab, _servers)) = start("dockernel") else { return };
    let old =
        coherent(&doctor(&lab, &["setarch", "--uname-2.6"], &["--interface", "eth0", "--json"]));
    assert_eq!(severities(&old, "kernel-version"), ["error"]);
    assert!(fields(&old, "kernel-version", "evidence")[0].starts_with("Linux 2.6."), "{old:#}");
    let usual = coherent(&doctor(&lab, &[], &["--interface", "eth0", "--json"]));
    assert_eq!(severities(&usual, "kernel-version"), ["ok"]);
}

/// With a file in the place of the setting, which is the whole host's.
#[test]
fn an_interpreter_is_found_and_switched_off() {
    let Some((lab, _servers)) = start("docjit") else { return };
    let interface = ["--interface", "eth0", "--json"];
    let usual = coherent(&doctor(&lab, &[], &interface));
    assert_eq!(severities(&usual, "bpf-jit"), ["info"], "no namespace but the host's has it");
    let room = Room::open(
        &lab,
        "mount -t tmpfs tmpfs /proc/sys/net/core && echo 0 > /proc/sys/net/core/bpf_jit_enable",
    );
    let found = coherent(&room.doctor(&interface));
    assert_eq!(severities(&found, "bpf-jit"), ["warning"]);
    room.type_in(fields(&found, "bpf-jit", "remedy")[0]);
    assert_eq!(severities(&coherent(&room.doctor(&interface)), "bpf-jit"), ["ok"]);
}

/// With files in the place of what the kernel tells and of the setting, which is the whole host's; the test does what
/// the kernel would when that is written.
#[test]
fn a_lack_of_huge_pages_is_found_and_as_many_are_asked_for_as_are_needed() {
    let Some((lab, _servers)) = start("dochuge") else { return };
    let tell = "told=$(sed \"s/^\\(HugePages_[A-Z][a-z]*:\\) .*/\\1 0/; s/^\\(HugePages_Free:\\) .*/\\1 $(cat nr)/\" \
                meminfo); printf '%s\\n' \"$told\" > meminfo";
    let room = Room::open(
        &lab,
        &format!(
            "mount -t tmpfs tmpfs /mnt && cd /mnt && cat /proc/meminfo > meminfo && echo 0 > nr && echo 0 > more
            {tell}
            mount --bind meminfo /proc/meminfo
            mount --bind nr /proc/sys/vm/nr_hugepages
            mount --bind more /proc/sys/vm/nr_overcommit_hugepages
            cat > dsrlb.toml << EOF\n{}\nEOF",
            file(&lab, "huge-pages = true")
        ),
    );
    let arguments = ["--config", "/mnt/dsrlb.toml", "--json"];
    let found = coherent(&room.doctor(&arguments));
    assert_eq!(severities(&found, "huge-pages"), ["error"]);
    // The trial asks the kernel itself, which has none but those of the host.
    let arguments = [&arguments[..], &["--no-trial"]].concat();
    room.type_in(fields(&found, "huge-pages", "remedy")[0]);
    assert_eq!(
        severities(&coherent(&room.doctor(&arguments)), "huge-pages"),
        ["error"],
        "not made yet"
    );
    room.type_in(&format!("cd /mnt; {tell}"));
    assert_eq!(severities(&coherent(&room.doctor(&arguments)), "huge-pages"), ["ok"]);
    // Not one too many, and those that are made when they are asked for are as good.
    room.type_in(&format!("cd /mnt; echo $(($(cat nr) - 1)) > nr; {tell}"));
    assert_eq!(severities(&coherent(&room.doctor(&arguments)), "huge-pages"), ["error"]);
    room.type_in("echo 1 > /mnt/more");
    assert_eq!(severities(&coherent(&room.doctor(&arguments)), "huge-pages"), ["ok"]);
}

/// The program of a director that was killed, kept by a pin in a file system: no process has it.
#[test]
fn a_program_that_a_pinned_link_holds_is_detached() {
    let Some((lab, _servers)) = start("docpinned") else { return };
    if !skip::has("bpftool", "version", "bpftool", "for pinned links") {
        return;
    }
    let room = Room::open(&lab, "mount -t bpf bpf /mnt");
    let interface = ["--interface", "eth0", "--json"];
    let (vip, backend) = (format!("{}/tcp", lab.vip4_port(80)), lab.backends[0].v4.to_string());
    let director = Example::simple_vip(&lab, &["--vip", &vip, "--backend", &backend]);
    let begun = Instant::now();
    while lab.client.enter(|| http_get(lab.vip4_port(80), "/", SHORT)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the director does not serve");
    }
    let held = coherent(&room.doctor(&interface));
    assert_eq!(severities(&held, "xdp-program"), ["error"]);
    let remedy = fields(&held, "xdp-program", "remedy")[0];
    let link = remedy.strip_prefix("bpftool link detach id ").unwrap();
    room.type_in(&format!("bpftool link pin id {link} /mnt/link"));
    drop(director);

    let pinned = coherent(&room.doctor(&interface));
    assert_eq!(fields(&pinned, "xdp-program", "remedy"), [remedy]);
    // As somebody who may not ask what holds it.
    let nobody = coherent(&contained(&lab, &[], AS_NOBODY, "--interface eth0 --json"));
    assert_eq!(severities(&nobody, "xdp-program"), ["error"]);
    why(&nobody, "what holds the XDP program of eth0");
    assert!(fields(&nobody, "xdp-program", "evidence")[0].contains("unless a BPF link holds it"));

    room.type_in(remedy);
    let gone = coherent(&room.doctor(&interface));
    assert_eq!(severities(&gone, "xdp-program"), ["ok"]);
    assert_eq!(severities(&gone, "xdp-mode"), ["ok"]);
}
