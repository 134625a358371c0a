//! Changing properties of an existing image that are otherwise chosen when it is created.
//!
//! What is asked for is checked before anything changes, as far as it can be known then. Each single change is complete and
//! durable before the next one begins, so that after a crash the image has some of the new properties.

use std::sync::Arc;

use super::check;
use super::create_options::Compat;
use super::expand::OnProgress;
use super::feature::{Autoclear, Compatible, Incompatible};
use super::header::{Compression, Header};
use super::image::Image;
use crate::crypto::luks::{self, SlotState};
use crate::driver::{Amendment, Resize};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::options;
use crate::options::{OptionError, Size};

/// Base 2 logarithm of the only refcount width of version 2.
const V2_REFCOUNT_ORDER: u32 = 4;

options! {
    /// Options that can be amended.
    pub struct AmendOptions {
        /// Size of the virtual disk
        "size" => size: Option<Size>,
        /// Version of the format: 0.10 (v2) or 1.1 (v3)
        "compat" => compat: Option<Compat>,
        /// Backing file; only the present one: use rebase to change it
        "backing_file" => backing_file: Option<String>,
        /// Format of the backing file; only the present one
        "backing_fmt" => backing_fmt: Option<String>,
        /// File that holds the guest's data, where the image has one
        "data_file" => data_file: Option<String>,
        /// Keep the data file usable as a raw image of the virtual disk; can only be switched off
        "data_file_raw" => data_file_raw: Option<bool>,
        /// Update refcounts late, at the price of a repair after a crash
        "lazy_refcounts" => lazy_refcounts: Option<bool>,
        /// Bits of a refcount: 1, 2, 4, 8, 16, 32 or 64
        "refcount_bits" => refcount_bits: Option<u64>,
        /// New state of key slots of the encryption: active or inactive
        "encrypt.state" => encrypt_state: Option<SlotState>,
        /// ID of the secret with the passphrase of a slot that becomes active
        "encrypt.new-secret" => encrypt_new_secret: Option<String>,
        /// ID of the secret with the passphrase of the slots that become inactive
        "encrypt.old-secret" => encrypt_old_secret: Option<String>,
        /// The key slot, 0 to 7
        "encrypt.keyslot" => encrypt_keyslot: Option<u32>,
        /// Milliseconds to spend on key derivation (default: 2000)
        "encrypt.iter-time" => encrypt_iter_time: Option<u64>,
    }
}

impl AmendOptions {
    /// What is to change about key slots, if anything.
    fn key_slots(&self) -> Option<luks::AmendOptions> {
        let slots = luks::AmendOptions {
            state: self.encrypt_state,
            new_secret: self.encrypt_new_secret.clone(),
            old_secret: self.encrypt_old_secret.clone(),
            keyslot: self.encrypt_keyslot,
            iter_time: self.encrypt_iter_time,
        };
        (slots != luks::AmendOptions::default()).then_some(slots)
    }
}

/// What an image is to become.
struct Plan {
    version: u32,
    refcount_order: u32,
}

fn conflict(name: &str, problem: &str) -> Error {
    Error::Option(OptionError::Conflict { name: name.to_owned(), problem: problem.to_owned() })
}

impl Plan {
    /// Checks all that `options` ask of the image with this header.
    fn new(options: &AmendOptions, header: &Header) -> Result<Plan> {
        let version = match options.compat {
            None => header.version,
            Some(Compat::V2) => 2,
            Some(Compat::V3) => 3,
        };
        let refcount_order = match options.refcount_bits {
            None => header.refcount_order,
            Some(bits) if bits.is_power_of_two() && bits <= 64 => bits.trailing_zeros(),
            Some(bits) => {
                return Err(Error::Option(OptionError::Invalid {
                    name: "refcount_bits".to_owned(),
                    value: bits.to_string(),
                    expected: "1, 2, 4, 8, 16, 32 or 64".to_owned(),
                }));
            }
        };
        let backing = [
            ("backing_file", &options.backing_file, &header.backing_file),
            ("backing_fmt", &options.backing_fmt, &header.extensions.backing_format),
        ];
        for (name, wanted, present) in backing {
            if wanted.as_deref().is_some_and(|w| w != present.as_deref().unwrap_or_default()) {
                return Err(conflict(name, "cannot be amended; use rebase to change it"));
            }
        }
        let has_data_file = header.incompatible.contains(Incompatible::DATA_FILE);
        if options.data_file.is_some() && !has_data_file {
            let problem = "can be set only for images that have a data file already";
            return Err(conflict("data_file", problem));
        }
        let is_raw = header.autoclear.contains(Autoclear::RAW_DATA_FILE);
        if options.data_file_raw == Some(true) && !is_raw {
            return Err(conflict("data_file_raw", "cannot be set for an existing image"));
        }
        if version < 3 {
            check_version_2(options, header, refcount_order)?;
        }
        Ok(Plan { version, refcount_order })
    }
}

/// Fails if the image has, or is to have, something that version 2 does not know.
fn check_version_2(options: &AmendOptions, header: &Header, refcount_order: u32) -> Result<()> {
    if options.lazy_refcounts == Some(true) {
        return Err(conflict("lazy_refcounts", "needs version 3 (compat=1.1)"));
    }
    if refcount_order != V2_REFCOUNT_ORDER {
        let problem = "must be 16 in version 2; amend refcount_bits=16 as well";
        return Err(conflict("refcount_bits", problem));
    }
    let features = [
        (Incompatible::DATA_FILE, "it has an external data file"),
        (Incompatible::EXTENDED_L2, "it has extended L2 entries"),
    ];
    for (feature, problem) in features {
        if header.incompatible.contains(feature) {
            return Err(conflict("compat", &format!("version 2 is not possible: {problem}")));
        }
    }
    if header.compression != Compression::Deflate {
        return Err(conflict("compat", "version 2 is not possible: it is compressed with zstd"));
    }
    if header.has_valid_bitmaps() {
        let problem = "version 2 is not possible: it has persistent bitmaps; remove them first";
        return Err(conflict("compat", problem));
    }
    Ok(())
}

impl Image {
    /// Amends the image; secrets are in `graph`, and with `force` key slots may be lost.
    pub(super) async fn amend(
        self: &Arc<Image>,
        graph: &Graph,
        change: Amendment<'_>,
    ) -> Result<()> {
        let Amendment { mut options, force, progress } = change;
        let amend = AmendOptions::take(&mut options)?;
        options::reject_leftovers(&options, "amendment of format 'qcow2'", &[AmendOptions::TABLE])?;
        self.check_sound()?;
        let header = self.header.lock().clone();
        let plan = Plan::new(&amend, &header)?;
        if let Some(key_slots) = amend.key_slots() {
            self.amend_key_slots(graph, &key_slots, force).await?;
        }
        if plan.version > header.version {
            self.upgrade().await?;
        }
        if let Some(Size(size)) = amend.size.filter(|size| size.0 != self.size()) {
            self.resize(size, Resize::default()).await?;
        }
        if plan.version < header.version {
            // Whether that is possible can depend on the size.
            self.check_snapshots_for_version_2().await?;
        }
        if amend.data_file.is_some() || amend.data_file_raw == Some(false) {
            self.change_header(|header| {
                if let Some(name) = amend.data_file {
                    header.extensions.data_file = Some(name).filter(|name| !name.is_empty());
                }
                if amend.data_file_raw == Some(false) {
                    header.autoclear -= Autoclear::RAW_DATA_FILE;
                }
            })
            .await?;
        }
        if let Some(lazy) = amend.lazy_refcounts {
            // Without the feature nobody expects refcounts that lag behind.
            self.settle().await?;
            self.clear_dirty().await?;
            self.change_features(|header| header.compatible.set(Compatible::LAZY_REFCOUNTS, lazy))
                .await?;
        }
        if plan.refcount_order != header.refcount_order {
            self.change_refcount_width(plan.refcount_order).await?;
        }
        if plan.version < header.version {
            self.downgrade(progress).await?;
        }
        Ok(())
    }

    async fn upgrade(self: &Arc<Image>) -> Result<()> {
        self.complete_snapshots().await?;
        self.change_header(|header| header.version = 3).await?;
        self.adopt_geometry();
        Ok(())
    }

    async fn change_refcount_width(self: &Arc<Image>, order: u32) -> Result<()> {
        self.change_alone(async |image| {
            let mut header = image.header.lock().clone();
            let changed =
                check::change_refcount_width(&image.file, &mut header, &image.label, order).await;
            match changed {
                Err(refusal @ Error::Unsupported { .. }) => Ok(Err(refusal)),
                Err(error) => Err(error),
                Ok(()) => {
                    image.reload(header);
                    Ok(Ok(()))
                }
            }
        })
        .await
    }

    /// Fails if a snapshot is of another size, which version 2 cannot say.
    async fn check_snapshots_for_version_2(&self) -> Result<()> {
        for snapshot in &self.read_snapshots().await?.snapshots {
            if snapshot.disk_size().is_some_and(|size| size != self.size()) {
                let problem = "version 2 is not possible: a snapshot has a disk of another size";
                return Err(conflict("compat", problem));
            }
        }
        Ok(())
    }

    async fn downgrade(self: &Arc<Image>, progress: OnProgress<'_>) -> Result<()> {
        self.begin_write().await?;
        self.expand_zeroes(progress).await?;
        self.settle().await?;
        self.clear_dirty().await?;
        self.change_header(|header| {
            header.version = 2;
            header.incompatible = Incompatible::empty();
            header.compatible = Compatible::empty();
            header.autoclear = Autoclear::empty();
            header.unknown_fields.clear();
        })
        .await?;
        self.adopt_geometry();
        Ok(())
    }
}
