//! Each transition, from each state that it may begin in. Versions are names.

use super::*;

type Plugin = Entry<&'static str>;

fn name() -> Arc<str> {
    "p".into()
}

fn share() -> Share {
    Share::parse("5%").unwrap()
}

fn accept(before: Option<Plugin>, version: &'static str) -> Plugin {
    Plugin::accept(before, &name(), version, None, |_| true)
}

/// v1 serves, and v2 serves a share.
fn on_canary() -> Plugin {
    Plugin::accept(Some(accept(None, "v1")), &name(), "v2", Some(share()), |_| true)
}

fn fail_closed() -> FailClosed {
    FailClosed { roles: vec![Role::Auth], confirmed: true, order: 7, rules: Rules::default() }
}

fn refusal() -> Rejected {
    Rejected { hash: "h".into(), reason: "broken".into() }
}

/// Name, live version, canary, previous version, version on probation.
type Shown = (&'static str, Option<&'static str>, Option<&'static str>, Option<&'static str>, Option<&'static str>);

fn shown(entry: &Plugin) -> Shown {
    let canary = entry.canary().map(|canary| canary.version);
    let on_probation = entry.probation().map(|(version, _)| *version);
    (entry.state.public_state().as_str(), entry.live().copied(), canary, entry.previous().copied(), on_probation)
}

#[tokio::test(start_paused = true)]
async fn accept_starts_a_probation_if_there_is_a_version_to_go_back_to() {
    let one = accept(None, "v1");
    assert_eq!(shown(&one), ("live", Some("v1"), None, None, None));
    let two = accept(Some(one), "v2");
    assert_eq!(shown(&two), ("live", Some("v2"), None, Some("v1"), Some("v2")));
    for before in [
        Plugin::missing(&name(), Some(fail_closed())),
        Plugin::refused(&name(), None),
        Plugin::disable_by_manifest(&name()),
    ] {
        assert_eq!(shown(&accept(Some(before), "v1")), ("live", Some("v1"), None, None, None));
    }
}

#[tokio::test(start_paused = true)]
async fn accept_passes_over_a_version_with_an_open_circuit() {
    let two = accept(Some(accept(None, "v1")), "v2");
    let three = Plugin::accept(Some(two), &name(), "v3", None, |version| *version != "v2");
    assert_eq!(shown(&three), ("live", Some("v3"), None, Some("v1"), Some("v3")));
    let only = Plugin::accept(Some(accept(None, "v1")), &name(), "v2", None, |_| false);
    assert_eq!(only.previous(), Some(&"v1"), "there is no older one");
}

#[tokio::test(start_paused = true)]
async fn accept_with_a_share_makes_a_canary_only_beside_a_live_version() {
    assert_eq!(shown(&on_canary()), ("live", Some("v1"), Some("v2"), None, Some("v2")));
    let alone = Plugin::accept(None, &name(), "v1", Some(share()), |_| true);
    assert_eq!(shown(&alone), ("live", Some("v1"), None, None, None));
    let third = Plugin::accept(Some(on_canary()), &name(), "v3", Some(share()), |_| true);
    assert_eq!(shown(&third), ("live", Some("v1"), Some("v3"), None, Some("v3")), "v2 is dropped");
}

#[tokio::test(start_paused = true)]
async fn accept_forgets_the_notes_of_earlier_files() {
    let mut one = accept(None, "v1");
    one.refuse(refusal());
    one.lost = Some(refusal());
    let two = accept(Some(one), "v2");
    assert_eq!((two.rejected, two.lost), (None, None));
}

#[tokio::test(start_paused = true)]
async fn promote_lets_the_canary_serve_all_on_a_new_probation() {
    let mut entry = on_canary();
    assert_eq!(entry.promote(500), Some("v1"));
    assert_eq!(shown(&entry), ("live", Some("v2"), None, Some("v1"), Some("v2")));
    let rules = ProbationRules { calls: 10, time: Duration::ZERO };
    let (_, probation) = entry.probation().unwrap();
    assert!(!probation.is_over(rules, Instant::now(), 509) && probation.is_over(rules, Instant::now(), 510));
    assert_eq!(entry.promote(600), None, "it is no canary any more");
}

#[tokio::test(start_paused = true)]
async fn end_probation_keeps_the_previous_version() {
    let mut entry = accept(Some(accept(None, "v1")), "v2");
    entry.end_probation();
    assert_eq!(shown(&entry), ("live", Some("v2"), None, Some("v1"), None));
    let mut canary = on_canary();
    canary.end_probation();
    assert_eq!(canary, on_canary(), "a canary is promoted first");
}

#[tokio::test(start_paused = true)]
async fn roll_back_restores_the_version_before() {
    let mut canary = on_canary();
    assert_eq!((canary.rollback_target().copied(), canary.roll_back()), (Some("v1"), Some("v2")));
    assert_eq!(shown(&canary), ("live", Some("v1"), None, None, None));
    assert_eq!((canary.rollback_target().copied(), canary.roll_back()), (None, None), "there is no earlier one");

    let on_probation = accept(Some(accept(None, "v1")), "v2");
    let mut after_probation = on_probation.clone();
    after_probation.end_probation();
    for mut entry in [on_probation, after_probation] {
        assert_eq!((entry.rollback_target().copied(), entry.roll_back()), (Some("v1"), Some("v2")));
        assert_eq!(shown(&entry), ("live", Some("v1"), None, None, None));
    }
    for mut entry in
        [Plugin::missing(&name(), None), Plugin::disable_by_manifest(&name()), accept(None, "v1").disable_by_operator()]
    {
        assert_eq!(entry.roll_back(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn disable_keeps_the_versions_without_their_probation_for_enable() {
    let disabled = accept(Some(accept(None, "v1")), "v2").disable_by_operator();
    assert_eq!(shown(&disabled), ("disabled", None, None, None, None));
    assert_eq!(shown(&disabled.enable()), ("live", Some("v2"), None, Some("v1"), None));
    let canary = on_canary().disable_by_operator();
    assert_eq!(
        canary.before_disable().map(shown),
        Some(("live", Some("v1"), None, None, None)),
        "the canary is dropped"
    );

    let mut refused = Plugin::refused(&name(), Some(fail_closed()));
    refused.refuse(refusal());
    let disabled = refused.clone().disable_by_operator();
    assert_eq!((disabled.fail_closed(), &disabled.rejected), (None, &None), "no role refuses for a disabled plugin");
    assert_eq!(disabled.enable(), refused);
    assert_eq!(accept(None, "v1").enable(), accept(None, "v1"), "an entry that is not disabled stays");
}

#[tokio::test(start_paused = true)]
async fn disable_by_manifest_drops_every_version() {
    assert_eq!(shown(&Plugin::disable_by_manifest(&name())), ("disabled", None, None, None, None));
    assert!(Plugin::disable_by_manifest(&name()).before_disable().is_none());
}

#[tokio::test(start_paused = true)]
async fn refuse_keeps_the_serving_version_and_the_fail_closed_roles() {
    let mut serving = accept(None, "v1");
    serving.refuse(refusal());
    assert_eq!((shown(&serving).0, &serving.rejected), ("live", &Some(refusal())));
    let mut missing = Plugin::missing(&name(), Some(fail_closed()));
    missing.refuse(refusal());
    assert_eq!((missing.state.public_state().as_str(), missing.fail_closed()), ("rejected", Some(&fail_closed())));
    let mut off = Plugin::disable_by_manifest(&name());
    off.refuse(refusal());
    assert_eq!((off.state.public_state().as_str(), off.fail_closed()), ("rejected", None));
    let mut disabled = accept(None, "v1").disable_by_operator();
    disabled.refuse(refusal());
    assert_eq!(disabled.state.public_state().as_str(), "disabled");
}

#[test]
fn missing_keeps_its_fail_closed_roles() {
    let missing = Plugin::missing(&name(), Some(fail_closed()));
    assert!(missing.is_missing());
    assert_eq!(
        (missing.state.public_state().as_str(), missing.fail_closed(), missing.live()),
        ("missing", Some(&fail_closed()), None)
    );
}

#[test]
fn serving_has_nothing_to_go_back_to() {
    assert_eq!(shown(&Plugin::serving(&name(), "v1")), ("live", Some("v1"), None, None, None));
}

#[tokio::test(start_paused = true)]
async fn a_probation_takes_calls_and_time_and_ends_in_any_case() {
    let rules = ProbationRules { calls: 1_000, time: Duration::from_secs(30) };
    let probation = Probation::new(500);
    let over = |seconds, calls| probation.is_over(rules, probation.since + Duration::from_secs(seconds), calls);
    assert!(!over(29, 1_000_000), "too early");
    assert!(!over(30, 1_499), "too few calls");
    assert!(over(30, 1_500));
    assert!(!over(599, 500));
    assert!(over(600, 500), "it gets no calls");
}
