//! Counts and times requests by route. Handles of frequent metrics are created once.

use std::time::Duration;

use hyper::StatusCode;
use metrics::{Counter, Histogram};

use super::routes::{ROUTES, Route};
use crate::telemetry::names;

/// One meter per route, and one for unknown paths.
pub(super) struct Meters(Vec<Meter>);

struct Meter {
    label: &'static str,
    ok: Counter,
    seconds: Histogram,
}

impl Meters {
    pub(super) fn new() -> Self {
        Self(ROUTES.iter().map(|r| r.path).chain([NO_ROUTE]).map(Meter::new).collect())
    }

    pub(super) fn record(&self, route: Option<&'static Route>, status: StatusCode, took: Duration) {
        let index = route.and_then(|route| ROUTES.iter().position(|r| std::ptr::eq(r, route)));
        let meter = &self.0[index.unwrap_or(ROUTES.len())];
        meter.seconds.record(took);
        if status == StatusCode::OK {
            meter.ok.increment(1);
        } else {
            count(meter.label, status).increment(1);
        }
    }
}

impl Meter {
    fn new(label: &'static str) -> Self {
        let seconds = metrics::histogram!(names::HTTP_SECONDS, "route" => label);
        Self { label, ok: count(label, StatusCode::OK), seconds }
    }
}

fn count(label: &'static str, status: StatusCode) -> Counter {
    metrics::counter!(names::HTTP_REQUESTS, "route" => label, "status" => status.as_str().to_owned())
}

/// Label of requests with an unknown path or method.
const NO_ROUTE: &str = "none";
