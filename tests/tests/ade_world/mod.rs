//! Apple's device service (a stand-in), a server that speaks with it, and a clock that both go by.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ade::{Context, Definition, Settings};
use mdm_core::certificate::Certificate;
use mdm_core::crypto::seal::Sealer;
use mdm_core::random::Random;
use mdm_core::time::{Clock, Timestamp};
use outbound::Roots;
use simulator::ade_service::{AdeService, Asked, Portal};
use simulator::authority::Authority;
use store::Store;
use store::ade::{Device, Server};
use uuid::Uuid;

pub const START: Timestamp = Timestamp(1_795_320_000_000);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(86_400);

/// Tells a story twice in a row on one database, on both databases: what holds on an empty one must hold on a used one.
pub async fn twice<F: Future<Output = ()>>(story: impl Fn(World) -> F) {
    mdm_tests::on_both(|store| {
        let story = &story;
        async move {
            for _ in 0..2 {
                let world = World::new(store.clone()).await;
                let (clean, done) = (world.store().clone(), story(world));
                done.await;
                // The first telling's servers rest: the second has its own.
                let mut tx = clean.begin().await.unwrap();
                for server in store::ade::servers::list(&mut tx).await.unwrap() {
                    store::ade::servers::delete(&mut tx, server.id, START).await.unwrap();
                }
                tx.commit().await.unwrap();
            }
        }
    })
    .await;
}

pub struct World {
    pub context: Context,
    pub apple: Arc<AdeService>,
    pub clock: Clock,
    /// Tells this telling from the other.
    pub mark: String,
    root: Certificate,
}

fn client(root: &Certificate, timeout: Duration) -> outbound::Client {
    let settings = outbound::Settings {
        roots: Roots::Only(vec![root.der().to_vec()]),
        private_addresses: true,
        timeout,
        ..outbound::Settings::new("assay/test")
    };
    outbound::Client::new(&settings).unwrap()
}

impl World {
    pub async fn new(store: Store) -> Self {
        let authority = Authority::new("Stand-in for Apple").unwrap();
        let apple = AdeService::start(&authority).await.unwrap();
        apple.set_now(START.0);
        let root = Certificate::from_pem(&authority.pem().unwrap()).unwrap();
        let clock = Clock::fixed(START);
        let settings = Settings {
            base_url: apple.url().parse().unwrap(),
            protocol_version: ade::PROTOCOL_VERSION,
            every: MINUTE * 10,
            url: "https://mdm.example.com/ade/enroll".parse().unwrap(),
            web_url: "https://mdm.example.com/ade/web".parse().unwrap(),
            anchors: vec![root.clone()],
        };
        let context = Context {
            store,
            clock: clock.clone(),
            random: Random::System,
            sealer: Sealer::new(&[7; 32]),
            client: client(&root, Duration::from_secs(20)),
            settings: Arc::new(settings),
        };
        let mark = Random::System.uuid_v4().simple().to_string()[..8].to_uppercase();
        Self { context, apple: Arc::new(apple), clock, mark, root }
    }

    /// What gives up after so long.
    pub fn client(&self, timeout: Duration) -> outbound::Client {
        client(&self.root, timeout)
    }

    /// Waits until this was asked of Apple so often, in the real time that it takes.
    pub async fn until_asked(&self, what: &str, times: usize) {
        while self.apple.asked().iter().filter(|asked| asked.what == what).count() < times {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn store(&self) -> &Store {
        &self.context.store
    }

    /// A serial number of this telling.
    pub fn serial(&self, n: u32) -> String {
        format!("{}{n:04}", self.mark)
    }

    /// A server here, without a token.
    pub async fn create(&self, name: &str) -> Server {
        let name = format!("{name} {}", self.mark);
        let key = ade::servers::PortalKey::generate(&self.context, &name).unwrap();
        let mut tx = self.store().begin().await.unwrap();
        let server = ade::servers::create(&mut tx, &self.context, &name, &key, self.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        server
    }

    pub fn pem(server: &Server) -> String {
        Certificate::from_der(&server.certificate).unwrap().to_pem()
    }

    pub async fn put_token(&self, server: &Server, p7m: &str, force: bool) -> Result<Server, ade::Error> {
        let mut tx = self.store().begin().await.unwrap();
        let done =
            ade::servers::put_token(&mut tx, &self.context, server.id, p7m.as_bytes(), force, self.clock.now()).await?;
        tx.commit().await.unwrap();
        Ok(done)
    }

    /// A server here, with the token of a server in the portal.
    pub async fn server(&self, name: &str) -> (Server, Portal) {
        let portal = self.apple.add_server(name);
        let server = self.create(name).await;
        let p7m = portal.token(&Self::pem(&server), 365).unwrap();
        (self.put_token(&server, &p7m, false).await.unwrap(), portal)
    }

    /// A profile that is the default of a server.
    pub async fn default_profile(&self, server: &Server, department: &str) {
        let name = format!("default-{}", self.mark);
        let definition = Definition {
            profile_name: "Staff".into(),
            department: Some(department.into()),
            await_device_configured: Some(true),
            ..Definition::default()
        };
        let mut tx = self.store().begin().await.unwrap();
        let now = self.clock.now();
        let (profile, _) = ade::profiles::put(&mut tx, &self.context, &name, &definition, "test", now).await.unwrap();
        store::ade::servers::set_default_profile(&mut tx, server.id, Some(profile.id), now).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Time passes, here and at Apple.
    pub fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.apple.set_now(self.clock.now().0);
    }

    /// The loop looks.
    pub async fn visit(&self) -> usize {
        ade::run_once(&self.context, self.clock.now()).await.unwrap()
    }

    /// Enough time passes for the next visit, and the loop looks.
    pub async fn next_visit(&self) {
        self.pass(HOUR);
        assert!(self.visit().await > 0, "a visit is due within an hour");
    }

    pub async fn row(&self, server: &Server) -> Server {
        store::ade::servers::get(&mut self.store().read().await.unwrap(), server.id).await.unwrap().unwrap()
    }

    pub async fn health(&self, server: &Server) -> String {
        self.row(server).await.health
    }

    /// A device that Apple lists now.
    pub async fn device(&self, n: u32) -> Option<Device> {
        store::ade::device(&mut self.store().read().await.unwrap(), &self.serial(n)).await.unwrap()
    }

    /// The states of assignment of devices 0 to `n`.
    pub async fn states(&self, n: u32) -> Vec<String> {
        let mut states = Vec::new();
        for n in 0..n {
            states.push(self.device(n).await.unwrap().assign_state);
        }
        states
    }

    pub fn add_devices(&self, portal: &Portal, n: u32) {
        for n in 0..n {
            portal.add_device(&self.serial(n), "iPhone 17", "iPhone", "iOS");
        }
    }

    /// What was asked of Apple since the last call of this function, by its method and path.
    pub fn asked_since(&self, before: usize) -> Vec<Asked> {
        self.apple.asked().split_off(before)
    }

    pub fn asked(&self) -> usize {
        self.apple.asked().len()
    }

    pub async fn events(&self, kind: &str, server: Uuid) -> Vec<String> {
        let filter = store::events::Filter { kind: Some(kind.to_owned()), ..store::events::Filter::default() };
        let rows = store::events::newest(&mut self.store().read().await.unwrap(), &filter, None, 500).await.unwrap();
        rows.into_iter().filter(|row| row.data.contains(&server.to_string())).map(|row| row.summary).collect()
    }
}
