//! `assay simulate`: simulated devices against a server, one by one or as load.

mod load;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use simulator::commands::{Answered, Status};
use simulator::device::{ChannelId, Device};
use simulator::fleet::{self, Member, Mix};
use simulator::http::Trust;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Arguments of `assay simulate`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The enrollment link. It must allow as many uses as there are devices.
    #[arg(long)]
    link: Option<String>,
    /// How many devices.
    #[arg(long)]
    devices: Option<usize>,
    /// Which devices.
    #[arg(long, value_enum, default_value = "fleet")]
    mix: Mix,
    /// PEM file of a CA that the server's certificate comes from, where it is no public one.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Seconds between polls: nobody pushes to simulated devices of a foreign server.
    #[arg(long, default_value_t = 10)]
    every: u64,
    /// Seconds until the devices stop.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Measure: many devices with prepared signatures over few or many connections.
    #[arg(long)]
    load: bool,
    #[command(flatten)]
    under_load: load::Args,
}

/// Runs the devices; success where none met an error.
pub async fn run(args: Args) -> Result<ExitCode> {
    let trust = match &args.ca {
        Some(file) => {
            let pem = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            Trust::public().with_pem(&pem)?
        }
        None => Trust::public(),
    };
    if args.load {
        return Box::pin(load::run(args.under_load, args.link, args.devices.unwrap_or(1_000), trust)).await;
    }
    let Some(link) = args.link else { bail!("--link is needed: the URL that POST /api/v1/enrollment-links gave") };
    let members = fleet::members(args.mix, args.devices.unwrap_or(10));
    let wait = Wait { every: Duration::from_secs(args.every.max(1)), end: Duration::from_secs(args.seconds) };
    let failed = drive(&link, members, &trust, wait).await?;
    if failed == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{failed} devices met an error");
    Ok(ExitCode::FAILURE)
}

#[derive(Debug, Clone, Copy)]
struct Wait {
    every: Duration,
    end: Duration,
}

/// Enrolls each device and lets it poll until the time is over; how many met an error.
async fn drive(link: &str, members: Vec<Member>, trust: &Trust, wait: Wait) -> Result<usize> {
    let run = format!("simulate-{}-{}", std::process::id(), seed()?);
    let start = Instant::now();
    let gate = Arc::new(Semaphore::new(8));
    let mut devices = JoinSet::new();
    for (number, member) in members.into_iter().enumerate() {
        let (link, trust, run, gate) = (link.to_owned(), trust.clone(), run.clone(), Arc::clone(&gate));
        devices.spawn(async move {
            let name = format!("{number:>4} {:<16} {:<8}", member.product_name, member.os_version);
            match live(&link, &member, &run, number, trust, &gate, &name, start, wait).await {
                Ok(()) => true,
                Err(error) => {
                    println!("{name} ERROR {error}");
                    false
                }
            }
        });
    }
    let mut failed = 0;
    while let Some(good) = devices.join_next().await {
        failed += usize::from(!good?);
    }
    Ok(failed)
}

/// Keeps the devices of two runs apart.
fn seed() -> Result<String> {
    Ok(simulator::authority::topic()?.rsplit('.').next().unwrap_or_default().to_owned())
}

#[expect(clippy::too_many_arguments, reason = "one device's whole life, called once")]
async fn live(
    link: &str,
    member: &Member,
    run: &str,
    number: usize,
    trust: Trust,
    gate: &Semaphore,
    name: &str,
    start: Instant,
    wait: Wait,
) -> simulator::error::Result<()> {
    let mut device = Device::new(member.record(run, number)?, trust, member.behaviour.clone())?;
    let mut channels = vec![ChannelId::DEVICE];
    {
        let _turn = gate.acquire().await;
        device.enroll(link).await?;
        println!("{name} enrolled");
        if let Some((user, _)) = member.user(run, number)? {
            channels.push(device.open_user_channel(user).await?);
            println!("{name} user channel enrolled");
        }
    }
    while start.elapsed() < wait.end {
        for channel in &channels {
            for answered in device.session(*channel).await?.answered {
                println!("{name} {}", told(&answered));
            }
        }
        tokio::time::sleep(wait.every).await;
    }
    Ok(())
}

fn told(answered: &Answered) -> String {
    let acme = answered.acme.iter().map(|acme| {
        format!(
            " ACME {} {} HardwareBound={} Attest={}",
            acme.key_type,
            acme.key_size,
            acme.hardware_bound,
            acme.attest.map_or("left out", |attest| if attest { "true" } else { "false" })
        )
    });
    let refusal = answered.refusal.as_ref().map(|refusal| format!(" {}", refusal.text));
    let status = if answered.status == Status::NotNow { "NotNow" } else { answered.status.as_str() };
    let more: String = acme.chain(refusal).collect();
    format!("{} {status}{more}", answered.request_type)
}
