//! What `top` reads, keeps and draws, and which commands the appliance takes; `netns_top` has the whole.

#[path = "../../examples/endpoint/command.rs"]
mod command;
#[path = "../../examples/top/draw.rs"]
mod draw;
#[path = "../../examples/top/exposition.rs"]
mod exposition;
#[path = "../../examples/top/model.rs"]
#[allow(dead_code)]
mod model;
#[path = "../../examples/endpoint/request.rs"]
#[allow(dead_code)]
mod request;
#[path = "../../examples/top/sample.rs"]
mod sample;
#[path = "../../examples/top/trace.rs"]
mod trace;
