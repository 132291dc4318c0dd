//! Counters of published messages.

use metrics::{Counter, counter};

use crate::fate::Fate;
use crate::message::Origin;
use crate::telemetry::names;

const ORIGINS: [Origin; 4] = [Origin::Client, Origin::Http, Origin::Broker, Origin::Plugin];
const FATES: [&str; 7] = ["accepted", "rejected", "dropped", "too_large", "too_many_hops", "unavailable", "unjudged"];

/// One counter per origin and fate, looked up once.
pub(super) struct Meters([[Counter; FATES.len()]; ORIGINS.len()]);

impl Meters {
    pub(super) fn new() -> Self {
        let of =
            |origin: Origin| FATES.map(|fate| counter!(names::PUBLISHED, "origin" => origin.as_str(), "fate" => fate));
        Self(ORIGINS.map(of))
    }

    pub(super) fn count(&self, origin: Origin, fate: &Fate) {
        let fate = match fate {
            Fate::Accepted { .. } => 0,
            Fate::Rejected { .. } => 1,
            Fate::Dropped { .. } => 2,
            Fate::TooLarge(_) | Fate::TooLargeForBroker { .. } => 3,
            Fate::TooManyHops => 4,
            Fate::Unavailable => 5,
            Fate::Unjudged(_) => 6,
        };
        let origin = match origin {
            Origin::Client => 0,
            Origin::Http => 1,
            Origin::Broker => 2,
            Origin::Plugin => 3,
        };
        self.0[origin][fate].increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn each_origin_and_fate_has_its_own_line() {
        let metrics = Metrics::install();
        let meters = Meters::new();
        for origin in ORIGINS {
            for fate in [Fate::TooManyHops, Fate::Unavailable, Fate::Dropped { plugin: "p".into() }] {
                meters.count(origin, &fate);
            }
        }
        let page = metrics.render();
        for origin in ORIGINS {
            for fate in ["too_many_hops", "unavailable", "dropped"] {
                let line = format!("skylark_published_total{{origin=\"{}\",fate=\"{fate}\"}} ", origin.as_str());
                let value =
                    page.lines().find_map(|l| l.strip_prefix(&line)).unwrap_or_else(|| panic!("no {line}: {page}"));
                assert_ne!(value, "0", "{line}");
            }
        }
    }
}
