//! Changing the key slots of an open volume.
//!
//! At no point between two writes is a slot marked as in use whose key material is not complete. A
//! passphrase that replaces another one in its slot opens the volume by a spare slot meanwhile, so that
//! one of the two always does. What a failure leaves in doubt counts as in use.

use super::Volume;
use super::header::{Header, SLOTS, slot_place};
use super::volume::{EncryptedKey, Key, random};
use crate::error::{Error, Result};
use crate::num::AsUsize;
use crate::options::OptionError;
use crate::secret::{Secret, Secrets};
use crate::{option_words, options};

/// Milliseconds of key derivation unless the user says otherwise.
const DEFAULT_ITER_TIME: u64 = 2000;

option_words! {
    /// What key slots are to become.
    pub enum SlotState {
        /// In use, with a new passphrase.
        Active = "active",
        /// Erased.
        Inactive = "inactive",
    }
}

options! {
    /// Options that change key slots.
    #[derive(Default)]
    pub(crate) struct AmendOptions {
        /// New state of the key slots: active or inactive
        "state" => state: Option<SlotState>,
        /// ID of the secret with the passphrase of a slot that becomes active
        "new-secret" => new_secret: Option<String>,
        /// ID of the secret with the passphrase of the slots that become inactive
        "old-secret" => old_secret: Option<String>,
        /// The key slot, 0 to 7
        "keyslot" => keyslot: Option<u32>,
        /// Milliseconds to spend on key derivation (default: 2000)
        "iter-time" => iter_time: Option<u64>,
    }
}

fn conflict(name: &str, problem: &str) -> Error {
    Error::Option(OptionError::Conflict { name: name.to_owned(), problem: problem.to_owned() })
}

fn missing(name: &str) -> Error {
    Error::Option(OptionError::Missing { name: name.to_owned() })
}

impl Volume {
    /// Changes key slots as `options` say. With `force` also in ways that make data unreachable: the
    /// last slot may be erased, and one in use overwritten.
    pub(crate) async fn amend(
        &self,
        secrets: &Secrets,
        options: &AmendOptions,
        force: bool,
    ) -> Result<()> {
        let _changes = self.changes.lock().await;
        let slot = match options.keyslot.map(AsUsize::as_usize) {
            Some(slot) if slot >= SLOTS => {
                return Err(conflict("keyslot", "is not between 0 and 7"));
            }
            slot => slot,
        };
        match options.state.ok_or_else(|| missing("state"))? {
            SlotState::Active => self.activate(secrets, options, slot, force).await,
            SlotState::Inactive => self.deactivate(secrets, options, slot, force).await,
        }
    }

    async fn activate(
        &self,
        secrets: &Secrets,
        options: &AmendOptions,
        slot: Option<usize>,
        force: bool,
    ) -> Result<()> {
        let id = options.new_secret.as_deref().ok_or_else(|| missing("new-secret"))?;
        let passphrase = secrets.find(id)?;
        let header = self.header.lock().clone();
        let active = header.active_slots();
        let slot = match slot {
            Some(slot) if active.contains(&slot) && !force => {
                return Err(conflict("keyslot", "names a slot in use; erase it first"));
            }
            Some(slot) => slot,
            None => (0..SLOTS)
                .find(|slot| !active.contains(slot))
                .ok_or_else(|| conflict("state", "cannot be 'active': all key slots are in use"))?,
        };
        let opener = match &options.old_secret {
            Some(id) => secrets.find(id)?,
            None => self.passphrase.clone(),
        };
        let key = self.area.unlock(&header, &opener, self.max_iterations).await?;
        let iter_time = options.iter_time.unwrap_or(DEFAULT_ITER_TIME);
        self.fill(header, slot, &key, &passphrase, iter_time).await
    }

    /// Puts `key` into `slot`, for `passphrase`.
    async fn fill(
        &self,
        mut header: Header,
        slot: usize,
        key: &Key,
        passphrase: &Secret,
        iter_time: u64,
    ) -> Result<()> {
        let key = self.area.encrypt_key(&header, key, passphrase, iter_time).await?;
        let is_replaced = header.slot(slot).is_some_and(|slot| slot.active);
        let spare = (0..SLOTS).find(|spare| header.slot(*spare).is_some_and(|slot| !slot.active));
        let spare = spare.filter(|_| is_replaced);
        let mut filled = header.clone();
        for number in spare.into_iter().chain([slot]) {
            if let Some(slot) = filled.slots.get_mut(number) {
                *slot = key.fill(slot);
            }
        }
        filled
            .check_iterations(self.max_iterations)
            .map_err(|_| conflict("iter-time", "is so long that the volume would not be opened"))?;
        if let Some(spare) = spare {
            self.put(&mut header, spare, &key).await?;
        }
        if is_replaced {
            self.mark(&mut header, slot, false).await?;
        }
        self.put(&mut header, slot, &key).await?;
        match spare {
            Some(spare) => self.erase(&mut header, spare).await,
            None => Ok(()),
        }
    }

    /// Writes `key` into `slot`, which is not in use, and puts it into use.
    async fn put(&self, header: &mut Header, slot: usize, key: &EncryptedKey) -> Result<()> {
        let Some(filled) = header.slots.get_mut(slot) else { return Ok(()) };
        *filled = key.fill(filled);
        self.area.write(filled.offset, &key.material).await?;
        // First all of the slot but for the mark, which lies in one sector.
        filled.active = false;
        let fields = filled.serialise();
        self.area.write(slot_place(slot) as u64, &fields).await?;
        self.area.node.flush().await?;
        self.mark(header, slot, true).await
    }

    /// Writes durably whether `slot` is in use.
    async fn mark(&self, header: &mut Header, slot: usize, active: bool) -> Result<()> {
        let Some(changed) = header.slots.get_mut(slot) else { return Ok(()) };
        changed.active |= active;
        *self.header.lock() = header.clone();
        let Some(changed) = header.slots.get_mut(slot) else { return Ok(()) };
        changed.active = active;
        let fields = changed.serialise();
        let (mark, _) = fields.split_at(4);
        self.area.write(slot_place(slot) as u64, mark).await?;
        self.area.node.flush().await?;
        *self.header.lock() = header.clone();
        Ok(())
    }

    async fn deactivate(
        &self,
        secrets: &Secrets,
        options: &AmendOptions,
        slot: Option<usize>,
        force: bool,
    ) -> Result<()> {
        for (name, given) in [
            ("new-secret", options.new_secret.is_some()),
            ("iter-time", options.iter_time.is_some()),
        ] {
            if given {
                return Err(conflict(name, "goes with state=active only"));
            }
        }
        let mut header = self.header.lock().clone();
        let active = header.active_slots();
        let candidates = match slot {
            Some(slot) if !active.contains(&slot) && !force => {
                return Err(conflict("keyslot", "names a slot that is not in use"));
            }
            Some(slot) => vec![slot],
            None if options.old_secret.is_none() => {
                return Err(conflict("state", "needs a keyslot or an old-secret to be 'inactive'"));
            }
            None => active.clone(),
        };
        let mut erased = Vec::new();
        if let Some(id) = &options.old_secret {
            let passphrase = secrets.find(id)?;
            header
                .check_iterations(self.max_iterations)
                .map_err(|error| Error::unsupported(self.area.node.label(), error.to_string()))?;
            for slot in candidates {
                if self.area.try_slot(&header, slot, &passphrase).await?.is_some() {
                    erased.push(slot);
                }
            }
            if erased.is_empty() {
                return Err(Error::Passphrase { node: self.area.node.label() });
            }
        } else {
            erased = candidates;
        }
        if !force && active.iter().all(|slot| erased.contains(slot)) {
            return Err(conflict(
                "state",
                "would leave no key slot in use, so that all data would be lost",
            ));
        }
        for slot in erased {
            self.erase(&mut header, slot).await?;
        }
        Ok(())
    }

    /// Takes a slot out of use and overwrites its key material.
    async fn erase(&self, header: &mut Header, slot: usize) -> Result<()> {
        self.mark(header, slot, false).await?;
        let Some(offset) = header.slot(slot).map(|slot| slot.offset) else { return Ok(()) };
        let mut noise = vec![0; header.material_len()];
        random(&mut noise)?;
        self.area.write(offset, &noise).await?;
        self.area.node.flush().await
    }

    /// What `info` shows of the volume.
    pub(crate) fn describe(&self) -> crate::options::Dict {
        self.header.lock().describe(self.detached)
    }
}
