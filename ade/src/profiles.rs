//! Profiles as operators write them, and for which devices they are wished.

use mdm_core::time::Timestamp;
use store::Tx;
use store::ade::{Device, Profile};

use crate::{Context, Definition, Error};

/// Creates the profile with this name, or gives it another body; true where it was created. Servers are visited at once:
/// what is defined at Apple can't be changed, so it is defined anew and assigned again.
pub async fn put(
    tx: &mut Tx,
    context: &Context,
    name: &str,
    definition: &Definition,
    actor: &str,
    now: Timestamp,
) -> Result<(Profile, bool), Error> {
    definition.check()?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !(1..=64).contains(&name.len()) || !name.chars().all(fits) {
        return Err(Error::Name);
    }
    let body = definition.to_stored();
    let (id, created) = match store::ade::profiles::by_name(tx, name).await? {
        Some(profile) if profile.body == body => return Ok((profile, false)),
        Some(profile) => {
            store::ade::profiles::revise(tx, profile.id, &body, now).await?;
            store::ade::servers::all_due(tx, now).await?;
            (profile.id, false)
        }
        None => {
            let id = context.random.uuid_v7(now);
            let profile = Profile {
                id,
                name: name.to_owned(),
                revision: 1,
                body,
                created_by: actor.to_owned(),
                created_at: now.0,
                updated_at: now.0,
            };
            store::ade::profiles::insert(tx, &profile).await?;
            (id, true)
        }
    };
    let profile = store::ade::profiles::get(tx, id).await?.ok_or(Error::Stored("ade_profile"))?;
    Ok((profile, created))
}

/// Deletes a profile that no server and no device is to have.
pub async fn delete(tx: &mut Tx, name: &str, now: Timestamp) -> Result<(), Error> {
    let profile = find(tx, name).await?;
    match store::ade::profiles::uses(tx, profile.id).await? {
        0 => Ok(store::ade::profiles::delete(tx, profile.id, now).await?),
        uses => Err(Error::ProfileInUse(uses)),
    }
}

/// The profile with this name.
pub async fn find(tx: &mut Tx, name: &str) -> Result<Profile, Error> {
    store::ade::profiles::by_name(tx, name).await?.ok_or_else(|| Error::NoProfile(name.to_owned()))
}

/// Wishes a profile (`None`: the server's default) for devices; all of them, or none where a serial number is not listed.
pub async fn wish(tx: &mut Tx, serials: &[String], profile: Option<&str>, now: Timestamp) -> Result<(), Error> {
    let profile = match profile {
        Some(name) => Some(find(tx, name).await?.id),
        None => None,
    };
    for device in devices(tx, serials).await? {
        store::ade::devices::wish(tx, device.server_id, &device.serial_number, profile, now).await?;
        store::ade::servers::due(tx, device.server_id, now).await?;
    }
    Ok(())
}

/// The devices with these serial numbers; refused where no server lists one of them.
pub async fn devices(tx: &mut Tx, serials: &[String]) -> Result<Vec<Device>, Error> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for serial in serials {
        match store::ade::device(tx, serial).await? {
            Some(device) => found.push(device),
            None => missing.push(serial.clone()),
        }
    }
    if missing.is_empty() { Ok(found) } else { Err(Error::NoDevice(missing)) }
}
