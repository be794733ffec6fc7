//! `--capture` and `--capture-only`: what of the traffic is written, and what is said of that at the end.

use dsrlb::config::Config;
use dsrlb::dataplane::{Bounds, Chosen};
use dsrlb::director::{Capture, Director};
use dsrlb::verdict::DropReason;
use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

/// What `--capture-only` says.
#[derive(Clone, Debug)]
pub enum Only {
    /// Whatever a capture can choose without asking anybody.
    Chosen(Chosen),
    /// What goes to the backend of this id, in whichever service; a capture chooses by what the director calls it.
    Backend(String),
}

/// `drops`, a reason, a flow, `backend=ID` or `one-in=N`.
pub fn only(text: &str) -> Result<Only, String> {
    if let Some(id) = text.strip_prefix("backend=") {
        return Ok(Only::Backend(id.to_owned()));
    }
    if let Some(count) = text.strip_prefix("one-in=") {
        let count = count.parse().map_err(|_| "N is a number, from 1 on")?;
        return Ok(Only::Chosen(Chosen::OneIn(count)));
    }
    if text == "drops" {
        return Ok(Only::Chosen(Chosen::Dropped));
    }
    let reason = DropReason::from_name(text).map(Chosen::Drops);
    let flow = || text.parse().map(Chosen::Flow);
    reason.map_or_else(flow, Ok).map(Only::Chosen).map_err(|error| {
        let names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.as_str()).collect();
        format!(
            "is neither drops, backend=ID or one-in=N, nor one of {}, and as a flow: {error}",
            names.join(", ")
        )
    })
}

impl Only {
    /// Whether there can be such frames.
    pub fn check(&self, config: &Config) -> Result<(), String> {
        let Self::Backend(id) = self else { return Ok(()) };
        let mut backends = config.services.iter().flat_map(|bound| bound.service.all_backends());
        match backends.any(|backend| backend.id() == id) {
            true => Ok(()),
            false => Err(no_backend(id)),
        }
    }

    /// The same, as a running director has it.
    fn chosen(self, director: &Director) -> Result<Chosen, String> {
        let id = match self {
            Self::Chosen(chosen) => return Ok(chosen),
            Self::Backend(id) => id,
        };
        let backends = director.stats().backends.into_iter().filter(|backend| backend.id == id);
        let indices: Vec<_> = backends.map(|backend| backend.index).collect();
        if indices.is_empty() { Err(no_backend(&id)) } else { Ok(Chosen::Backend(indices)) }
    }
}

fn no_backend(id: &str) -> String {
    format!("--capture-only backend={id}: no service has a backend of that id")
}

/// Makes the file.
pub fn create(file: &Path) -> Result<BufWriter<File>, Box<dyn Error>> {
    let created = File::create(file).map(BufWriter::new);
    created.map_err(|error| format!("--capture {}: {error}", file.display()).into())
}

/// Begins.
pub fn begin(
    director: &Director,
    output: BufWriter<File>,
    only: Option<Only>,
) -> Result<Capture, Box<dyn Error>> {
    let chosen = only.map(|only| only.chosen(director)).transpose()?.unwrap_or_default();
    Ok(director.capture(output, chosen, Bounds::default())?)
}

/// Ends a capture, and says what is in it and what is not.
pub fn tell(capture: Capture, file: Option<&Path>) {
    let known = capture.counts();
    match capture.stop() {
        Ok(counts) => eprintln!(
            "captured: {} frames, {} bytes; {} more came too fast{}",
            counts.written,
            counts.bytes,
            counts.too_many + counts.missed,
            if counts.ended > 0 { ", and then it was full" } else { "" },
        ),
        Err(error) => eprintln!(
            "capture failed: {}: {error}; about {} frames, {} bytes had been written",
            file.map(Path::display).unwrap_or(Path::new("").display()),
            known.written,
            known.bytes,
        ),
    }
}
