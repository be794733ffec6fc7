//! A live view of an appliance: services, backends, rates, drops and health, each with its reason.
//!
//! ```text
//! top [ADDRESS:PORT] [--every SECONDS]
//! ```
//!
//! Numbers and states are those of the appliance's `/metrics`, words those of its `/health`; 80 columns and 24 lines are
//! enough. Keys choose a backend, drain it and undrain it, if the appliance takes commands (`docs/metrics.md`).

mod client;
mod draw;
mod exposition;
mod model;
mod sample;
mod trace;

use clap::Parser;
use client::Client;
use model::{Intent, Model, News, Order};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

/// How soon what is new is shown.
const TICK: Duration = Duration::from_millis(100);
/// How many orders, and how much news, may wait.
const WAITING: usize = 8;

#[derive(Parser)]
#[command(about = "A live view of an appliance, with keys to drain and undrain backends")]
struct Options {
    /// Where the appliance listens: `listen` in its [metrics]
    #[arg(default_value = "127.0.0.1:9100")]
    endpoint: SocketAddr,
    /// How often it is asked, in seconds
    #[arg(long, default_value_t = 1, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=60))]
    every: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // The terminal is given back as it was, unless a second signal ends this before the first one was noticed.
    let shown = ratatui::try_init().and_then(|terminal| run(terminal, &options));
    ratatui::restore();
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("top: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(terminal: DefaultTerminal, options: &Options) -> io::Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    // Not SIGHUP, which is to end this at once: the terminal has gone, and crossterm's `poll` does not return then. Nor
    // does it for who ignores that signal, so a second one of the others ends this, too.
    for signal in [SIGINT, SIGTERM] {
        let status = 128 + signal;
        signal_hook::flag::register_conditional_shutdown(signal, status, Arc::clone(&ended))?;
        signal_hook::flag::register(signal, Arc::clone(&ended))?;
    }
    let (orders, to_do) = sync_channel(WAITING);
    let (found, news) = sync_channel(WAITING);
    let (client, every) = (Client::new(options.endpoint), Duration::from_secs(options.every));
    std::thread::Builder::new()
        .name("client".to_owned())
        .spawn(move || client.work(every, &to_do, &found))?;
    watch(terminal, &options.endpoint.to_string(), &ended, &orders, &news)
}

/// Shows what is new and does what keys ask, until that is to end.
fn watch(
    mut terminal: DefaultTerminal,
    endpoint: &str,
    ended: &AtomicBool,
    orders: &SyncSender<Order>,
    news: &Receiver<News>,
) -> io::Result<()> {
    let mut model = Model::default();
    while !ended.load(Ordering::Relaxed) {
        loop {
            match news.try_recv() {
                Ok(news) => model.take(news),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    return Err(io::Error::other("the thread that asks the appliance has ended"));
                }
            }
        }
        terminal.draw(|frame| draw::draw(frame, &model, endpoint))?;
        if !event::poll(TICK)? {
            continue;
        }
        let Event::Key(key) = event::read()? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        match model.key(key) {
            Some(Intent::Quit) => break,
            Some(Intent::Command(order)) => {
                let sent = orders.try_send(order);
                if sent.is_err() {
                    model.take(News::Done(Err("the appliance has yet to answer".to_owned())));
                }
            }
            None => {}
        }
    }
    Ok(())
}
