//! How much storage a new image will need.
//!
//! The numbers are those of the reference, since programs make volumes of that size: every table is
//! counted as if the image were full, and the data is added that the source really has.

use super::Qcow2;
use super::bitmap::{self, BitmapFlags};
use super::create_options::{CreateOptions, NewCrypt, NewEncryption, NewImage};
use super::geometry::Geometry;
use crate::driver::{DriverFuture, Measure, Prealloc, Status};
use crate::error::{Error, Result};
use crate::graph::{Backend, skip_filters};
use crate::options::{Dict, OptionError, Size};

/// Longest range whose status is asked for at once, in bytes, unless runs turn out to be longer: each
/// layer of a chain looks at all of it, although one that lies deeper may end the run soon.
const STEP: u64 = 1 << 30;

/// Measures an image to be created: `DriverInfo::measure` of qcow2. With a source its size counts,
/// else the option `size`.
pub(crate) fn measure(options: Dict, source: Option<&Backend>) -> DriverFuture<'_, Measure> {
    Box::pin(async move {
        let mut options = CreateOptions::parse(options, "format 'qcow2'")?;
        if let Some(source) = source {
            options.size = Some(Size(source.size()));
        }
        let image = NewImage::new(&options)?;
        let crypto = match &image.encryption {
            Some(encryption @ NewEncryption { kind: NewCrypt::Luks(_), .. }) => {
                encryption.key_secret()?;
                encryption.header_len()
            }
            _ => 0,
        };
        let geometry = Geometry::of(&image.header());
        let too_large = || {
            Error::Option(OptionError::Invalid {
                name: "size".to_owned(),
                value: image.size.to_string(),
                expected: "a size that can be measured".to_owned(),
            })
        };
        let disk =
            image.size.checked_next_multiple_of(geometry.cluster_size()).ok_or_else(too_large)?;
        let metadata = metadata_size(disk, &geometry)
            .and_then(|size| size.checked_add(crypto.next_multiple_of(geometry.cluster_size())))
            .ok_or_else(too_large)?;
        let fully_allocated = disk.checked_add(metadata).ok_or_else(too_large)?;
        let data = match source {
            _ if matches!(image.prealloc, Prealloc::Falloc | Prealloc::Full) => disk,
            // How much the backing file will provide is not known here: nothing is counted on.
            Some(_) if image.backing_file.is_some() => disk,
            Some(source) => allocated_clusters(source, &geometry).await?,
            None => 0,
        };
        let bitmaps = match source {
            Some(source) if image.version >= 3 => bitmaps_size(source, &geometry).await?,
            _ => None,
        };
        Ok(Measure { required: metadata + data, fully_allocated, bitmaps })
    })
}

/// Bytes of metadata of a full image whose virtual disk has `disk` bytes, a multiple of the cluster
/// size. `None` if the number is too large.
fn metadata_size(disk: u64, geometry: &Geometry) -> Option<u64> {
    let cluster_size = geometry.cluster_size();
    let l2_bytes = (disk >> geometry.cluster_bits)
        .checked_next_multiple_of(1 << geometry.l2_bits())?
        .checked_mul(geometry.l2_entry_size())?;
    let l1_bytes = (l2_bytes >> geometry.cluster_bits) * 8;
    let tables = cluster_size
        .checked_add(l2_bytes)?
        .checked_add(l1_bytes.checked_next_multiple_of(cluster_size)?)?;
    let clusters = tables.checked_add(disk)? >> geometry.cluster_bits;
    let (blocks, table) = geometry.refcount_structures(clusters);
    tables.checked_add((blocks + table).checked_mul(cluster_size)?)
}

/// Bytes of the clusters in which `source` has data that does not read as zeroes.
async fn allocated_clusters(source: &Backend, geometry: &Geometry) -> Result<u64> {
    let cluster_size = geometry.cluster_size();
    let size = source.size();
    let mut total = 0;
    let mut at = 0;
    let mut step = STEP;
    while at < size {
        let status = source.content_above(None, at, (size - at).min(step)).await?.extent;
        let mut next = at + status.len;
        let has_data = status.status.contains(Status::DATA | Status::ALLOCATED)
            && !status.status.contains(Status::ZERO);
        if has_data {
            let start = geometry.cluster_start(at);
            next = next.next_multiple_of(cluster_size);
            total += next - start;
        }
        if next == at {
            return Err(Error::corrupt(source.node().label(), "an extent is empty"));
        }
        at = next;
        step = status.len.saturating_mul(2).max(STEP);
    }
    Ok(total)
}

/// Bytes that the persistent bitmaps of `source` would take in the new image; `None` if the source
/// cannot have any.
async fn bitmaps_size(source: &Backend, geometry: &Geometry) -> Result<Option<u64>> {
    let node = skip_filters(source.node());
    let Some(qcow2) = node.driver().as_any().downcast_ref::<Qcow2>() else { return Ok(None) };
    let image = &qcow2.image;
    let header = image.header.lock().clone();
    if header.version < 3 {
        return Ok(None);
    }
    let extension = match header.extensions.bitmaps {
        Some(extension) if header.has_valid_bitmaps() => extension,
        _ => return Ok(Some(0)),
    };
    let cluster_size = geometry.cluster_size();
    let (mut bytes, mut directory) = (0u64, 0u64);
    for entry in bitmap::read_directory(&image.file, &extension, &image.label).await? {
        if entry.flags.contains(BitmapFlags::IN_USE) {
            continue;
        }
        let bits = node.size().div_ceil(1 << entry.granularity_bits);
        let clusters = geometry.clusters(bits.div_ceil(8));
        bytes += clusters * cluster_size + (clusters * 8).next_multiple_of(cluster_size);
        directory += entry.stored_len();
    }
    Ok(Some(bytes + directory.next_multiple_of(cluster_size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn measured(options: &[(&'static str, &str)]) -> Result<(u64, u64)> {
        let options = options.iter().fold(Dict::default(), |mut dict, (name, value)| {
            dict.insert(*name, *value);
            dict
        });
        measure(options, None).await.map(|m| (m.required, m.fully_allocated))
    }

    /// Creation options, and the sizes that the reference gives: (required, fully allocated).
    type Case = (&'static [(&'static str, &'static str)], (u64, u64));

    #[tokio::test]
    async fn sizes_are_those_of_the_reference() {
        let cases: [Case; 8] = [
            (&[("size", "1G")], (393_216, 1_074_135_040)),
            (&[("size", "1G"), ("cluster_size", "512")], (21_385_216, 1_095_127_040)),
            (&[("size", "1G"), ("preallocation", "falloc")], (1_074_135_040, 1_074_135_040)),
            (&[("size", "1G"), ("preallocation", "metadata")], (393_216, 1_074_135_040)),
            (&[("size", "1G"), ("extended_l2", "on")], (524_288, 1_074_266_112)),
            (
                &[("size", "1G"), ("refcount_bits", "64"), ("cluster_size", "4k")],
                (4_222_976, 1_077_964_800),
            ),
            (&[("size", "513")], (327_680, 393_216)),
            (&[("size", "0")], (196_608, 196_608)),
        ];
        for (options, expected) in cases {
            assert_eq!(measured(options).await.expect("can be measured"), expected, "{options:?}");
        }
        assert!(measured(&[("size", "1E")]).await.is_err());
        assert!(measured(&[]).await.is_err());
    }
}
