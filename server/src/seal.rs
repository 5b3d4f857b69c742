//! The sealing key: read from its file, made at the first start, and proven to be the database's own.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use mdm_core::crypto::seal::Sealer;
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use store::Store;
use store::sentinel::Sentinel;

const SENTINEL_CONTEXT: &str = "seal_sentinel.sealed:1";
const SENTINEL: &[u8] = b"assay";

/// Gives the sealer for this database. A key file is made only for a database that has never been sealed.
///
/// # Errors
/// The file is missing although the database was sealed, readable by others, malformed, or holds another key (TH-66).
pub async fn open(store: &Store, file: &Path, random: &Random, now: Timestamp) -> Result<Sealer> {
    let mut tx = store.begin().await?;
    let sentinel = store::sentinel::get(&mut tx).await?;
    if let Some(sentinel) = &sentinel {
        finish(file, sentinel)?;
    }
    let sealer = match (file.exists(), &sentinel) {
        (true, _) => read(file)?,
        (false, None) => make(file, random)?,
        (false, Some(sentinel)) => bail!(
            "the sealing key file {} is missing, and this database was sealed with key {}: put that file back",
            file.display(),
            sentinel.key_id
        ),
    };
    match sentinel {
        None => {
            let sealed = sealer.seal(SENTINEL_CONTEXT, SENTINEL, random);
            store::sentinel::insert(&mut tx, &sealer.key_id(), &sealed, now).await?;
        }
        Some(sentinel) => prove(&sealer, &sentinel, file)?,
    }
    tx.commit().await?;
    Ok(sealer)
}

/// Says whether the key file opens this database, changing nothing.
pub async fn check(store: &Store, file: &Path) -> Result<String> {
    let Some(sentinel) = store::sentinel::get(&mut store.read().await?).await? else {
        return Ok("the first start makes it".to_owned());
    };
    let sealer = read(file)?;
    prove(&sealer, &sentinel, file)?;
    Ok(format!("{} holds key {}, with which the database was sealed", file.display(), sealer.key_id()))
}

/// Whether this is the key that the database was sealed with.
pub(crate) fn prove(sealer: &Sealer, sentinel: &Sentinel, file: &Path) -> Result<()> {
    sealer.open(SENTINEL_CONTEXT, &sentinel.sealed).map(|_| ()).with_context(|| {
        format!(
            "{} holds key {}, but this database was sealed with key {}",
            file.display(),
            sealer.key_id(),
            sentinel.key_id
        )
    })
}

/// Reads a key file.
pub(crate) fn read(file: &Path) -> Result<Sealer> {
    let about = || format!("the sealing key file {}", file.display());
    let mode = std::fs::metadata(file).with_context(about)?.permissions().mode();
    if mode & 0o037 != 0 {
        bail!("{} can be read by others: chmod 640 it, or stricter", about());
    }
    let text = std::fs::read_to_string(file).with_context(about)?;
    let mut key = [0; 32];
    hex::decode_to_slice(text.trim(), &mut key)
        .with_context(|| format!("{} must hold 64 hexadecimal digits", about()))?;
    Ok(Sealer::new(&key))
}

/// Makes a key file.
pub(crate) fn make(file: &Path, random: &Random) -> Result<Sealer> {
    let key: [u8; 32] = random.bytes();
    let text = hex::encode(key);
    let about = || format!("cannot make the sealing key file {}", file.display());
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).with_context(about)?;
    writeln!(out, "{text}").and_then(|()| out.sync_all()).with_context(about)?;
    tracing::warn!(file = %file.display(), "made a sealing key: back it up apart from the database, neither is of use without the other");
    Ok(Sealer::new(&key))
}

/// Where the next key lies while `assay keys rotate` is under way.
pub(crate) fn next_file(file: &Path) -> PathBuf {
    beside(file, "new")
}

fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    name.into()
}

/// Writes a copy of a key file that nobody else can read.
pub(crate) fn keep_as(file: &Path, copy: &Path) -> Result<()> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let about = || format!("cannot write {}", copy.display());
    let mut out =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(copy).with_context(about)?;
    out.write_all(&text).and_then(|()| out.sync_all()).with_context(about)
}

/// Puts the next key in the place of the old one, which is kept; gives where.
pub(crate) fn swap(file: &Path, old: &str) -> Result<PathBuf> {
    let (next, kept) = (next_file(file), beside(file, &format!("{old}.old")));
    if file.exists() {
        keep_as(file, &kept)?;
    }
    std::fs::rename(&next, file).with_context(|| {
        format!("the database is sealed with the key in {}: put it in the place of {}", next.display(), file.display())
    })?;
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).context("cannot write the key's folder")?;
    }
    Ok(kept)
}

/// Ends a rotation that was broken off after the database was sealed anew, and before the key file was changed.
pub(crate) fn finish(file: &Path, sentinel: &Sentinel) -> Result<()> {
    let next = next_file(file);
    if !next.exists() || (file.exists() && prove(&read(file)?, sentinel, file).is_ok()) {
        return Ok(());
    }
    if prove(&read(&next)?, sentinel, &next).is_ok() {
        let old = if file.exists() { read(file)?.key_id() } else { String::new() };
        swap(file, &old)?;
        tracing::warn!(file = %file.display(), "took the new sealing key: a rotation had been broken off at its end");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn th_66_another_key_or_a_missing_file_is_refused_by_key_id() {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(&store::Settings::new(format!("sqlite:{}/a.db", folder.path().display()))).await.unwrap();
        let file = folder.path().join("seal.key");
        let now = Timestamp(0);
        let first = open(&store, &file, &Random::System, now).await.unwrap();
        assert_eq!(open(&store, &file, &Random::System, now).await.unwrap().key_id(), first.key_id());

        std::fs::remove_file(&file).unwrap();
        let missing = open(&store, &file, &Random::System, now).await.unwrap_err().to_string();
        assert!(missing.contains(&first.key_id()), "{missing}");

        make(&file, &Random::System).unwrap();
        let other = open(&store, &file, &Random::System, now).await.unwrap_err().to_string();
        assert!(other.contains(&first.key_id()), "{other}");
    }

    #[test]
    fn th_66_a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seal.key");
        std::fs::write(&file, "00".repeat(32)).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("chmod 640"));
    }
}
