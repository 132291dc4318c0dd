//! Bars of Skylark relative to a peer. Uses rows of results; independent of protocols.

use super::Peer;
use crate::cells::{fan_out, idle, latency, unicast};
use crate::results::Results;
use crate::results::bar::{Bar, By, Must, Verdict};
use crate::results::sample::Figure;
use crate::subject::SKYLARK;

/// All bars with both sides measured.
pub(in super::super) fn bars(peer: &'static Peer, results: &Results) -> Vec<Verdict> {
    let per_cpu = |cell, line, least| (cell, line, Figure::PerCpuSecond, Must::BeAtLeast(least));
    let all = [
        ("fan-out 10k, one at a time", per_cpu(fan_out::LARGE.name, fan_out::ONE_AT_A_TIME, 1.8)),
        ("fan-out 10k, burst of 16 in one request", per_cpu(fan_out::LARGE.name, fan_out::BURST, 12.0)),
        ("unicast, batches of 100", per_cpu(unicast::NAME, unicast::BATCHES, 2.0)),
        ("unicast, single POST", per_cpu(unicast::NAME, unicast::SINGLE, 2.0)),
        (
            "user-space memory of an idle connection",
            (idle::NAME, idle::WAITING, Figure::AnonymousPerConnection, Must::BeAtMost(0.1)),
        ),
        ("p99 unicast at 5 000/s", (latency::NAME, latency::FIXED, Figure::P99, Must::BeAtMost(1.0))),
    ];
    let judge = |(name, (cell, line, figure, must))| {
        let by = By::Row(line, peer.name.as_str());
        let verdict = Bar { name, figure, of: (line, SKYLARK.name), by, must }.judge(cell, results)?;
        Some(Verdict { name: format!("{name} / {}", peer.name), ..verdict })
    };
    all.into_iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::sample::Sample;

    #[test]
    fn measured_cell_gets_a_bar_with_the_name_of_the_peer() {
        let peer: &'static Peer =
            Box::leak(Box::new(Peer::parse("centrifugo=ws://127.0.0.1:1,key=k,secret=s").unwrap()));
        let mut results = Results::default();
        for (contender, count) in [("skylark", 300), ("centrifugo", 100)] {
            results.add(unicast::NAME, unicast::BATCHES, contender, Sample::of(count, 1.0));
        }
        let bars = bars(peer, &results);
        assert_eq!(bars.len(), 1);
        assert_eq!((bars[0].name.as_str(), bars[0].value), ("unicast, batches of 100 / centrifugo", 3.0));
        assert!(bars[0].ok);
    }
}
