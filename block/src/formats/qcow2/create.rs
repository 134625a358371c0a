//! Creating images: the tables of an empty image, and what to allocate at once.
//!
//! The header is written last, when everything it refers to is durable: before that, the file is no
//! qcow2 image at all.

use std::sync::Arc;

use super::Qcow2;
use super::create_options::{CreateOptions, NewCrypt, NewEncryption, NewImage};
use super::extension::CryptoExtension;
use super::geometry::Geometry;
use super::header::{Header, MAX_REFTABLE_BYTES};
use super::refcount::Codec;
use crate::buf::IoBuf;
use crate::crypto::luks::Area;
use crate::driver::{DriverFuture, Perm, Prealloc, Resize, WriteFlags};
use crate::error::{Error, Result};
use crate::formats::new_file::{Created, FileName, USED, open_file};
use crate::graph::{Backend, Graph, NodeFlags, OpenOptions};
use crate::num::AsUsize;
use crate::options::filename::{locate, protocol_for_path};
use crate::options::{Dict, OptionError};

/// Largest piece of a table that is written at once, in bytes.
const PIECE: u64 = 1 << 20;

/// Where the tables of a new image lie. All of them follow each other without gaps: the header, the
/// refcount table, the refcount blocks, the L1 table and the encryption header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    reftable_clusters: u64,
    refblocks: u64,
    l1_offset: u64,
    l1_bytes: u64,
    crypto_offset: u64,
    crypto_bytes: u64,
    /// Clusters in use.
    clusters: u64,
}

impl Layout {
    fn new(geometry: &Geometry, l1_entries: u64, crypto_bytes: u64) -> Layout {
        let l1_bytes = l1_entries * 8;
        let l1_clusters = geometry.clusters(l1_bytes);
        let crypto_clusters = geometry.clusters(crypto_bytes);
        let others = 1 + l1_clusters + crypto_clusters;
        let (refblocks, reftable_clusters) = geometry.refcount_structures(others);
        let clusters = others + reftable_clusters + refblocks;
        let crypto_cluster = clusters - crypto_clusters;
        Layout {
            reftable_clusters,
            refblocks,
            l1_offset: (crypto_cluster - l1_clusters) << geometry.cluster_bits,
            l1_bytes,
            crypto_offset: crypto_cluster << geometry.cluster_bits,
            crypto_bytes,
            clusters,
        }
    }

    /// Length of the file in bytes.
    fn end(&self) -> u64 {
        match self.crypto_bytes {
            0 => self.l1_offset + self.l1_bytes,
            bytes => self.crypto_offset + bytes,
        }
    }
}

/// Writes `bytes` at `offset` of a file, which may end before it.
async fn put(file: &Backend, offset: u64, bytes: &[u8]) -> Result<()> {
    file.node().write(offset, IoBuf::copy_of(bytes), WriteFlags::empty()).await
}

/// Writes zeroes as data, so that the space is there.
async fn put_zeroes(file: &Backend, offset: u64, len: u64) -> Result<()> {
    let zeroes = IoBuf::zeroed(len.min(PIECE).as_usize());
    let end = offset + len;
    let mut at = offset;
    while at < end {
        let piece = zeroes.slice(..(end - at).min(PIECE).as_usize());
        let next = at + piece.len() as u64;
        file.node().write(at, piece, WriteFlags::empty()).await?;
        at = next;
    }
    Ok(())
}

/// Writes an image in which nothing is allocated.
async fn write_tables(graph: &Graph, file: &Backend, image: &NewImage) -> Result<()> {
    let label = file.node().label();
    let mut header = image.header();
    let geometry = Geometry::of(&header);
    let layout = image_layout(image);
    let cluster_size = geometry.cluster_size();
    if layout.reftable_clusters * cluster_size > MAX_REFTABLE_BYTES {
        return Err(Error::Option(OptionError::Conflict {
            name: "refcount_bits".to_owned(),
            problem: "makes the refcount table too large; use a larger cluster_size".to_owned(),
        }));
    }
    header.reftable_offset = cluster_size;
    header.reftable_clusters = to_u32(layout.reftable_clusters, &label)?;
    header.l1_offset = layout.l1_offset;
    header.l1_size = to_u32(layout.l1_bytes / 8, &label)?;
    if let Some(CryptoExtension { offset, .. }) = &mut header.extensions.crypto {
        *offset = layout.crypto_offset;
    }
    let first = first_cluster(&header, &label)?;

    // What was in the file before must not be taken for an image meanwhile.
    put_zeroes(file, 0, cluster_size).await?;
    let reftable_bytes = layout.reftable_clusters * cluster_size;
    let blocks_offset = cluster_size + reftable_bytes;
    let mut reftable = vec![0; reftable_bytes.as_usize()];
    for (number, entry) in (0..layout.refblocks).zip(reftable.chunks_exact_mut(8)) {
        entry.copy_from_slice(&(blocks_offset + number * cluster_size).to_be_bytes());
    }
    put(file, cluster_size, &reftable).await?;
    let codec = Codec::new(header.refcount_order);
    let per_block = 1u64 << geometry.refblock_bits();
    for number in 0..layout.refblocks {
        let mut block = vec![0; cluster_size.as_usize()];
        let used = (layout.clusters - number * per_block).min(per_block);
        for index in 0..used.as_usize() {
            codec.set(&mut block, index, 1);
        }
        put(file, blocks_offset + number * cluster_size, &block).await?;
    }
    put_zeroes(file, layout.l1_offset, layout.l1_bytes).await?;
    write_encryption(graph, file, image, &layout).await?;
    file.flush().await?;
    put(file, 0, &first).await?;
    file.flush().await
}

/// Makes the encryption header, if there is to be one.
async fn write_encryption(
    graph: &Graph,
    file: &Backend,
    image: &NewImage,
    layout: &Layout,
) -> Result<()> {
    let Some(encryption) = &image.encryption else { return Ok(()) };
    let NewCrypt::Luks(volume) = &encryption.kind else { return Ok(()) };
    let passphrase = graph.secrets().find(encryption.key_secret()?)?;
    let (offset, len) = (layout.crypto_offset, layout.crypto_bytes);
    put_zeroes(file, offset, len).await?;
    volume.format(&Area { node: file.node(), offset, len }, &passphrase).await
}

/// The first cluster of an image with this header.
fn first_cluster(header: &Header, label: &str) -> Result<Vec<u8>> {
    let mut first =
        header.serialise().map_err(|error| Error::unsupported(label, error.to_string()))?;
    first.resize(1 << header.cluster_bits, 0);
    Ok(first)
}

fn to_u32(value: u64, label: &str) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::unsupported(label, "the image is too large"))
}

/// Makes an empty qcow2 image of the content of `file`, and lengthens `data_file` to the size of the
/// virtual disk.
///
/// `options` are the creation options of the format, without any of the protocol's. Options that
/// name a data file need the node of it, and the other way round. Both users must let others write
/// and resize; while the image is preallocated they give up their own permissions.
///
/// When this fails, `file` may hold anything, but no image that can be opened.
pub async fn format_node(
    graph: &Arc<Graph>,
    file: &Backend,
    data_file: Option<&Backend>,
    options: Dict,
) -> Result<()> {
    let options = CreateOptions::parse(options, "format 'qcow2'")?;
    let image = NewImage::new(&options)?;
    check_secret(graph, &image)?;
    write_image(graph, file, data_file, &image).await
}

async fn write_image(
    graph: &Arc<Graph>,
    file: &Backend,
    data_file: Option<&Backend>,
    image: &NewImage,
) -> Result<()> {
    match (&image.data_file, data_file) {
        (None, Some(_)) => {
            return Err(Error::Option(OptionError::Missing { name: "data_file".to_owned() }));
        }
        (Some(name), None) => {
            return Err(Error::unsupported(name.as_str(), "the data file was not opened"));
        }
        _ => {}
    }
    let old_size = file.size();
    write_tables(graph, file, image).await?;
    if old_size > file_end(image) {
        // A regular file sheds what it held before; a device keeps its size.
        let how = Resize { exact: false, ..Resize::default() };
        file.resize(file_end(image), how).await?;
    }
    if let Some(data_file) = data_file
        && data_file.size() < image.size
    {
        let prealloc = match image.prealloc {
            Prealloc::Metadata => Prealloc::Off,
            other => other,
        };
        let how = Resize { exact: false, prealloc, zero_new: false };
        data_file.resize(image.size, how).await?;
    }
    if image.prealloc != Prealloc::Off && image.size > 0 {
        preallocate(graph, file, data_file, image).await?;
    }
    Ok(())
}

fn file_end(image: &NewImage) -> u64 {
    image_layout(image).end()
}

fn image_layout(image: &NewImage) -> Layout {
    let crypto_bytes = image.encryption.as_ref().map_or(0, NewEncryption::header_len);
    Layout::new(&Geometry::of(&image.header()), image.l1_entries(), crypto_bytes)
}

/// Opens the new image and allocates all of the virtual disk.
async fn preallocate(
    graph: &Arc<Graph>,
    file: &Backend,
    data_file: Option<&Backend>,
    image: &NewImage,
) -> Result<()> {
    let mut options = Dict::default();
    options.insert("driver", "qcow2");
    options.insert("file", file.node().name());
    if let Some(data_file) = data_file {
        options.insert("data-file", data_file.node().name());
    }
    if let Some(encryption) = &image.encryption {
        options.insert("encrypt.key-secret", encryption.key_secret()?);
    }
    // The image is the only user that writes for now.
    let users = [Some(file), data_file];
    for user in users.into_iter().flatten() {
        user.set_permissions(Perm::empty(), Perm::all())?;
    }
    let result = preallocate_opened(graph, options, image).await;
    for user in users.into_iter().flatten() {
        user.set_permissions(USED, Perm::all())?;
    }
    result
}

async fn preallocate_opened(graph: &Arc<Graph>, options: Dict, image: &NewImage) -> Result<()> {
    let flags = NodeFlags { no_backing: true, unmap: true, ..NodeFlags::default() };
    let node = graph.open(OpenOptions { filename: None, options, flags }).await?;
    let user = Backend::new(graph, Arc::clone(&node), "create", USED, Perm::all())?;
    let result = match node.driver().as_any().downcast_ref::<Qcow2>() {
        Some(qcow2) => qcow2.image.preallocate(0, image.size, image.prealloc).await,
        None => Ok(()),
    };
    result.and(user.close().await)
}

/// Fails if the image is to be encrypted and there is no key.
fn check_secret(graph: &Graph, image: &NewImage) -> Result<()> {
    match &image.encryption {
        Some(encryption) => graph.secrets().find(encryption.key_secret()?).map(drop),
        None => Ok(()),
    }
}

/// Creates an image: `DriverInfo::create` of qcow2. Options that the format does not know go to the
/// protocol.
pub(crate) fn create<'a>(
    graph: &'a Arc<Graph>,
    filename: &'a str,
    mut options: Dict,
) -> DriverFuture<'a, ()> {
    Box::pin(async move {
        let own = CreateOptions::take(&mut options)?;
        let image = NewImage::new(&own)?;
        check_secret(graph, &image)?;
        // Nothing is created if the header cannot hold the names.
        first_cluster(&image.header(), filename)?;
        let mut protocol_options = options;
        protocol_options.insert("size", 0u64);
        let protocol = locate(filename, None)?.driver;
        let file = Created::new(graph, protocol, filename, protocol_options.clone()).await?;
        let result = async {
            let data_file = match &image.data_file {
                None => None,
                Some(name) => {
                    let protocol = protocol_for_path(name)?;
                    let created = Created::new(graph, protocol, name, protocol_options).await;
                    Some(created.map_err(|error| error.context("cannot create the data file"))?)
                }
            };
            let result = write_files(graph, filename, &image).await;
            if let (Err(_), Some(data_file)) = (&result, data_file) {
                data_file.remove();
            }
            result
        }
        .await;
        if result.is_err() {
            file.remove();
        }
        result
    })
}

/// Writes an image into files that exist.
async fn write_files(graph: &Arc<Graph>, filename: &str, image: &NewImage) -> Result<()> {
    let file = open_file(graph, FileName::Any(filename)).await?;
    let result = match &image.data_file {
        None => write_image(graph, &file, None, image).await,
        Some(name) => match open_file(graph, FileName::Path(name)).await {
            Ok(data_file) => {
                let result = write_image(graph, &file, Some(&data_file), image).await;
                result.and(data_file.close().await)
            }
            Err(error) => Err(error),
        },
    };
    result.and(file.close().await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(cluster_bits: u32, refcount_order: u32, l1_entries: u64) -> Layout {
        let geometry = Geometry {
            cluster_bits,
            refcount_order,
            extended_l2: false,
            external_data: false,
            zero_flag: true,
        };
        Layout::new(&geometry, l1_entries, 0)
    }

    #[test]
    fn a_usual_image_has_four_clusters_of_metadata() {
        let layout = layout(16, 4, 2);
        assert_eq!((layout.clusters, layout.l1_offset, layout.end()), (4, 0x30000, 0x30010));
    }

    #[test]
    fn refcounts_cover_themselves() {
        for (cluster_bits, order) in [(9, 0), (9, 4), (9, 6), (12, 6), (21, 4)] {
            for l1_entries in [0, 1, 63, 64, 16_000, 1 << 20, 4 << 20] {
                let layout = layout(cluster_bits, order, l1_entries);
                let cluster = 1u64 << cluster_bits;
                let per_block = (cluster * 8) >> order;
                let l1_clusters = layout.l1_bytes.div_ceil(cluster);
                let total = 1 + layout.reftable_clusters + layout.refblocks + l1_clusters;
                assert_eq!(layout.clusters, total);
                assert!(layout.refblocks * per_block >= total);
                assert!(layout.reftable_clusters * cluster / 8 >= layout.refblocks);
            }
        }
    }
}
