//! The picture of a model.

use super::model::{Model, Row};
use super::trace::Trace;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Paragraph, Sparkline, Wrap};

/// The columns of the list but for the sparkline, which has what is left.
const COLUMNS: [u16; 6] = [22, 11, 10, 6, 7, 7];
const HEADINGS: [&str; 7] =
    ["SERVICE, BACKEND", "STATE", "HEALTH", "FLOWS", "PKT/S", "BIT/S", "HISTORY"];
const KEYS: &str = " ↑↓ choose   d drain   u undrain   q quit";

pub fn draw(frame: &mut Frame<'_>, model: &Model, endpoint: &str) {
    let parts = [1, 4, 1].map(Constraint::Length);
    let parts =
        parts.into_iter().chain([Constraint::Min(1)]).chain([3, 2, 1].map(Constraint::Length));
    let [title, overall, headings, list, details, reasons, foot] =
        Layout::vertical(parts).areas(frame.area());
    frame.render_widget(headline(model, endpoint), title);
    draw_overall(frame, model, overall);
    draw_headings(frame, headings);
    draw_list(frame, model, list);
    frame.render_widget(Paragraph::new(describe(model)), details);
    frame.render_widget(drops(model), reasons);
    frame.render_widget(footer(model), foot);
}

fn headline(model: &Model, endpoint: &str) -> Line<'static> {
    let sample = &model.sample;
    let state = match (&model.silent, sample.at.is_zero(), sample.up) {
        (Some(why), ..) => Span::raw(why.clone()).red(),
        (None, true, _) => Span::raw("asking"),
        (None, false, true) => Span::raw("serving").green(),
        (None, false, false) => Span::raw("a worker has failed: no packets are taken").red(),
    };
    let rest = match model.silent {
        Some(_) => String::new(),
        None => format!("   snapshot {}   workers {}", sample.generation, sample.workers),
    };
    Line::from_iter([
        Span::raw(" dsrlb ").bold(),
        Span::raw(format!("{endpoint}   ")),
        state,
        Span::raw(rest),
    ])
}

fn draw_overall(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let overall = &model.overall;
    let bits = overall.bytes.map(|bytes| bytes * 8.0);
    let lines = [
        ("received", &overall.received, format!("{} flows", amount(model.sample.flows as f64))),
        ("forwarded", &overall.forwarded, format!("{} bit/s", known(bits))),
        (
            "dropped",
            &overall.dropped,
            format!("{} in all", amount(model.sample.totals.dropped as f64)),
        ),
        ("lost", &overall.lost, format!("{} in all", amount(model.sample.totals.lost as f64))),
    ];
    for (line, (name, trace, right)) in area.rows().zip(lines) {
        let parts = [10, 9, 1].map(Constraint::Length);
        let parts = parts.into_iter().chain([Constraint::Min(1), Constraint::Length(16)]);
        let [label, rate, _, spark, more] = Layout::horizontal(parts).areas(line);
        frame.render_widget(Line::raw(format!(" {name}")), label);
        frame.render_widget(Line::raw(format!("{}/s", known(trace.last))).right_aligned(), rate);
        let colour = if matches!(name, "dropped" | "lost") { Color::Red } else { Color::Cyan };
        draw_spark(frame, trace, colour, spark);
        frame.render_widget(Line::raw(right).right_aligned(), more);
    }
}

fn draw_spark(frame: &mut Frame<'_>, trace: &Trace, colour: Color, area: Rect) {
    let history = trace.history(area.width.into());
    // What is new comes in from the right.
    let room = area.width.saturating_sub(history.len() as u16);
    let area = Rect { x: area.x + room, width: area.width - room, ..area };
    frame.render_widget(Sparkline::default().data(history).style(colour), area);
}

fn columns(line: Rect) -> [Rect; 7] {
    let parts = COLUMNS.map(Constraint::Length).into_iter().chain([Constraint::Min(1)]);
    Layout::horizontal(parts).spacing(1).areas(line)
}

fn draw_headings(frame: &mut Frame<'_>, area: Rect) {
    frame.buffer_mut().set_style(area, Style::new().add_modifier(Modifier::REVERSED));
    for (place, (heading, area)) in HEADINGS.into_iter().zip(columns(area)).enumerate() {
        frame.render_widget(aligned(place, heading.to_owned()), area);
    }
}

/// Numbers stand to the right.
fn aligned(place: usize, text: String) -> Line<'static> {
    if (3..6).contains(&place) { Line::raw(text).right_aligned() } else { Line::raw(text) }
}

fn draw_list(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let height = usize::from(area.height).max(1);
    // Whole pages, so that nothing moves but the cursor.
    let first = model.cursor() / height * height;
    for (place, (row, line)) in model.rows().skip(first).zip(area.rows()).enumerate() {
        let areas = columns(line);
        let trace = model.trace_of(row.key());
        for (column, (text, area)) in cells(&row, trace).into_iter().zip(areas).enumerate() {
            let text = aligned(column, shortened(&text, area.width.into()));
            let text = if column == 1 { text.style(colour(&row)) } else { text };
            frame.render_widget(text, area);
        }
        if let Some(trace) = trace {
            draw_spark(frame, trace, Color::Cyan, areas[6]);
        }
        if first + place == model.cursor() {
            // But for the sparkline, which would be its own opposite.
            let line = Rect { width: areas[6].x - line.x, ..line };
            frame.buffer_mut().set_style(line, Style::new().add_modifier(Modifier::REVERSED));
        } else if row.backend.is_none() {
            frame.buffer_mut().set_style(line, Style::new().add_modifier(Modifier::BOLD));
        }
    }
}

fn cells(row: &Row<'_>, trace: Option<&Trace>) -> [String; 6] {
    let packets = known(trace.and_then(|trace| trace.last));
    let bits = known(trace.and_then(|trace| trace.bytes).map(|bytes| bytes * 8.0));
    match row.backend {
        Some(of) => {
            let flows = amount(of.flows as f64);
            [
                format!("  {}", printable(&of.id)),
                of.state.clone(),
                of.health.clone(),
                flows,
                packets,
                bits,
            ]
        }
        None => {
            let service = row.service;
            let active = format!("{}/{}", service.active, service.backends.len());
            let flows: u64 = service.backends.iter().map(|backend| backend.flows).sum();
            let flows = amount(flows as f64);
            [service.name.clone(), service.state.clone(), active, flows, packets, bits]
        }
    }
}

fn colour(row: &Row<'_>) -> Color {
    match row.backend.map_or(&row.service.state, |backend| &backend.state).as_str() {
        "active" | "serving" => Color::Green,
        "draining" | "disabled" | "standby" | "no-weight" | "empty" => Color::Yellow,
        _ => Color::Red,
    }
}

/// The row that is chosen, in words: who it is, and why it takes no new flows.
fn describe(model: &Model) -> Text<'static> {
    let Some(Row { service, backend }) = model.selected() else {
        return Text::default();
    };
    let Some(of) = backend else {
        let (all, active) = (service.backends.len(), service.active);
        let words = format!(" {}: {active} of {all} backends take new flows", service.name);
        return Text::raw(words);
    };
    let (service_name, id) = (&service.name, printable(&of.id));
    let (weight, neighbour) = (of.weight, &of.neighbour);
    let who = format!(" {service_name} {id}: weight {weight}, neighbour {neighbour}");
    let why = of.why.as_ref().map_or_else(
        || Line::raw(" takes new flows"),
        |why| Line::raw(format!(" {}", printable(why))).style(colour(&Row { service, backend })),
    );
    let probes = (of.probes > 0).then(|| {
        let took = of
            .probe
            .map_or(String::new(), |took| format!("the last took {:.1} ms, ", took * 1000.0));
        let [all, failed] = [of.probes, of.failed].map(|count| amount(count as f64));
        Line::raw(format!(" probes: {took}{failed} of {all} failed"))
    });
    Text::from_iter([Some(Line::raw(who)), Some(why), probes].into_iter().flatten())
}

fn drops(model: &Model) -> Paragraph<'static> {
    let each = model.reasons().into_iter().map(|(reason, count, rate)| {
        let rate = rate.filter(|rate| *rate > 0.0);
        let rate = rate.map_or(String::new(), |rate| format!(" ({}/s)", amount(rate)));
        format!("{reason} {}{rate}", amount(count as f64))
    });
    let all: Vec<_> = each.collect();
    let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
    Paragraph::new(format!(" drops and losses: {all}")).wrap(Wrap { trim: false })
}

fn footer(model: &Model) -> Line<'static> {
    match &model.note {
        Some(Ok(done)) => {
            Line::from_iter([Span::raw(format!("{KEYS}   ")), Span::raw(done.clone()).green()])
        }
        Some(Err(why)) => Line::raw(format!(" {}", printable(why))).red(),
        None => Line::raw(KEYS),
    }
}

/// A number in at most five characters, as far as it has a letter.
pub fn amount(number: f64) -> String {
    let units = ["", "k", "M", "G", "T", "P", "E"];
    let mut scaled = number;
    for unit in units {
        // What would be rounded up to the next one belongs there.
        if scaled < 999.5 {
            let whole = scaled >= 99.95 || (unit.is_empty() && scaled.fract() == 0.0);
            return if whole { format!("{scaled:.0}{unit}") } else { format!("{scaled:.1}{unit}") };
        }
        scaled /= 1000.0;
    }
    "many".to_owned()
}

fn known(rate: Option<f64>) -> String {
    rate.map_or("-".to_owned(), amount)
}

/// What comes from elsewhere does not move the cursor of a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept = text.chars().take(width.saturating_sub(1));
    kept.chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::super::model::News;
    use super::super::sample::Sample;
    use super::super::sample::tests::{HEALTH, METRICS};
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent};
    use std::time::Duration;

    fn shown(model: &Model, (width, height): (u16, u16)) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model, "127.0.0.1:9100")).unwrap();
        let buffer = terminal.backend().buffer();
        let lines = buffer.content.chunks(usize::from(width));
        lines.map(|line| line.iter().map(|cell| cell.symbol()).collect()).collect()
    }

    fn two_samples() -> Model {
        let mut model = Model::default();
        let later = METRICS
            .replace("worker=\"0\"} 600", "worker=\"0\"} 1600")
            .replace("web-1\"} 980", "web-1\"} 2980")
            .replace("web-1\"} 58000", "web-1\"} 308000")
            .replace("reason=\"no-service\"} 15", "reason=\"no-service\"} 17");
        for (seconds, metrics) in [(1, METRICS), (3, &later)] {
            let at = Duration::from_secs(seconds);
            model.take(News::Sample(Sample::read(at, metrics, HEALTH).unwrap()));
        }
        model
    }

    #[test]
    fn all_there_is_to_see_is_in_80_by_24() {
        let mut model = two_samples();
        model.key(KeyEvent::from(KeyCode::End));
        model.key(KeyEvent::from(KeyCode::Up));
        model.take(News::Done(Ok("web-2: draining".to_owned())));
        let lines = shown(&model, (80, 24));
        let expected = [
            " dsrlb 127.0.0.1:9100   serving   snapshot 7   workers 2",
            " received     500/s                                            █        25 flows",
            " forwarded      0/s                                                      0 bit/s",
            " dropped        1/s                                            █       22 in all",
            " lost           0/s                                                     4 in all",
            "SERVICE, BACKEND       STATE       HEALTH      FLOWS   PKT/S   BIT/S HISTORY",
            "10.0.0.100:80/tcp      serving     1/2            25    1.0k    1.0M           █",
            "  web-1                active      up             25    1.0k    1.0M           █",
            "  web-2                unhealthy   down            0       0       0",
            "[fd00::100]:443/tcp    empty       0/0             0       -       -",
        ];
        for (line, expected) in lines.iter().zip(expected) {
            assert_eq!(line.trim_end(), expected, "in\n{}", lines.join("\n"));
        }
        let end: Vec<_> = lines[18..].iter().map(|line| line.trim_end()).collect();
        let expected = [
            " 10.0.0.100:80/tcp web-2: weight 1, neighbour resolved",
            " unhealthy: connection refused",
            "",
            " drops and losses: no-service 22 (1/s), receive ring-full 3, transmit failed 1",
            "",
            " ↑↓ choose   d drain   u undrain   q quit   web-2: draining",
        ];
        assert_eq!(end, expected, "in\n{}", lines.join("\n"));
    }

    #[test]
    fn how_probes_went_is_said_of_the_chosen_backend() {
        let mut model = two_samples();
        model.key(KeyEvent::from(KeyCode::Down));
        let expected = [
            " 10.0.0.100:80/tcp web-1: weight 2, neighbour resolved",
            " takes new flows",
            " probes: the last took 1.2 ms, 2 of 9 failed",
        ];
        let lines = shown(&model, (80, 24));
        assert_eq!(lines[18..21].iter().map(|line| line.trim_end()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_chosen_row_is_in_sight_however_many_there_are() {
        let mut model = Model::default();
        let many: String =
            (0..1000).map(|n| format!("dsrlb_service_state{{service=\"s{n}\"}} 1\n")).collect();
        let sample =
            Sample::read(Duration::from_secs(1), &("dsrlb_up 1\n".to_owned() + &many), "{}");
        model.take(News::Sample(sample.unwrap()));
        assert!(shown(&model, (80, 24)).iter().any(|line| line.starts_with("s0 ")));
        model.key(KeyEvent::from(KeyCode::End));
        assert!(shown(&model, (80, 24)).iter().any(|line| line.starts_with("s999 ")));
    }

    #[test]
    fn silence_is_said_and_what_was_known_stays() {
        let mut model = two_samples();
        model.take(News::Silent("no answer: connection refused".to_owned()));
        let lines = shown(&model, (80, 24));
        assert!(
            lines[0].contains("127.0.0.1:9100   no answer: connection refused"),
            "{}",
            lines[0]
        );
        assert!(!lines[0].contains("serving") && lines[7].contains("web-1"));
    }

    #[test]
    fn no_size_and_no_name_breaks_it() {
        let mut model = two_samples();
        model.take(News::Done(Err("re\u{1b}[2Jfused\n".to_owned())));
        for size in [(1, 1), (3, 30), (80, 5), (200, 60), (20, 12)] {
            assert!(shown(&model, size).iter().all(|line| !line.contains('\u{1b}')), "{size:?}");
        }
        assert_eq!(shortened("[fd00::1234:5678]:443/tcp", 10), "[fd00::12…");
    }

    #[test]
    fn amounts_are_short() {
        for (number, expected) in [
            (0.0, "0"),
            (0.04, "0.0"),
            (7.0, "7"),
            (7.25, "7.2"),
            (99.96, "100"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (12_345.0, "12.3k"),
            (1e6, "1.0M"),
            (u64::MAX as f64, "18.4E"),
        ] {
            assert_eq!(amount(number), expected);
        }
    }
}
