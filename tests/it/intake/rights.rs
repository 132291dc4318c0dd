//! The minimal rights of an intake on its Redis, as in docs/reference/intakes.md, and the findings of `skylark check`.

use serde_json::json;

use super::{Kind, dead, dial, subscribers, until};
use crate::support::brokers::redis::{Redis, documented_rights};
use crate::support::gateway::Setup;
use crate::support::wire::Form;

/// The rights from the block of the document.
fn rights() -> Vec<String> {
    documented_rights("docs/reference/intakes.md", "intake").split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_documented_rights_are_enough() {
    for kind in Kind::ALL {
        let redis = Redis::start();
        let mut back_end = dial(&redis).await;
        let mut user = redis::cmd("ACL");
        user.arg("SETUSER").arg("intake").arg("on").arg(">a-long-password").arg("resetchannels").arg("-@all");
        let _: () = user.arg(rights()).query_async(&mut back_end).await.unwrap();
        let with_user = kind.yaml(&redis).replace("}]", ", user: intake, password: a-long-password}]");
        let gateway = Setup::default().yaml(&with_user).start();
        let mut client = gateway.connect("1074", Form::YunqueJson).await;
        if kind == Kind::Channel {
            subscribers(&back_end, 1).await;
        }
        kind.publish(&mut back_end, b"junk").await;
        kind.publish(&mut back_end, json!({"msg": [{"action": "chat"}]}).to_string().as_bytes()).await;
        assert_eq!(client.message().await["action"], "chat", "{kind:?}");
        until("the dead letter", || async { (dead(&mut back_end.clone()).await.len() == 1).then_some(()) }).await;
        until("readiness", || async { (gateway.get("/health/ready").await.status == 200).then_some(()) }).await;
        if kind == Kind::Stream {
            until("the acknowledged records to be trimmed", || async {
                let info: Vec<redis::Value> =
                    redis::cmd("XINFO").arg("GROUPS").arg("chat").query_async(&mut back_end.clone()).await.unwrap();
                (info.len() == 1).then_some(())
            })
            .await;
        }
        let refused: Vec<redis::Value> = redis::cmd("ACL").arg("LOG").query_async(&mut back_end).await.unwrap();
        assert!(refused.is_empty(), "{kind:?}: {refused:?}");
    }
}

/// Runs `skylark check`; returns true if it succeeds, and its output.
fn check(yaml: &str) -> (bool, String) {
    let folder = Setup::default().no_plugins().yaml(yaml).prepare();
    let output = folder.command("check").output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

#[tokio::test]
async fn check_says_what_is_wrong_with_an_intake() {
    for kind in Kind::ALL {
        let redis = Redis::start();
        let yaml = kind.yaml(&redis);
        let (good, said) = check(&yaml);
        assert!(good && said.contains("intake redis") && said.contains("chat: ok"), "{said}");
        let mut back_end = dial(&redis).await;
        let mut user = redis::cmd("ACL");
        user.arg("SETUSER").arg("narrow").arg("on").arg(">a-long-password").arg("~*").arg("+get").arg("+xlen");
        let _: () = user.query_async(&mut back_end).await.unwrap();
        let narrow = yaml.replace("}]", ", user: narrow, password: a-long-password}]");
        let (good, said) = check(&narrow);
        assert!(!good && said.contains("no permissions") && said.contains("1 in the intakes"), "{said}");
        let _: () = redis::cmd("SET").arg("chat").arg("x").query_async(&mut back_end).await.unwrap();
        let (good, said) = check(&yaml);
        assert_eq!(good, kind == Kind::Channel, "{said}");
        assert!(good || said.contains("expected chat to be a stream"), "{said}");
        redis.kill();
        let (good, said) = check(&yaml);
        assert!(!good && said.contains("chat: redis is unavailable"), "{said}");
    }
}
