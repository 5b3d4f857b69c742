//! `assay keys rotate`: seals everything in the database anew with another key (TH-64, TH-66).
//!
//! A crash at any point leaves a state that works:
//! 1. The new key is written beside the old one, as `<file>.new`. The database knows nothing of it.
//! 2. One transaction seals every value anew, and the sentinel with them: all of it happens, or nothing.
//! 3. The old key file is kept as `<file>.<key id>.old`, and the new one takes its place.
//!
//! A crash before the end of step 2 leaves the old key good; the command takes the same new key when it is run again. After it,
//! the next start of the server (or of this command) finds the database sealed with `<file>.new` and does step 3.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args as ClapArgs, Subcommand};
use mdm_core::crypto::seal::Sealer;
use mdm_core::random::Random;
use store::sealed::PLACES;
use store::{Store, Tx, sealed};

use crate::config::Config;
use crate::seal;

/// Values that are read at a time.
const BATCH: i64 = 500;

/// Arguments of `assay keys`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Seal every secret in the database with a new key. All servers on this database must be stopped.
    Rotate(Rotate),
}

/// Arguments of `assay keys rotate`.
#[derive(Debug, ClapArgs)]
pub struct Rotate {
    /// The configuration file.
    #[arg(long, env = "ASSAY_CONFIG", default_value = "assay.toml")]
    config: PathBuf,
    /// A file with the new key, 64 hexadecimal digits. One is made where none is named.
    #[arg(long)]
    new_key_file: Option<PathBuf>,
    /// Further keys that values may still be sealed with, because a server ran on after an earlier rotation.
    #[arg(long)]
    old_key_file: Vec<PathBuf>,
    /// Go on although something else is connected to the database.
    #[arg(long)]
    others_are_no_servers: bool,
}

/// Runs `assay keys`.
pub async fn run(args: &Args) -> Result<()> {
    let Action::Rotate(args) = &args.action;
    let config = Config::load(&args.config)?;
    let mut settings = store::Settings::new(config.store_url()?);
    settings.max_connections = 1;
    let store = Store::open(&settings).await?;
    if !args.others_are_no_servers {
        let others = sealed::others_connected(&mut store.read().await?).await?;
        if others > 0 {
            bail!(
                "{others} other connection(s) to this database: stop every server first, since one that runs on would go on sealing \
                 with the old key (if none of them is a server: --others-are-no-servers)"
            );
        }
    }
    let rotation = Rotation {
        file: &config.seal_key_file(),
        new_key_file: args.new_key_file.as_deref(),
        old_key_files: &args.old_key_file,
    };
    let done = rotation.run(&store, &Random::System).await?;
    println!(
        "sealed {} value(s) with key {}; key {} is kept in {}",
        done.values,
        done.new,
        done.old,
        done.kept.display()
    );
    println!(
        "Back up {} apart from the database. Earlier backups of the database need the old key.",
        rotation.file.display()
    );
    Ok(())
}

/// What a rotation works with.
#[derive(Debug)]
pub struct Rotation<'a> {
    /// The key file of the server.
    pub file: &'a Path,
    /// The new key, where it is not to be made.
    pub new_key_file: Option<&'a Path>,
    /// Further keys that values may be sealed with.
    pub old_key_files: &'a [PathBuf],
}

/// What a rotation did.
#[derive(Debug)]
pub struct Rotated {
    /// Values that were sealed anew.
    pub values: usize,
    /// Id of the new key.
    pub new: String,
    /// Id of the old key.
    pub old: String,
    /// Where the old key is kept.
    pub kept: PathBuf,
}

impl Rotation<'_> {
    /// Seals everything anew and puts the new key in its place.
    ///
    /// # Errors
    /// A key is not this database's, or a value does not open; nothing was changed then.
    pub async fn run(&self, store: &Store, random: &Random) -> Result<Rotated> {
        let mut tx = store.begin().await?;
        let sentinel = store::sentinel::get(&mut tx).await?;
        let sentinel = sentinel.context("this database was never sealed: there is nothing to rotate")?;
        seal::finish(self.file, &sentinel)?;
        let old = seal::read(self.file)?;
        seal::prove(&old, &sentinel, self.file)?;
        let next = seal::next_file(self.file);
        let new = match self.new_key_file {
            Some(given) => {
                let new = seal::read(given)?;
                seal::keep_as(given, &next)?;
                new
            }
            // Of a rotation that was broken off.
            None if next.exists() => seal::read(&next)?,
            None => seal::make(&next, random)?,
        };
        if new.key_id() == old.key_id() {
            std::fs::remove_file(&next).with_context(|| format!("cannot remove {}", next.display()))?;
            bail!("the new key is the old one");
        }
        let mut keys = vec![old];
        for file in self.old_key_files {
            keys.push(seal::read(file)?);
        }
        let values = seal_anew(&mut tx, &keys, &new, random).await?;
        tx.commit().await?;
        let kept = seal::swap(self.file, &sentinel.key_id)?;
        Ok(Rotated { values, new: new.key_id(), old: sentinel.key_id, kept })
    }
}

/// Seals every value with the new key, in the caller's transaction.
async fn seal_anew(tx: &mut Tx, keys: &[Sealer], new: &Sealer, random: &Random) -> Result<usize> {
    let mut key_id = [0; 4];
    hex::decode_to_slice(new.key_id(), &mut key_id).context("a key id has eight digits")?;
    sealed::lock(tx).await?;
    let mut count = 0;
    for place in PLACES {
        loop {
            let values = sealed::sealed_otherwise(tx, place, &key_id, BATCH).await?;
            if values.is_empty() {
                break;
            }
            for value in values {
                let opened = keys.iter().map(|key| key.open(&value.context, &value.sealed));
                let plain = opened.reduce(Result::or).context("there is an old key")?;
                let plain = plain.with_context(|| format!("{}: nothing was changed", value.context))?;
                let anew = new.seal(&value.context, plain.expose(), random);
                sealed::reseal(tx, place, &value, &anew).await?;
                count += 1;
            }
        }
    }
    store::sentinel::named(tx, &new.key_id()).await?;
    Ok(count)
}
