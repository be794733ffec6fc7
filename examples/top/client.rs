//! The appliance, as it is asked and told: a thread that does both in turn.

use super::model::{News, Order};
use super::sample::Sample;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

/// How long the appliance may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
const LONGEST: u64 = 128 << 20;
/// How much of a refusal is shown, in bytes.
const SHOWN: u64 = 4 << 10;

pub struct Client {
    agent: Agent,
    endpoint: SocketAddr,
    begun: Instant,
}

impl Client {
    pub fn new(endpoint: SocketAddr) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .max_redirects(0)
            // It is asked here, whatever the environment says.
            .proxy(None)
            .build();
        Self { agent: config.into(), endpoint, begun: Instant::now() }
    }

    /// Asks once in this time, and after each order, until nobody is there to hear it.
    pub fn work(&self, every: Duration, orders: &Receiver<Order>, news: &SyncSender<News>) {
        loop {
            let found = self.sample().map_or_else(News::Silent, News::Sample);
            if news.send(found).is_err() {
                return;
            }
            match orders.recv_timeout(every) {
                Ok(order) => {
                    if news.send(News::Done(self.give(&order))).is_err() {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn sample(&self) -> Result<Sample, String> {
        let at = self.begun.elapsed();
        let metrics = self.get("/metrics")?;
        // What health says it says of a failed appliance, too.
        let health = self.get("/health")?;
        Sample::read(at, &metrics, &health).map_err(|error| error.to_string())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.endpoint)
    }

    fn get(&self, path: &str) -> Result<String, String> {
        let mut answer = self.agent.get(self.url(path)).call().map_err(no_answer)?;
        match answer.status() {
            StatusCode::OK => text(&mut answer, LONGEST),
            StatusCode::SERVICE_UNAVAILABLE if path == "/health" => text(&mut answer, LONGEST),
            status => Err(format!("{path}: {status}")),
        }
    }

    /// What an order came to, in words.
    fn give(&self, order: &Order) -> Result<String, String> {
        let path = if order.drain { "/drain" } else { "/undrain" };
        let body = json!({ "service": order.service, "backend": order.backend }).to_string();
        let post = self.agent.post(self.url(path)).content_type("application/json");
        // It may have been heard all the same.
        let unsure = |error| format!("{}; it may still take effect", no_answer(error));
        let mut answer = post.send(body).map_err(unsure)?;
        let said = text(&mut answer, SHOWN)?;
        if answer.status() != StatusCode::OK {
            return Err(format!("refused: {}", said.trim()));
        }
        let said: Value =
            serde_json::from_str(&said).map_err(|error| format!("{path}: {error}"))?;
        Ok(format!("{}: {}", order.backend, said["state"].as_str().unwrap_or("removed")))
    }
}

fn text(answer: &mut Response<Body>, longest: u64) -> Result<String, String> {
    answer.body_mut().with_config().limit(longest).read_to_string().map_err(no_answer)
}

fn no_answer(error: ureq::Error) -> String {
    format!("no answer: {error}")
}
