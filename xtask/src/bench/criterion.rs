//! Reads what criterion has measured: it keeps every sample.

use crate::Result;
use crate::json::string_field;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// One benchmark and its samples, in nanoseconds for one element.
#[derive(Clone, PartialEq, Debug)]
struct Measured {
    name: String,
    samples: Vec<f64>,
}

/// All benchmarks in `directory` as a table, in the order they ran in.
pub(crate) fn table(directory: &Path) -> Result<String> {
    let mut found = Vec::new();
    collect(directory, &mut found).map_err(|error| {
        format!("cannot read criterion's results in {}: {error}", directory.display())
    })?;
    found.sort();
    let read = |(_, path): &(SystemTime, PathBuf)| {
        let text = |name: &str| {
            let file = path.join(name);
            fs::read_to_string(&file)
                .map_err(|error| format!("cannot read {}: {error}", file.display()))
        };
        measured(&text("benchmark.json")?, &text("sample.json")?)
            .ok_or_else(|| format!("{} is not as criterion writes it", path.display()))
    };
    let all = found.iter().map(read).collect::<Result<Vec<_>>>()?;
    if all.is_empty() {
        return Err("criterion measured nothing".into());
    }
    Ok(shown(&all))
}

/// Directories that hold samples of this run, with their time.
fn collect(directory: &Path, found: &mut Vec<(SystemTime, PathBuf)>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let samples = path.join("sample.json");
        if path.ends_with("new") && samples.is_file() {
            found.push((fs::metadata(samples)?.modified()?, path));
        } else if path.is_dir() {
            collect(&path, found)?;
        }
    }
    Ok(())
}

fn measured(benchmark: &str, sample: &str) -> Option<Measured> {
    let (_, elements) = benchmark.split_once(r#""Elements":"#)?;
    let elements: f64 = elements.split(['}', ',']).next()?.trim().parse().ok()?;
    let (iterations, times) = (numbers(sample, "iters")?, numbers(sample, "times")?);
    let samples = iterations.iter().zip(times).map(|(count, time)| time / count / elements);
    let mut samples: Vec<f64> = samples.collect();
    samples.sort_by(f64::total_cmp);
    (!samples.is_empty()).then_some(Measured { name: string_field(benchmark, "full_id")?, samples })
}

fn numbers(json: &str, name: &str) -> Option<Vec<f64>> {
    let (_, rest) = json.split_once(&format!("\"{name}\":["))?;
    let (list, _) = rest.split_once(']')?;
    list.split(',').map(|number| number.trim().parse().ok()).collect()
}

/// What a benchmark is compared with, by its name.
fn reference(name: &str) -> Option<String> {
    let (group, function) = name.split_once('/')?;
    match group.split_once(',') {
        None if group == "pipeline" => Some("pipeline/ipv4 tcp".into()),
        Some(("forwarding", _)) => Some(format!("{group}/l2")),
        Some(("flow table", _)) => Some(format!("flow table, 1 k flows/{function}")),
        _ => None,
    }
}

fn shown(all: &[Measured]) -> String {
    let at = |measured: &Measured, share: f64| {
        let last = measured.samples.len() - 1;
        measured.samples[(last as f64 * share) as usize]
    };
    let mut text = String::from(
        "Nanoseconds for one packet, in batches of 64; median of criterion's samples (5th to 95th percentile).\n\n\
         | what | ns | ratio | to |\n| --- | --- | --- | --- |\n",
    );
    for measured in all {
        let [median, low, high] = [0.5, 0.05, 0.95].map(|share| at(measured, share));
        let reference = reference(&measured.name);
        let beside = reference.and_then(|name| all.iter().find(|other| other.name == name));
        let (ratio, to) = match beside {
            Some(other) => (format!("{:.2}", median / at(other, 0.5)), other.name.as_str()),
            None => (String::new(), ""),
        };
        let name = &measured.name;
        text += &format!("| {name} | {median:.1} ({low:.1} to {high:.1}) | {ratio} | {to} |\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const BENCHMARK: &str = r#"{"group_id":"pipeline","function_id":"ipv6 tcp","value_str":null,"throughput":{"Elements":64},"full_id":"pipeline/ipv6 tcp","directory_name":"pipeline/ipv6 tcp","title":"pipeline/ipv6 tcp"}"#;

    #[test]
    fn samples_are_times_for_one_element_in_rising_order() {
        let sample = r#"{"sampling_mode":"Linear","iters":[2.0,4.0],"times":[2560.0,2560.0]}"#;
        let expected = Measured { name: "pipeline/ipv6 tcp".into(), samples: vec![10.0, 20.0] };
        assert_eq!(measured(BENCHMARK, sample), Some(expected));
        assert_eq!(measured(BENCHMARK, r#"{"iters":[],"times":[]}"#), None);
        assert_eq!(measured("{}", sample), None);
    }

    #[test]
    fn each_benchmark_is_put_beside_its_reference() {
        let one =
            |name: &str, samples: &[f64]| Measured { name: name.into(), samples: samples.into() };
        let text = shown(&[
            one("pipeline/ipv4 tcp", &[9.0, 10.0, 11.0]),
            one("pipeline/ipv6 tcp", &[14.0, 15.0, 19.0]),
            one("alone/this", &[1.0]),
        ]);
        assert!(
            text.contains("| pipeline/ipv6 tcp | 15.0 (14.0 to 15.0) | 1.50 | pipeline/ipv4 tcp |"),
            "{text}"
        );
        assert!(text.contains("| alone/this | 1.0 (1.0 to 1.0) |  |  |"), "{text}");
        let flows = reference("flow table, 512 k flows/hit, touch");
        assert_eq!(flows.as_deref(), Some("flow table, 1 k flows/hit, touch"));
        assert_eq!(
            reference("forwarding, 64 bytes/ipip").as_deref(),
            Some("forwarding, 64 bytes/l2")
        );
    }
}
