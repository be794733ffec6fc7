//! Frames in huge pages: how many of those the kernel makes is a setting of the whole host, which no namespace has, so for a
//! moment these tests change the host's.

use crate::wire::*;
use dsrlb::dataplane::af_xdp::{XdpError, XdpOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

/// Set for the copy of this program that is to be killed.
const CHILD: &str = "DSRLB_TEST_CHILD";
const OVERCOMMIT: &str = "/proc/sys/vm/nr_overcommit_hugepages";

/// What may be changed, and is put back when its standard input ends: the process that has the other end may be
/// interrupted or killed. It keeps others like it out meanwhile, who would put back what this one has set.
const HOLD: &str = "trap '' INT HUP TERM QUIT; exec 9< \"$0\"; flock 9; before=$(cat \"$0\"); \
                    echo \"$1\" > \"$0\" && echo \"$before\"; read -r _; echo \"$before\" > \"$0\"";

/// How many huge pages the kernel may make when they are asked for, beside those that are reserved; until it is dropped, or
/// this process ends in whatever way.
struct HugePages {
    holder: Child,
    before: u32,
}

impl HugePages {
    fn allow(pages: u32) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new("sh");
        command.args(["-c", HOLD, OVERCOMMIT, &pages.to_string()]);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut before = String::new();
        BufReader::new(holder.stdout.take().ok_or("no output")?).read_line(&mut before)?;
        assert_eq!(allowed()?, pages);
        Ok(Self { holder, before: before.trim().parse()? })
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let ended = self.holder.wait();
        let is_back = ended.is_ok_and(|status| status.success());
        // To panic while a test does so already would end the process, and leave its namespaces.
        let is_told = std::thread::panicking();
        assert!(is_back || is_told, "{OVERCOMMIT} was {}, and is not put back", self.before);
    }
}

fn allowed() -> Result<u32, Box<dyn Error>> {
    Ok(fs::read_to_string(OVERCOMMIT)?.trim().parse()?)
}

/// Of the test itself, as it might be interrupted: the host is as it was.
#[test]
fn the_setting_of_the_host_is_put_back_when_the_test_is_killed() -> TestResult {
    if std::env::var_os(CHILD).is_some() {
        let held = HugePages::allow(3)?;
        println!("\nBEFORE {}", held.before);
        std::io::stdout().flush()?;
        loop {
            std::thread::park();
        }
    }
    let Some(_alone) = alone() else {
        return Ok(());
    };
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let name = "huge_pages::the_setting_of_the_host_is_put_back_when_the_test_is_killed";
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        let before = output
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("BEFORE ")?.parse::<u32>().ok());
        let before = before.ok_or_else(|| format!("{:?}", child.wait()))?;
        let held = allowed()?;
        kill(Pid::from_raw(child.id().try_into()?), signal)?;
        child.wait()?;
        assert_eq!(held, 3);
        assert!(eventually(|| allowed().is_ok_and(|now| now == before)), "{signal}: not {before}");
    }
    Ok(())
}

#[test]
fn frames_are_in_huge_pages_or_the_operator_is_told_how_to_reserve_them() -> TestResult {
    let Some(_alone) = alone() else {
        return Ok(());
    };
    let wire = Wire::build("afxdphuge", 1)?;
    let options = XdpOptions { huge_pages: true, ..XdpOptions::default() };
    let small = XdpOptions { frames_per_queue: 64, ..options.clone() };
    let error = wire.open_director(&small).unwrap_err();
    println!("{error}");
    assert!(matches!(error, XdpError::Option { field: "huge_pages", .. }), "{error}");

    let memory = fs::read_to_string("/proc/meminfo")?;
    let free = memory.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
    if free.is_none_or(|free| free.trim() == "0") {
        let none = HugePages::allow(0)?;
        let error = wire.open_director(&options).unwrap_err();
        drop(none);
        println!("{error}");
        assert!(matches!(error, XdpError::NoHugePages { queue: 0, .. }), "{error}");
        assert!(error.to_string().contains("sysctl vm.nr_hugepages"), "{error}");
    }

    let _some = HugePages::allow(16)?;
    let in_huge_pages = || -> Result<usize, Box<dyn Error>> {
        let status = fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("HugetlbPages:"));
        Ok(line.ok_or("no such line")?.trim().trim_end_matches(" kB").parse::<usize>()? * 1024)
    };
    let before = in_huge_pages()?;
    let opened = wire.open(&kernel(&[VIP4]), &options);
    let (mut director, mut client) = match opened {
        Err(error @ XdpError::NoHugePages { .. }) => {
            println!("not tested further: memory is too scattered for huge pages: {error}");
            return Ok(());
        }
        opened => opened?,
    };
    let bytes = (options.frames_per_queue * options.frame_size) as usize;
    assert_eq!(in_huge_pages()? - before, 2 * bytes, "one end each");
    let (queue, peer) = (&mut director.queues[0], &mut client.queues[0]);
    // More than there are frames, so each is used.
    let frame = udp(DIRECTOR_MAC, &[], VIP4);
    for _ in 0..2 * options.frames_per_queue {
        assert_eq!(round_trip(queue, peer, &frame, WAIT)?, Some(reflected(&frame)));
    }
    drop((director, client));
    assert!(eventually(|| in_huge_pages().is_ok_and(|bytes| bytes == before)), "given back");
    Ok(())
}
