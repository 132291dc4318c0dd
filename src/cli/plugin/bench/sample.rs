//! Input of the measured plugin: the first step of each role in its cases, or a common sample.

use std::fmt;
use std::path::Path;

use crate::cli::plugin::test::cases::Step;
use crate::cli::plugin::test::{cases, read, run};
use crate::id::{ConnectionId, Room, Uid};
use crate::message::{Entries, Envelope, Message, Origin, Publication, Target};
use crate::plugin::harness::{CallFailure, Given, LoadedPlugin};
use crate::plugin::{Call, Claim, Event, Identity, JoinRequest, Role, Transport};

/// One input, used for every call.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    call: SampleCall,
    description: String,
}

#[derive(Debug, Clone)]
enum SampleCall {
    Admit(Transport, Claim),
    Judge(Box<Envelope>),
    Call(Box<Call>),
    Event(Event),
    Join(Box<JoinRequest>),
}

/// Steps and setup from the cases of a plugin.
#[derive(Debug, Default)]
pub(super) struct Samples {
    pub(super) given: Given,
    steps: Vec<(String, Step)>,
}

/// Reads the cases beside a component.
///
/// # Errors
/// The file cannot be read.
pub(super) fn read_samples(component: &Path) -> anyhow::Result<Samples> {
    let own = component.with_extension("cases.yaml");
    let common = component.with_file_name("cases.yaml");
    let Some(file) = [own, common].into_iter().find(|file| file.is_file()) else {
        return Ok(Samples { given: given(&cases::Given::default())?, steps: Vec::new() });
    };
    let file = read(&file)?;
    let mut steps = Vec::new();
    // A case with its own setup would not find that setup here.
    for mut case in file.cases.into_iter().filter(|case| !case.gives() && case.refused.is_none()) {
        let name = case.name.value.clone();
        let own = case.take_steps().map_err(anyhow::Error::msg)?;
        steps.extend(
            own.into_iter().filter(|step| step.expect.fails.is_none()).take(1).map(|step| (name.clone(), step)),
        );
    }
    Ok(Samples { given: given(&file.given)?, steps })
}

fn given(file: &cases::Given) -> anyhow::Result<Given> {
    run::setup(file).map_err(anyhow::Error::msg)
}

impl Samples {
    /// # Errors
    /// A case is invalid, or a handler owns no key.
    pub(super) fn of(&self, role: Role, loaded: &LoadedPlugin) -> anyhow::Result<Sample> {
        for (name, step) in &self.steps {
            let call = match (role, step) {
                (Role::Auth, Step { admit: Some(admit), .. }) => {
                    let (transport, claim) = run::claim(admit);
                    SampleCall::Admit(transport, claim)
                }
                (Role::Filter, Step { judge: Some(judge), .. }) => SampleCall::Judge(Box::new(envelope(judge)?)),
                (Role::Handler, Step { call: Some(call), .. }) => {
                    SampleCall::Call(Box::new(run::call(call).map_err(anyhow::Error::msg)?))
                }
                (Role::Events, Step { event: Some(event), .. }) => {
                    SampleCall::Event(run::event_of(event).map_err(anyhow::Error::msg)?)
                }
                (Role::Access, Step { join: Some(join), .. }) => {
                    SampleCall::Join(Box::new(run::join_of(join).map_err(anyhow::Error::msg)?))
                }
                _ => continue,
            };
            return Ok(Sample { call, description: format!("the case {name:?}") });
        }
        common(role, loaded)
    }
}

fn envelope(judge: &cases::Judge) -> anyhow::Result<Envelope> {
    run::envelope(judge).map_err(anyhow::Error::msg)
}

fn common(role: Role, loaded: &LoadedPlugin) -> anyhow::Result<Sample> {
    let cid = ConnectionId::new(1).expect("1 is a connection's number");
    let who = Identity { uid: Uid::parse("1074").expect("a valid name"), cid, device: None, channel: None };
    let (call, description) = match role {
        Role::Auth => {
            let claim = Claim { uid: Some("1074".to_owned()), ..Claim::default() };
            (
                SampleCall::Admit(Transport { listener: "ws", ..Transport::default() }, claim),
                "a uid and no token".to_owned(),
            )
        }
        Role::Filter => (SampleCall::Judge(Box::new(sample_message())), "yunque's sample message".to_owned()),
        Role::Handler => {
            let Some(key) = loaded.keys().first() else { anyhow::bail!("the handler owns no key") };
            let call = Call { key: key.clone(), data: Entries::new(), caller: Some(who), cid, remote: String::new() };
            (SampleCall::Call(Box::new(call)), format!("the key {key:?} without data"))
        }
        Role::Events => (SampleCall::Event(Event::Online(who)), "a user comes online".to_owned()),
        Role::Access => {
            let room = Room::parse("lobby").expect("a valid name");
            let join = JoinRequest { who, claims: Entries::new(), room, data: Entries::new() };
            (SampleCall::Join(Box::new(join)), "a user without claims joins lobby".to_owned())
        }
    };
    Ok(Sample { call, description })
}

/// The sample message of yunque's document, pushed by a back end.
#[must_use]
pub fn sample_message() -> Envelope {
    let picture = "https://yrk.01film.cn/uploads/postImages/20220702/69177fa59244c4efad7b34bc8f551cf8.jpg";
    let message = Message {
        id: 748,
        action: "chat".to_owned(),
        content: [("text", "好吗"), ("image", ""), ("url", "")].into_iter().collect(),
        sender: "1078".to_owned(),
        receiver: "1074".to_owned(),
        extra: [("avatar", picture), ("nickname", "小毛豆")].into_iter().collect(),
        title: "标题".to_owned(),
        image: picture.to_owned(),
        ..Message::default()
    };
    let receiver = Target::User(Uid::parse("1074").expect("a valid name"));
    Publication::new(message, receiver, Origin::Http).into_envelope(1, 0)
}

impl Sample {
    /// Copies the input before the call, so that only the call is measured.
    pub(super) fn prepare(&self) -> Prepared<'_> {
        match &self.call {
            SampleCall::Judge(envelope) => Prepared::Judge(envelope.clone()),
            SampleCall::Admit(transport, claim) => Prepared::Admit(transport, claim),
            SampleCall::Call(call) => Prepared::Call(call),
            SampleCall::Event(event) => Prepared::Event(event),
            SampleCall::Join(join) => Prepared::Join(join),
        }
    }
}

/// An input ready to be passed.
pub(super) enum Prepared<'a> {
    Admit(&'a Transport, &'a Claim),
    Judge(Box<Envelope>),
    Call(&'a Call),
    Event(&'a Event),
    Join(&'a JoinRequest),
}

impl Prepared<'_> {
    /// # Errors
    /// The call failed.
    pub(super) async fn call(self, loaded: &LoadedPlugin) -> Result<(), CallFailure> {
        match self {
            Self::Admit(transport, claim) => loaded.admit(transport, claim).await.map(drop),
            Self::Judge(mut envelope) => loaded.judge(&mut envelope).await.failed.map_or(Ok(()), Err),
            Self::Call(call) => loaded.handle(call).await.map(drop),
            Self::Event(event) => loaded.deliver(event, 0).await,
            Self::Join(join) => loaded.join(join).await.map(drop),
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description)
    }
}
