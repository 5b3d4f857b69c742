//! A step-ca of its own in a folder of its own, set up by the commands of docs/certificate-authorities.md.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use simulator::http::{Client, Trust};
use tempfile::TempDir;

/// Longer than the start of a step-ca on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A webhook as `step ca provisioner webhook add` prints it.
#[derive(Debug, Clone)]
pub struct Printed {
    pub id: String,
    pub secret: String,
}

/// The process; it ends with the test, and what it logged is shown where the test failed.
pub struct StepCa {
    child: Child,
    folder: TempDir,
    programs: PathBuf,
    port: u16,
}

impl Drop for StepCa {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("{}", self.log());
        }
    }
}

impl StepCa {
    /// Makes an authority and starts it. It trusts these anchors (PEM) when it calls webhooks.
    pub async fn start(anchors: &str) -> Self {
        let programs =
            PathBuf::from(std::env::var("ASSAY_INTEROP_STEP_CA").expect("tests/interop/step-ca/run sets it"));
        let folder = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("password"), "a password of a test").unwrap();
        std::fs::write(path("anchors.pem"), anchors).unwrap();
        let address = format!("127.0.0.1:{port}");
        let init = ["ca", "init", "--name", "Interop", "--dns", "localhost", "--address", &address];
        let more = ["--provisioner", "admin", "--deployment-type", "standalone", "--remote-management"];
        let password = path("password").display().to_string();
        let password = ["--password-file", password.as_str()];
        done(&run(&programs, folder.path(), &[&init[..], &more[..], &password[..]].concat()), "step ca init");
        let log = File::create(path("log")).unwrap();
        let child = Command::new(programs.join("step-ca"))
            .arg(path("config/ca.json"))
            .args(password)
            .env("STEPPATH", folder.path())
            .env("SSL_CERT_FILE", path("anchors.pem"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut started = Self { child, folder, programs, port };
        started.is_up().await;
        started
    }

    async fn is_up(&mut self) {
        let client = Client::new(&Trust::public().with_pem(self.root_pem().as_bytes()).unwrap(), None).unwrap();
        let begun = Instant::now();
        loop {
            let answer = client.get(&format!("https://localhost:{}/health", self.port)).await;
            if answer.is_ok_and(|answer| answer.status == 200) {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "step-ca ended: {}", self.log());
            assert!(begun.elapsed() < PATIENCE, "step-ca does not start: {}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Runs `step ca provisioner …` as the administrator.
    pub fn provisioner(&self, arguments: &[&str]) -> String {
        let password = self.path("password");
        let url = format!("https://localhost:{}", self.port);
        let root = self.path("certs/root_ca.crt");
        let admin = ["--admin-subject", "step", "--admin-provisioner", "admin", "--admin-password-file", &password];
        let reach = ["--ca-url", &url, "--root", &root];
        let all = [&["ca", "provisioner"], arguments, &admin, &reach].concat();
        done(&run(&self.programs, self.folder.path(), &all), &format!("step ca provisioner {}", arguments.join(" ")))
    }

    /// Adds a webhook to a provisioner.
    pub fn webhook(&self, provisioner: &str, name: &str, url: &str, kind: &str) -> Printed {
        let what = ["webhook", "add", provisioner, name, "--url", url, "--kind", kind];
        let more = ["--cert-type", "X509", "--disable-tls-client-auth"];
        let said = self.provisioner(&[&what[..], &more[..]].concat());
        let line = |start: &str| {
            let found = said.lines().find_map(|line| line.strip_prefix(start));
            found.unwrap_or_else(|| panic!("no {start} in {said}")).trim().to_owned()
        };
        Printed { id: line("Webhook ID:"), secret: line("Secret:") }
    }

    /// Writes a file into the folder; its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// `DirectoryURL` of a provisioner.
    pub fn directory_url(&self, provisioner: &str) -> String {
        format!("https://localhost:{}/acme/{provisioner}/directory", self.port)
    }

    /// The certificate that the certificate of its address goes back to, PEM.
    pub fn root_pem(&self) -> String {
        std::fs::read_to_string(self.path("certs/root_ca.crt")).unwrap()
    }

    /// The certificate that signs what it issues, PEM.
    pub fn intermediate_pem(&self) -> String {
        std::fs::read_to_string(self.path("certs/intermediate_ca.crt")).unwrap()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

fn run(programs: &Path, folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(programs.join("step"));
    command.args(arguments).env("STEPPATH", folder).current_dir(folder).stdin(Stdio::null());
    command.output().unwrap()
}

fn done(output: &Output, what: &str) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{what}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}
