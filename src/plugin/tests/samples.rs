//! The built components of `plugins/`: components of a real toolchain load, answer, and fail as they should.

use std::path::{Path, PathBuf};

use super::{Bench, config, envelope, rejected};
use crate::message::{Entries, Envelope, Message};
use crate::plugin::check::check_dir;
use crate::plugin::{Judgement, PluginHost};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins").join(name)
}

fn test_guest(name: &str) -> Vec<u8> {
    std::fs::read(folder("testing/dist").join(format!("{name}.wasm"))).unwrap()
}

#[tokio::test]
async fn committed_samples_pass_the_check() {
    let reports = check_dir(&config(&folder("dist"))).await.unwrap();
    assert!(reports.len() >= 3);
    for report in reports {
        assert_eq!(report.faults, Vec::<String>::new(), "{}", report.name);
    }
}

#[tokio::test]
async fn a_filter_of_a_real_toolchain_reads_and_writes_every_field() {
    let bench = Bench::with(&[("stamp.wasm", &test_guest("stamp-v1")), ("noop.wasm", &test_guest("noop"))]).await;
    let text = |key: &str| (0..10).map(|n| (format!("{key}{n}"), "云雀".to_owned())).collect::<Entries>();
    let whole = Message {
        id: 7,
        action: "chat".into(),
        content: text("c"),
        sender: "1078".into(),
        receiver: "1074".into(),
        extra: text("e"),
        title: "标题".into(),
        image: "https://example/a.jpg".into(),
        format: "0".into(),
        timestamp: 1,
    };
    let mut batch = [envelope("chat")];
    batch[0].message = whole.clone().into();
    let judged = bench.host.judge(&mut batch).await;
    assert_eq!(judged, [Judgement::Pass { replaced_by: vec!["stamp".into()] }]);
    let mut stamped = whole;
    stamped.extra.insert("version", "v1");
    assert_eq!(*batch[0].message, stamped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_of_a_real_toolchain_fails_within_bounds() {
    let bench = Bench::with(&[("f.wasm", &test_guest("fault-filter"))]).await;
    for fault in ["trap", "spin", "hog", "overflow"] {
        let mut batch = [Envelope { back_end: Some(fault.into()), ..envelope(fault) }];
        let judged = bench.host.judge(&mut batch).await;
        assert_eq!(rejected(&judged[0]), Some("503"), "{fault}");
        let judged = bench.host.judge(&mut [envelope("chat")]).await;
        assert_eq!(judged, [super::passed()], "{fault}");
    }
}
