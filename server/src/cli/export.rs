//! `assay export`: certificate authorities, rules of labels and ACME policies as the document that `assay apply` takes.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args as ClapArgs;

use super::client::{Connection, escaped};
use super::file::{self, Format};

/// Arguments of `assay export`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Only these policies, with the authorities and rules that they use; all where none is named.
    policies: Vec<String>,
    /// How it is written.
    #[arg(long, value_enum, default_value = "toml")]
    format: Format,
    /// Write it into this file.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs `assay export`.
pub async fn run(args: Args) -> Result<()> {
    let client = args.connection.client()?;
    let path = if args.policies.is_empty() {
        "/api/v1/export".to_owned()
    } else {
        format!("/api/v1/export?policies={}", escaped(&args.policies.join(",")))
    };
    let text = file::write(client.get(&path).await?, args.format)?;
    if let Some(file) = &args.output {
        return std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()));
    }
    print!("{text}");
    Ok(())
}
