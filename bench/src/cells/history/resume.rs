//! Clients that come back for the messages that they missed: the cost of a resume, and its effect on the others.

use std::net::SocketAddr;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use super::KEPT;
use crate::cell::{Cell, DIALECT, Line, Stage};
use crate::load::api::Api;
use crate::load::drive::{DELIVERY_TIMEOUT, Timing, open};
use crate::load::generator::{Dial, FirstRequest, Generator};
use crate::load::payload::{Mark, SIZE};
use crate::load::traffic::{Shape, Traffic};
use crate::load::wire::{Item, To, uid};
use crate::results::bar::{Bar, By, Must};
use crate::results::sample::{Figure, Sample, Unit, Work};
use crate::subject::meter::Meter;
use crate::subject::{Contender, Subject};

pub(crate) struct Resume;

const PLAIN: &str = "reconnect";
const RESUMED: &str = "reconnect and 10 messages";
const CALM: &str = "others, calm";
const BESIDE: &str = "others, 10 000 resume in 10 s";
/// Messages that each client missed.
const MISSED: u32 = 10;
/// Pushes a second to the clients that stay.
const RATE: f64 = 1_000.0;
/// Clients that stay.
const OTHERS: u32 = 500;
/// Time in which all clients come back.
const WITHIN: Duration = Duration::from_secs(10);
/// Groups of clients that come back, one after the other.
const GROUPS: u32 = 100;

impl Cell for Resume {
    fn name(&self) -> &'static str {
        "resume"
    }

    fn about(&self) -> &'static str {
        "reconnects with and without 10 missed messages, and the latency of the others while 10 000 clients resume"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![KEPT]
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        let count = stage.connections(2_000, 9_000);
        let mut lines = vec![(PLAIN, come_back(stage, contender, count, 0)?)];
        lines.push((RESUMED, come_back(stage, contender, count, MISSED)?));

        let subject = stage.workspace.start(contender)?;
        let count = stage.connections(2_000, 10_000);
        let mut others = stage.workspace.dial(&subject, OTHERS + count, &[DIALECT], |_| Vec::new())?;
        let away = Dial { requests: others.requests.split_off(OTHERS as usize), ..others.clone() };
        let away = resuming(&subject, away, OTHERS, MISSED)?;
        let mut generator = Generator::new()?;
        generator.connect(&others)?;
        let traffic = || Traffic::new(Shape::Unicast { batch: 1 }, subject.wire, OTHERS, 0);
        lines.push((CALM, open(&mut generator, &subject, &mut traffic(), RATE, stage.timing())?));
        let openings: Vec<Vec<u8>> = away.requests.into_iter().map(|request| request.opening).collect();
        let address = away.address;
        let returning = thread::spawn(move || return_in_groups(address, &openings, u64::from(count * MISSED)));
        let timing = Timing { warm: Duration::ZERO, window: WITHIN };
        let mut sample = open(&mut generator, &subject, &mut traffic(), RATE, timing)?;
        match returning.join().ok().context("the returning clients panicked")? {
            Ok(faults) => sample.invalid.extend(faults),
            Err(error) => sample.invalid.push(format!("not all clients recovered: {error:#}")),
        }
        lines.push((BESIDE, sample));
        Ok(lines)
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = |name, figure, of, by, bar| Bar { name, figure, of: (of, KEPT.name), by, must: Must::BeAtMost(bar) };
        vec![
            bar(
                "resume of 10 messages beyond the reconnect, µs of server CPU",
                Figure::CpuMicros,
                RESUMED,
                By::Above(PLAIN, KEPT.name),
                60.0,
            ),
            bar("p99 of the others while 10 000 resume / calm", Figure::P99, BESIDE, By::Row(CALM, KEPT.name), 3.0),
        ]
    }
}

/// Connects `count` clients that missed `missed` messages each, and waits until each has them.
fn come_back(stage: &Stage<'_>, contender: Contender, count: u32, missed: u32) -> anyhow::Result<Sample> {
    let subject = stage.workspace.start(contender)?;
    let dial = stage.workspace.dial(&subject, count, &[DIALECT], |_| Vec::new())?;
    let dial = if missed == 0 { dial } else { resuming(&subject, dial, 0, missed)? };
    let mut generator = Generator::new()?;
    let meter = Meter::start(&subject)?;
    generator.connect(&dial)?;
    receive(&mut generator, u64::from(count * missed))?;
    let cost = meter.stop(&subject)?;
    let work = Work { unit: Unit::Connection, count: u64::from(count), ..Work::default() };
    let invalid = faults(&generator).into_iter().collect();
    Ok(Sample { work, cost, memory: subject.memory()?, invalid, ..Sample::default() })
}

/// Connects the clients in groups within [`WITHIN`], and waits until each has its messages. Returns what went wrong.
fn return_in_groups(address: SocketAddr, openings: &[Vec<u8>], expected: u64) -> anyhow::Result<Option<String>> {
    let mut generator = Generator::new()?;
    let begun = Instant::now();
    let size = openings.len().div_ceil(GROUPS as usize).max(1);
    for (number, group) in (1..).zip(openings.chunks(size)) {
        let requests = group.iter().cloned().map(FirstRequest::from).collect();
        generator.connect(&Dial { address, trust: None, requests, awaits_bind: true })?;
        generator.idle((WITHIN * number / GROUPS).saturating_sub(begun.elapsed()))?;
    }
    receive(&mut generator, expected)?;
    Ok(faults(&generator))
}

/// Waits until the receivers have `expected` messages.
fn receive(generator: &mut Generator, expected: u64) -> anyhow::Result<()> {
    let begun = Instant::now();
    while generator.tally.deliveries < expected {
        generator.turn(Some(Duration::from_millis(100)))?;
        let came = generator.tally.deliveries;
        anyhow::ensure!(begun.elapsed() < DELIVERY_TIMEOUT, "{came} of {expected} missed messages came");
    }
    Ok(())
}

fn faults(generator: &Generator) -> Option<String> {
    let faults = generator.tally.faults;
    (!faults.is_none()).then(|| format!("resumes lost or repeated messages: {faults:?}"))
}

/// Pushes `missed` messages to each client of the plan, and lets it ask for them in its handshake. The first client is
/// number `first`.
fn resuming(subject: &Subject, mut dial: Dial, first: u32, missed: u32) -> anyhow::Result<Dial> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let api = Api { address: subject.publish };
    for (number, request) in (first..).zip(&mut dial.requests) {
        let page = runtime.block_on(api.get(&format!("/history?stream=u:{}&limit=0", uid(number))))?;
        let epoch = page["data"]["epoch"].as_str().with_context(|| format!("expected a position, got {page}"))?;
        ask_for(request, &json!([["u", epoch, 0, 0]]).to_string())?;
    }
    let users = first..first + u32::try_from(dial.requests.len())?;
    publish(subject, &users, missed)?;
    Ok(dial)
}

/// Adds `resume` to the query of an upgrade.
fn ask_for(request: &mut FirstRequest, resume: &str) -> anyhow::Result<()> {
    let end = request.opening.windows(5).position(|part| part == b" HTTP").context("an upgrade request")?;
    let escaped: String = resume.bytes().map(|byte| format!("%{byte:02X}")).collect();
    request.opening.splice(end..end, format!("&resume={escaped}").into_bytes());
    Ok(())
}

/// Pushes `missed` numbered messages to each of these users, a hundred in one request.
fn publish(subject: &Subject, users: &Range<u32>, missed: u32) -> anyhow::Result<()> {
    let mut publisher = Generator::new()?;
    publisher.open_pipes(subject.publish, subject.wire, 1)?;
    let to_all = |sequence| {
        users.clone().map(move |user| Item { to: To::User(user), mark: Mark { sequence, stamp: 0 }, size: SIZE })
    };
    let messages: Vec<Item> = (0..missed).flat_map(to_all).collect();
    for list in messages.chunks(100) {
        publisher.send(0, |out| subject.wire.request(out, list, users.end))?;
        while publisher.in_flight(0) > 0 {
            publisher.turn(Some(Duration::from_millis(100)))?;
        }
    }
    Ok(())
}
