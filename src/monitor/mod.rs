//! A run as Prometheus sees it while it lasts: how far it is, how long it takes yet, how its GPU is doing, what came out.
//!
//! `bubblebench measure --metrics ADDR` starts it ([`crate::cli`]). It hears of cases as the suite's
//! [`Observer`](crate::suite::observer::Observer), reads the gates' counts from [`crate::corun`] and the newest reading
//! that the thread of [`crate::machine::telemetry`] took anyway, and asks no sensor itself.
//!
//! * [`address`]: what may stand behind `--metrics`, and where that listens.
//! * [`values`]: the run's state; [`gpu`] the part that is the GPU's. [`metrics`] is the list of what is served.
//! * [`text`]: from values to Prometheus' text format or OpenMetrics.
//! * [`http`]: from a request's bytes to an answer. `server`: the one thread that serves, whoever connects.

pub mod address;
pub mod gpu;
pub mod http;
pub mod metrics;
mod server;
pub mod text;
pub mod values;

use crate::{Error, Result};
use http::{Request, Response};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use text::Format;
use values::RunValues;

/// Serves a run's values until it is dropped.
pub struct Monitor {
    values: Arc<RunValues>,
    _server: server::Server,
}

impl Monitor {
    /// Starts serving the values on a listener of [`address::bind`]; an error where no thread can be started.
    pub fn start(listener: TcpListener, values: Arc<RunValues>) -> Result<Monitor> {
        let served = Arc::clone(&values);
        let server = server::Server::start(listener, move |request| answer(request, &served));
        let cure = "raise the limit on threads (ulimit -u), or leave --metrics out";
        let server = server.map_err(|error| Error::machine(format!("metrics cannot be served: {error}"), cure))?;
        Ok(Monitor { values, _server: server })
    }

    /// What is served, which the run tells its news to.
    pub fn values(&self) -> &Arc<RunValues> {
        &self.values
    }
}

/// Where the page of a listener is.
pub fn url(address: SocketAddr) -> String {
    format!("http://{address}/metrics")
}

const FRONT: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<head><title>bubblebench</title></head>\n<body>\n\
    <h1>bubblebench</h1>\n<p>A run is being measured. <a href=\"/metrics\">/metrics</a> says how far it is, for \
    Prometheus.</p>\n</body>\n</html>\n";

fn answer(request: &Request, values: &RunValues) -> Response {
    if !request.reads {
        return Response::failure(405);
    }
    match request.path.as_str() {
        "/metrics" => {
            let format = Format::accepted(&request.accept);
            Response::new(200, format.content_type(), text::write(&values.families(), format))
        }
        "/" => Response::new(200, "text/html; charset=utf-8", FRONT.to_string()),
        _ => Response::failure(404),
    }
}
