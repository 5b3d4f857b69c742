//! Giving each device the profile that is wished for it. What is left to do is computed from rows each time: devices whose
//! wish differs from what was assigned are due, devices that Apple throttles or refuses are due again later, and none is
//! ever dropped.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use mdm_core::time::Timestamp;
use serde_json::json;
use store::ade::devices::Outcome;
use store::ade::{Device, Profile};
use store::events::NewEvent;
use uuid::Uuid;

use crate::definition::encode;
use crate::service::{Fault, Service};
use crate::visit::Visit;
use crate::wire::{Assigned, Defined};
use crate::{Definition, Error};

/// Devices in one request.
const BATCH: i64 = 500;
/// Rounds in one visit; the next visit goes on from there.
const MOST_ROUNDS: usize = 200;
const PATH: &str = "/profile/devices";

/// How long a throttled device is left alone where Apple does not say.
const THROTTLED: Duration = Duration::from_secs(1800);
/// The first pause, and the longest, of a device that Apple calls not accessible.
const NOT_ACCESSIBLE: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(86_400));
/// The first pause, and the longest, of a device for which it failed.
const FAILED: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(6 * 3600));

/// The shortest pause.
const SOON: Duration = Duration::from_secs(60);
/// The longest throttle that is believed.
const LONGEST: Duration = Duration::from_secs(86_400);

/// What a profile is at Apple: its `profile_uuid`, or that Apple refuses it.
type AtApple = BTreeMap<Uuid, Option<String>>;

/// Gives every due device its profile.
pub(crate) async fn give(visit: &Visit, service: &mut Service<'_>) -> Result<(), Error> {
    let mut tx = visit.context.store.read().await?;
    // Read anew: the operator may have changed the default since the visit began.
    let server = store::ade::servers::get(&mut tx, visit.server.id).await?.ok_or(Error::LeaseLost)?;
    let mut wished = store::ade::devices::wished(&mut tx, server.id).await?;
    wished.extend(server.default_profile_id.filter(|default| !wished.contains(default)));
    let mut profiles = Vec::new();
    for id in wished {
        profiles.extend(store::ade::profiles::get(&mut tx, id).await?);
    }
    drop(tx);
    let mut at_apple = AtApple::new();
    for profile in profiles {
        let uuid = define(visit, service, &profile).await?;
        // Where Apple refuses the profile, no device has it: each shows that it failed.
        let (now, whose) = (visit.context.clock.now(), uuid.as_deref().unwrap_or_default());
        let mut tx = visit.begin().await?;
        store::ade::devices::mark(&mut tx, server.id, server.default_profile_id, profile.id, whose, now).await?;
        tx.commit().await?;
        at_apple.insert(profile.id, uuid);
    }
    let mut tx = visit.begin().await?;
    store::ade::devices::mark_bare(&mut tx, server.id, visit.context.clock.now()).await?;
    tx.commit().await?;
    let mut giver = Giver { visit, service, at_apple, by_post: false };
    let now = visit.context.clock.now();
    for _ in 0..MOST_ROUNDS {
        let due = store::ade::devices::due(&mut visit.context.store.read().await?, server.id, now, BATCH).await?;
        if due.is_empty() {
            break;
        }
        let mut groups: BTreeMap<Option<Uuid>, Vec<Device>> = BTreeMap::new();
        for device in due {
            groups.entry(device.profile_id.or(server.default_profile_id)).or_default().push(device);
        }
        for (profile, devices) in groups {
            giver.group(profile, devices).await?;
        }
    }
    Ok(())
}

/// The `profile_uuid` of a profile's present content, defined now where it is not yet. `None` where Apple refuses it: that
/// is this profile's fault, and the others go on.
async fn define(visit: &Visit, service: &mut Service<'_>, profile: &Profile) -> Result<Option<String>, Error> {
    let definition = Definition::from_stored(&profile.body)?;
    let encoded = encode(&definition, &visit.context.settings);
    let server = visit.server.id;
    let mut tx = visit.context.store.read().await?;
    if let Some(known) = store::ade::profiles::defined(&mut tx, server, profile.id, &encoded.sha256).await? {
        return Ok(Some(known.profile_uuid));
    }
    drop(tx);
    let now = visit.context.clock.now();
    let defined: Defined = match service.call(Method::POST, "/profile", Some(&encoded.body)).await {
        Ok(defined) => defined,
        Err(fault) if fault.is_about_the_request() => {
            let server = &visit.server.name;
            tracing::warn!(ade.server = %server, ade.profile = %profile.name, error = %fault, "Apple refuses a profile");
            return Ok(None);
        }
        Err(fault) => return Err(fault.into()),
    };
    let row = store::ade::Definition {
        server_id: server,
        profile_id: profile.id,
        sha256: encoded.sha256,
        anchors: encoded.anchors,
        profile_uuid: defined.profile_uuid.clone(),
        defined_at: now.0,
    };
    let mut tx = visit.begin().await?;
    store::ade::profiles::define(&mut tx, &row).await?;
    tx.commit().await?;
    tracing::info!(ade.server = %visit.server.name, ade.profile = %profile.name, "a profile was defined at Apple");
    Ok(Some(defined.profile_uuid))
}

/// What became of one device.
#[derive(Clone)]
enum Done {
    /// It has the profile.
    Given(String),
    /// It had it before.
    Stays,
    /// It has none, as wished.
    Bare,
    /// Not yet tried.
    Later,
    /// Apple throttles it, for so long.
    Throttled(Duration),
    /// Apple does not let this server have it.
    NotAccessible,
    /// It failed.
    Failed,
}

struct Giver<'v, 's, 't> {
    visit: &'v Visit,
    service: &'s mut Service<'t>,
    at_apple: AtApple,
    /// Whether this service takes `POST` where nanodep and Apple's own simulator use `PUT`.
    by_post: bool,
}

impl Giver<'_, '_, '_> {
    /// Devices that are to have the same profile, or none.
    async fn group(&mut self, profile: Option<Uuid>, devices: Vec<Device>) -> Result<(), Error> {
        let Some(id) = profile else {
            // What was assigned from here is taken back; anything else is not ours.
            let (ours, bare): (Vec<_>, Vec<_>) = devices.into_iter().partition(|d| d.assigned_uuid.is_some());
            self.write(&bare, |_| Done::Bare).await?;
            return self.request(ours, None).await;
        };
        match self.at_apple(id).await? {
            Some(Some(uuid)) => {
                let has_it = |device: &Device| device.assigned_uuid.as_ref() == Some(&uuid);
                let (done, rest): (Vec<_>, Vec<_>) = devices.into_iter().partition(has_it);
                self.write(&done, |_| Done::Stays).await?;
                self.request(rest, Some(&uuid)).await
            }
            Some(None) => {
                if devices.iter().any(|device| device.assign_attempts == 0) {
                    self.tell_refused(id).await?;
                }
                self.write(&devices, |_| Done::Failed).await
            }
            // It is no more; whoever took it away wishes another.
            None => self.write(&devices, |_| Done::Later).await,
        }
    }

    /// What a profile is at Apple. One that was wished while this visit went on is defined now.
    async fn at_apple(&mut self, id: Uuid) -> Result<Option<Option<String>>, Error> {
        if let Some(known) = self.at_apple.get(&id) {
            return Ok(Some(known.clone()));
        }
        let Some(profile) = store::ade::profiles::get(&mut self.visit.context.store.read().await?, id).await? else {
            return Ok(None);
        };
        let uuid = define(self.visit, self.service, &profile).await?;
        self.at_apple.insert(id, uuid.clone());
        Ok(Some(uuid))
    }

    /// Writes the event that Apple refuses a profile.
    async fn tell_refused(&self, profile: Uuid) -> Result<(), Error> {
        let server = &self.visit.server;
        let mut tx = self.visit.begin().await?;
        let name = store::ade::profiles::get(&mut tx, profile).await?.map(|profile| profile.name).unwrap_or_default();
        let event = NewEvent {
            at: self.visit.context.clock.now(),
            kind: "ade.profile_refused",
            enrollment: None,
            command: None,
            actor: "server",
            summary: &format!("ADE server {}: Apple refuses the profile {name}", server.name),
            data: &json!({ "ade_server": server.id, "ade_profile": name }),
        };
        store::events::record(&mut tx, &event).await?;
        Ok(tx.commit().await?)
    }

    /// Asks for devices. Where Apple refuses them as a whole they are halved, so that one device that Apple cannot bear does
    /// not stop the others (RG-19).
    async fn request(&mut self, devices: Vec<Device>, uuid: Option<&str>) -> Result<(), Error> {
        let mut batches = vec![devices];
        while let Some(mut batch) = batches.pop() {
            if batch.is_empty() {
                continue;
            }
            match self.ask(&batch, uuid).await {
                Ok(assigned) => {
                    let pause = assigned.retry_after_seconds.map_or(THROTTLED, Duration::from_secs);
                    let verdict =
                        |device: &Device| match assigned.devices.get(&device.serial_number).map(String::as_str) {
                            Some("SUCCESS") => uuid.map_or(Done::Bare, |uuid| Done::Given(uuid.to_owned())),
                            Some("THROTTLED") => Done::Throttled(pause),
                            Some("NOT_ACCESSIBLE") => Done::NotAccessible,
                            _ => Done::Failed,
                        };
                    self.write(&batch, verdict).await?;
                }
                Err(fault) if !fault.is_about_the_request() => return Err(fault.into()),
                Err(fault) if uuid.is_some() && names_the_profile(&fault) => {
                    // With a pause that grows: nobody knows whether the next definition will be known.
                    self.forget(uuid.unwrap_or_default()).await?;
                    self.write(&batch, |_| Done::Failed).await?;
                }
                Err(fault) if batch.len() == 1 => {
                    let name = &self.visit.server.name;
                    tracing::warn!(ade.server = %name, error = %fault, "Apple refuses to assign one device; it is tried again later");
                    self.write(&batch, |_| Done::Failed).await?;
                }
                Err(_) => {
                    let second = batch.split_off(batch.len() / 2);
                    batches.extend([second, batch]);
                }
            }
        }
        Ok(())
    }

    async fn ask(&mut self, devices: &[Device], uuid: Option<&str>) -> Result<Assigned, Fault> {
        let serials: Vec<&str> = devices.iter().map(|device| device.serial_number.as_str()).collect();
        let Some(uuid) = uuid else {
            return self.service.call(Method::DELETE, PATH, Some(&json!({ "devices": serials }))).await;
        };
        let body = json!({ "profile_uuid": uuid, "devices": serials });
        if !self.by_post {
            match self.service.call(Method::PUT, PATH, Some(&body)).await {
                Err(Fault::Refused { status: 405, .. }) => self.by_post = true,
                answer => return answer,
            }
        }
        self.service.call(Method::POST, PATH, Some(&body)).await
    }

    /// Apple does not know the definition any more: the next visit makes it anew.
    async fn forget(&self, uuid: &str) -> Result<(), Error> {
        let mut tx = self.visit.begin().await?;
        store::ade::profiles::unknown(&mut tx, self.visit.server.id, uuid).await?;
        Ok(tx.commit().await?)
    }

    async fn write(&self, devices: &[Device], verdict: impl Fn(&Device) -> Done) -> Result<(), Error> {
        if devices.is_empty() {
            return Ok(());
        }
        let now = self.visit.context.clock.now();
        let mut tx = self.visit.begin().await?;
        for device in devices {
            let done = verdict(device);
            let outcome = self.outcome(device, &done, now);
            let server = device.server_id;
            store::ade::devices::outcome(&mut tx, server, &device.serial_number, &outcome, now).await?;
        }
        Ok(tx.commit().await?)
    }

    fn outcome<'a>(&self, device: &Device, done: &'a Done, now: Timestamp) -> Outcome<'a> {
        let (state, uuid, pause) = match done {
            Done::Given(uuid) => ("assigned", Some(uuid.as_str()), None),
            Done::Stays => ("assigned", None, None),
            Done::Bare => ("none", None, None),
            Done::Later => ("due", None, Some(SOON)),
            Done::Throttled(pause) => ("throttled", None, Some((*pause).clamp(SOON, LONGEST))),
            Done::NotAccessible => ("not_accessible", None, Some(doubled(device, NOT_ACCESSIBLE))),
            Done::Failed => ("failed", None, Some(doubled(device, FAILED))),
        };
        let tried = !matches!(done, Done::Later);
        Outcome {
            state,
            uuid,
            attempts: if pause.is_none() { 0 } else { device.assign_attempts + i64::from(tried) },
            due_at: pause.map(|pause| now.plus(self.visit.spread(pause))),
            profile: device.profile_id,
        }
    }
}

/// Whether Apple does not know the profile (404, or a word for it) rather than one of the devices.
fn names_the_profile(fault: &Fault) -> bool {
    matches!(fault, Fault::Refused { status: 404, .. }) || fault.says("PROFILE_NOT_FOUND") || fault.says("PROFILE_UUID")
}

/// `first`, doubled with each attempt before, at most `longest`.
fn doubled(device: &Device, (first, longest): (Duration, Duration)) -> Duration {
    let times = u32::try_from(device.assign_attempts.clamp(0, 10)).unwrap_or(0);
    (first * 2_u32.pow(times)).min(longest)
}
