//! Every door: devices come in by link, by Automated Device Enrollment and by account, each with the identity that its silicon
//! allows, and two of the identities are renewed. The REST API must say the same as the devices, and why.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use simulator::account::{Account, Mode};
use simulator::ade::{Ade, DepProfile};
use simulator::arrivals::{Arrival, Entry, arrivals};
use simulator::browser::Person;
use simulator::device::{Behaviour, ChannelId, Device, Record};
use simulator::http::Trust;
use simulator::identity::Source;

use super::operator::Operator;
use super::services::{PERSON, Services};

/// How often something is looked at that will be there soon.
const EVERY: Duration = Duration::from_millis(100);
/// The ADE profile of most devices, and that of devices that show a web page first.
const PROFILES: [(&str, bool); 2] = [("pilot", false), ("pilot-web", true)];
/// How many identities are renewed.
const RENEWALS: usize = 2;

/// What came of one device at its door.
pub(super) struct Outcome {
    arrival: Arrival,
    device: Device,
    /// The enrollment's id in the REST API.
    enrollment: String,
    /// What the REST API says of the identity, and why.
    said: String,
    renewed: Option<String>,
    wrong: Vec<String>,
}

/// What the phase needs.
pub(super) struct Doors<'a> {
    pub(super) operator: &'a Operator,
    pub(super) services: &'a Services,
    pub(super) trust: &'a Trust,
    pub(super) public_url: &'a str,
    pub(super) patience: Duration,
}

impl Doors<'_> {
    /// Brings in every device of [`arrivals`], renews two identities, prints the table; true where nothing is wrong.
    pub(super) async fn run(&self) -> Result<bool> {
        self.open().await.context("opening the doors")?;
        let run = format!("pilot-{}", std::process::id());
        let mut devices = Vec::new();
        for (number, arrival) in arrivals().into_iter().enumerate() {
            devices.push((number, arrival, arrival.record(&run, number)?));
        }
        self.hand_to_apple(&devices).await.context("Automated Device Enrollment")?;
        let mut outcomes = Vec::new();
        for (number, arrival, record) in devices {
            let what = format!("{} {} by {}", arrival.product_name, arrival.os_version, arrival.entry.name());
            outcomes.push(self.enter(number, arrival, record).await.with_context(|| format!("{what} did not get in"))?);
        }
        let mut renewals = 0;
        // First those that were let in with less than their silicon can do: they move from SCEP to ACME.
        for moves in [true, false] {
            for outcome in &mut outcomes {
                if renewals < RENEWALS - usize::from(moves)
                    && (outcome.arrival.expected != outcome.arrival.renewed) == moves
                {
                    renewals += 1;
                    self.renew(outcome).await.with_context(|| format!("renewing {}", outcome.arrival.product_name))?;
                }
            }
        }
        Ok(print(&outcomes))
    }

    /// Opens every door, each with the same wish: ACME, hardware-bound and attested where the silicon can; SCEP where it can't.
    async fn open(&self) -> Result<()> {
        let identity = json!({
            "prefer": "acme",
            "otherwise": "fall_back",
            "acme": { "directory_url": self.services.acme.directory_url(), "ca_accepts_unattested": true },
        });
        for door in ["link", "ade", "byod", "adde"] {
            // Two methods, so that both are seen; two domains, by which a device finds its door.
            let settings = match door {
                "byod" => json!({ "enabled": true, "identity": identity,
                    "account": { "method": "apple-as-web", "domains": ["byod.example"] } }),
                "adde" => json!({ "enabled": true, "identity": identity,
                    "account": { "method": "apple-oauth2", "domains": ["pilot.example"] } }),
                _ => json!({ "enabled": true, "identity": identity }),
            };
            self.operator.put(&format!("/api/v1/enrollment-doors/{door}"), &settings).await?;
        }
        Ok(())
    }

    /// The portal knows the devices, the server learns of them, approves them, and assigns their profiles.
    async fn hand_to_apple(&self, devices: &[(usize, Arrival, Record)]) -> Result<()> {
        let by_ade: Vec<_> = devices.iter().filter(|(_, a, _)| matches!(a.entry, Entry::Ade | Entry::AdeWeb)).collect();
        for (_, _, record) in &by_ade {
            let os = record.hardware.family.os();
            self.services.portal.add_device(&record.serial_number, record.hardware.product_name, "", os);
        }
        let made = self.operator.post("/api/v1/ade-servers", &json!({ "name": "pilot" })).await?;
        let id = text(&made, "/id")?;
        let token = self.services.portal.token(&text(&made, "/certificate_pem")?, 365)?;
        self.operator.put(&format!("/api/v1/ade-servers/{id}/token"), &json!({ "token": token })).await?;
        for (name, web) in PROFILES {
            let profile = json!({ "profile_name": name, "await_device_configured": true, "web_sign_in": web });
            self.operator.put(&format!("/api/v1/ade-profiles/{name}"), &profile).await?;
        }
        let default = json!({ "profile": PROFILES[0].0 });
        self.operator.put(&format!("/api/v1/ade-servers/{id}/default-profile"), &default).await?;
        self.operator.post(&format!("/api/v1/ade-servers/{id}/sync"), &json!({})).await?;
        let serials = |wanted: &[Entry]| -> Vec<String> {
            by_ade.iter().filter(|(_, a, _)| wanted.contains(&a.entry)).map(|(.., r)| r.serial_number.clone()).collect()
        };
        let all = serials(&[Entry::Ade, Entry::AdeWeb]);
        self.until("Apple's list of devices", async || {
            let known = self.operator.all("/api/v1/ade-devices").await?;
            Ok((known.len() >= all.len()).then_some(()))
        })
        .await?;
        self.operator.post("/api/v1/ade-devices/approve", &json!({ "serial_numbers": all })).await?;
        let wish = json!({ "serial_numbers": serials(&[Entry::AdeWeb]), "profile": PROFILES[1].0 });
        self.operator.post("/api/v1/ade-devices/assign", &wish).await?;
        Ok(())
    }

    async fn enter(&self, number: usize, arrival: Arrival, record: Record) -> Result<Outcome> {
        let serial = record.serial_number.clone();
        let mut device = self.services.device(record, self.trust, Behaviour::default())?;
        match arrival.entry {
            Entry::Link => {
                let link = self.operator.link(&json!({ "kind": "device", "note": "pilot" })).await?;
                device.enroll(&link).await?;
            }
            Entry::Ade | Entry::AdeWeb => {
                let profile = self.profile_of(&serial, arrival.entry == Entry::AdeWeb).await?;
                let person = Person::with_password(PERSON.0, PERSON.1);
                match device.enroll_ade(&profile, &person).await? {
                    Ade::Enrolled => self.set_up(&mut device).await?,
                    Ade::UpdateRequired { os_version, .. } => bail!("it must update to {os_version} first"),
                }
            }
            Entry::Byod => {
                let account = format!("person{number}@byod.example");
                let wish = json!({ "managed_apple_account": account, "mode": "byod", "note": "pilot" });
                let code = text(&self.operator.post("/api/v1/invitations", &wish).await?, "/code")?;
                let account = Account::new(&account).discovered_at(self.public_url);
                device.enroll_account(&account, Mode::Byod, &Person::with_code(&code)).await?;
            }
            Entry::Adde => {
                let account = Account::new(PERSON.0).discovered_at(self.public_url);
                device.enroll_account(&account, Mode::Adde, &Person::with_password(PERSON.0, PERSON.1)).await?;
            }
        }
        let enrollment = self.enrollment_of(&device).await?;
        let mut outcome =
            Outcome { arrival, device, enrollment, said: String::new(), renewed: None, wrong: Vec::new() };
        let (said, wrong) = self.judge(&outcome, arrival.expected).await?;
        outcome.said = said;
        outcome.wrong = wrong;
        Ok(outcome)
    }

    /// The profile that Apple's service hands to a device in Setup Assistant, once the right one is assigned.
    async fn profile_of(&self, serial: &str, web: bool) -> Result<DepProfile> {
        let assigned = self
            .until("the assignment of an ADE profile", async || {
                let assigned = self.services.ade.profile_of(serial);
                Ok(assigned.filter(|profile| profile.configuration_web_url.is_some() == web))
            })
            .await?;
        Ok(assigned)
    }

    /// Setup Assistant waits for the commands of the server, and goes on when `DeviceConfigured` has come.
    async fn set_up(&self, device: &mut Device) -> Result<()> {
        let start = Instant::now();
        while device.is_awaiting_configuration() {
            if start.elapsed() > self.patience {
                bail!("no DeviceConfigured came");
            }
            device.session(ChannelId::DEVICE).await?;
            tokio::time::sleep(EVERY).await;
        }
        Ok(())
    }

    async fn enrollment_of(&self, device: &Device) -> Result<String> {
        let record = &device.record;
        let own = |e: &&Value| {
            let is = |key: &str, id: &str| e.get(key).and_then(Value::as_str) == Some(id);
            is("channel", "device")
                && record
                    .enrollment_id
                    .as_ref()
                    .map_or_else(|| is("udid", &record.udid), |id| is("apple_enrollment_id", id))
        };
        let all = self.operator.all("/api/v1/enrollments").await?;
        let found = all.iter().find(own).context("the API does not know the device")?;
        text(found, "/id")
    }

    /// Compares what must be, what the device has, and what the REST API says; gives what the API says, and what is wrong.
    async fn judge(&self, outcome: &Outcome, expected: Source) -> Result<(String, Vec<String>)> {
        let mut wrong = Vec::new();
        let has = outcome.device.identity_source();
        if has != Some(expected) {
            wrong.push(format!("must have {}, has {}", words(expected), has.map_or_else(|| "none".to_owned(), words)));
        }
        let detail = self.operator.get(&format!("/api/v1/enrollments/{}", outcome.enrollment)).await?;
        let identities = detail.get("identities").and_then(Value::as_array).cloned().unwrap_or_default();
        let live = identities.iter().find(|i| i.get("state").and_then(Value::as_str) == Some("live"));
        let live = live.context("the API shows no live identity")?;
        let reason = live.get("reason").cloned().unwrap_or_default();
        let flag = |key: &str| reason.get(key).and_then(Value::as_bool).unwrap_or_default();
        let says = match live.get("source").and_then(Value::as_str) {
            Some("acme") => Source::Acme { hardware_bound: flag("hardware_bound"), attested: flag("attest") },
            _ => Source::Scep,
        };
        if Some(says) != has {
            wrong.push(format!("the API says {}", words(says)));
        }
        let door = detail.pointer("/enrollment/door").and_then(Value::as_str).unwrap_or_default();
        if door != door_of(outcome.arrival.entry) {
            wrong.push(format!("the API says that it came by the door «{door}»"));
        }
        let notes: Vec<&str> =
            reason.get("notes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let why = if notes.is_empty() { "as the door prefers".to_owned() } else { notes.join(", ") };
        Ok((format!("{}: {why}", words(says)), wrong))
    }

    /// Asks for a new identity; the device is woken, takes its enrollment profile anew, and goes on under another certificate.
    async fn renew(&self, outcome: &mut Outcome) -> Result<()> {
        let before = outcome.device.identity().map(|identity| identity.certificate.to_der()).transpose()?;
        let token = hex::encode(outcome.device.token(ChannelId::DEVICE).unwrap_or_default());
        let pushes = self.services.apns.received_for(&token).len();
        self.operator.post(&format!("/api/v1/enrollments/{}/renewal", outcome.enrollment), &json!({})).await?;
        self.until("the push that wakes the device", async || {
            Ok((self.services.apns.received_for(&token).len() > pushes).then_some(()))
        })
        .await?;
        let start = Instant::now();
        loop {
            outcome.device.session(ChannelId::DEVICE).await?;
            let now = outcome.device.identity().map(|identity| identity.certificate.to_der()).transpose()?;
            if now != before {
                break;
            }
            if start.elapsed() > self.patience {
                bail!("the device has no new identity");
            }
            tokio::time::sleep(EVERY).await;
        }
        let (said, mut wrong) = self.judge(outcome, outcome.arrival.renewed).await?;
        outcome.renewed = Some(said);
        outcome.wrong.append(&mut wrong);
        Ok(())
    }

    /// Looks again and again until it is there.
    async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            if start.elapsed() > self.patience {
                bail!("{what} did not come within {} s", self.patience.as_secs());
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

fn text(value: &Value, pointer: &str) -> Result<String> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.map(str::to_owned).with_context(|| format!("the answer has no {pointer}"))
}

/// The door's name in the REST API.
fn door_of(entry: Entry) -> &'static str {
    match entry {
        Entry::Link => "link",
        Entry::Ade | Entry::AdeWeb => "ade",
        Entry::Byod => "byod",
        Entry::Adde => "adde",
    }
}

/// An identity in a few words.
fn words(source: Source) -> String {
    match source {
        Source::Scep => "SCEP".to_owned(),
        Source::Acme { hardware_bound, attested } => format!(
            "ACME, {}, {}",
            if hardware_bound { "hardware-bound" } else { "software key" },
            if attested { "attested" } else { "not attested" }
        ),
    }
}

/// Prints which identity each device got and why; true where nothing is wrong.
fn print(outcomes: &[Outcome]) -> bool {
    println!("{:<17} {:<15} {:<17} identity, and why", "door", "device", "system");
    for outcome in outcomes {
        let Arrival { entry, product_name, os_version, why, .. } = outcome.arrival;
        let system = format!("{} {os_version}", outcome.device.record.hardware.family.os());
        println!("{:<17} {product_name:<15} {system:<17} {} ({why})", entry.name(), outcome.said);
        if let Some(renewed) = &outcome.renewed {
            println!("{:<17} {:<15} {:<17} renewed → {renewed}", "", "", "");
        }
        for wrong in &outcome.wrong {
            println!("    WRONG: {wrong}");
        }
    }
    let bad = outcomes.iter().filter(|outcome| !outcome.wrong.is_empty()).count();
    let renewed = outcomes.iter().filter(|outcome| outcome.renewed.is_some()).count();
    println!();
    if bad == 0 {
        println!("All {} devices have the identity that their silicon allows; {renewed} were renewed.", outcomes.len());
    } else {
        println!("{bad} of {} devices have another identity than they must have.", outcomes.len());
    }
    println!();
    bad == 0
}
