//! `assay token`: the first API token, made on the machine itself. There is no default credential.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args as ClapArgs;

use crate::app::App;
use crate::config::Config;

/// Arguments of `assay token`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The configuration file.
    #[arg(long, env = "ASSAY_CONFIG", default_value = "assay.toml")]
    config: PathBuf,
    /// A name that tells tokens apart in the log of events.
    #[arg(long)]
    name: String,
    /// What it may do; several with commas.
    #[arg(long, value_delimiter = ',', default_value = "admin", value_parser = scope)]
    scopes: Vec<api::Scope>,
    /// Days until it expires.
    #[arg(long, default_value_t = 90)]
    days: u32,
}

fn scope(text: &str) -> Result<api::Scope, String> {
    let known = || api::Scope::ALL.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", ");
    api::Scope::ALL.iter().copied().find(|s| s.as_str() == text).ok_or_else(|| format!("must be one of {}", known()))
}

/// Makes a token and prints it. With SQLite the server must not be running: it holds the database alone.
pub async fn run(args: &Args) -> Result<()> {
    let config = Config::load(&args.config)?;
    let app = App::open(&config).await?;
    println!("{}", app.make_token(&args.name, &args.scopes, args.days).await?);
    Ok(())
}
