//! The binary `assay`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "assay",
    version,
    about = "An Apple MDM server that gives each device the strongest ACME certificate its silicon can honour"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve {
        /// The configuration file.
        #[arg(long, env = "ASSAY_CONFIG", default_value = "assay.toml")]
        config: PathBuf,
    },
    /// Check the configuration, certificates, database and clock, and say what is wrong and what to do.
    Check {
        /// The configuration file.
        #[arg(long, env = "ASSAY_CONFIG", default_value = "assay.toml")]
        config: PathBuf,
    },
    /// Change the key that seals secrets in the database.
    Keys(assay::keys::Args),
    /// Make an API token and print it, once.
    Token(assay::token::Args),
    /// Run a whole pilot on this machine: the real server, a simulated fleet, one ACME policy.
    Pilot(assay::pilot::Args),
    /// Drive simulated devices against a server.
    Simulate(assay::simulate::Args),
    /// Write certificate authorities, label rules and ACME policies from a file, after showing what changes.
    Apply(assay::cli::apply::Args),
    /// Print certificate authorities, label rules and ACME policies as the file that apply takes.
    Export(assay::cli::export::Args),
    /// Tell what a policy gives a device and why, or a whole scope counted by reason.
    Explain(assay::cli::explain::Args),
    /// Tell how the ACME policies of a running server fare: in words, or as an HTML page with charts.
    Report(assay::cli::report::Args),
    /// Print the OpenAPI document of the REST API.
    Openapi,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    assay::install_crypto();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("assay: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match cli.command {
            Command::Serve { config } => assay::serve::run(&config).await.map(|()| ExitCode::SUCCESS),
            Command::Check { config } => Ok(assay::check::run(&config).await),
            Command::Keys(args) => assay::keys::run(&args).await.map(|()| ExitCode::SUCCESS),
            Command::Token(args) => assay::token::run(&args).await.map(|()| ExitCode::SUCCESS),
            Command::Pilot(args) => Box::pin(assay::pilot::run(args)).await,
            Command::Simulate(args) => Box::pin(assay::simulate::run(args)).await,
            Command::Report(args) => assay::cli::report::run(args).await.map(|()| ExitCode::SUCCESS),
            Command::Apply(args) => Box::pin(assay::cli::apply::run(args)).await,
            Command::Export(args) => assay::cli::export::run(args).await.map(|()| ExitCode::SUCCESS),
            Command::Explain(args) => assay::cli::explain::run(args).await.map(|()| ExitCode::SUCCESS),
            Command::Openapi => {
                println!("{}", api::openapi());
                Ok(ExitCode::SUCCESS)
            }
        }
    });
    done.unwrap_or_else(|e| {
        eprintln!("assay: {e:#}");
        ExitCode::FAILURE
    })
}
