//! qcow2 images, one creation option or a combination at a time.

use crate::images;

images! {
    qcow2_default: "qcow2", |m| m.convert("");
    qcow2_version_2: "qcow2", |m| m.convert("-o compat=0.10");
    qcow2_version_2_small_clusters: "qcow2", |m| m.convert("-o compat=0.10,cluster_size=1k");
    qcow2_version_2_large_clusters: "qcow2", |m| m.convert("-o compat=0.10,cluster_size=2M");

    qcow2_cluster_512: "qcow2", |m| m.convert("-o cluster_size=512");
    qcow2_cluster_1k: "qcow2", |m| m.convert("-o cluster_size=1k");
    qcow2_cluster_2k: "qcow2", |m| m.convert("-o cluster_size=2k");
    qcow2_cluster_4k: "qcow2", |m| m.convert("-o cluster_size=4k");
    qcow2_cluster_8k: "qcow2", |m| m.convert("-o cluster_size=8k");
    qcow2_cluster_16k: "qcow2", |m| m.convert("-o cluster_size=16k");
    qcow2_cluster_32k: "qcow2", |m| m.convert("-o cluster_size=32k");
    qcow2_cluster_128k: "qcow2", |m| m.convert("-o cluster_size=128k");
    qcow2_cluster_256k: "qcow2", |m| m.convert("-o cluster_size=256k");
    qcow2_cluster_512k: "qcow2", |m| m.convert("-o cluster_size=512k");
    qcow2_cluster_1m: "qcow2", |m| m.convert("-o cluster_size=1M");
    qcow2_cluster_2m: "qcow2", |m| m.convert("-o cluster_size=2M");

    qcow2_refcount_1: "qcow2", |m| m.convert("-o refcount_bits=1");
    qcow2_refcount_2: "qcow2", |m| m.convert("-o refcount_bits=2");
    qcow2_refcount_4: "qcow2", |m| m.convert("-o refcount_bits=4");
    qcow2_refcount_8: "qcow2", |m| m.convert("-o refcount_bits=8");
    qcow2_refcount_32: "qcow2", |m| m.convert("-o refcount_bits=32");
    qcow2_refcount_64: "qcow2", |m| m.convert("-o refcount_bits=64");
    qcow2_refcount_64_cluster_512: "qcow2", |m| m.convert("-o refcount_bits=64,cluster_size=512");
    qcow2_refcount_1_cluster_512: "qcow2", |m| m.convert("-o refcount_bits=1,cluster_size=512");

    qcow2_lazy_refcounts: "qcow2", |m| m.convert("-o lazy_refcounts=on");

    qcow2_extended_l2: "qcow2", |m| m.convert("-o extended_l2=on");
    qcow2_extended_l2_16k: "qcow2", |m| m.convert("-o extended_l2=on,cluster_size=16k");
    qcow2_extended_l2_128k: "qcow2", |m| m.convert("-o extended_l2=on,cluster_size=128k");
    qcow2_extended_l2_2m: "qcow2", |m| m.convert("-o extended_l2=on,cluster_size=2M");

    qcow2_zlib: "qcow2", |m| m.convert("-c");
    qcow2_zlib_version_2: "qcow2", |m| m.convert("-c -o compat=0.10");
    qcow2_zlib_cluster_512: "qcow2", |m| m.convert("-c -o cluster_size=512");
    qcow2_zlib_cluster_4k: "qcow2", |m| m.convert("-c -o cluster_size=4k");
    qcow2_zlib_cluster_2m: "qcow2", |m| m.convert("-c -o cluster_size=2M");
    qcow2_zlib_extended_l2: "qcow2", |m| m.convert("-c -o extended_l2=on");
    qcow2_zstd: "qcow2", |m| m.convert("-c -o compression_type=zstd");
    qcow2_zstd_cluster_4k: "qcow2", |m| m.convert("-c -o compression_type=zstd,cluster_size=4k");
    qcow2_zstd_cluster_2m: "qcow2", |m| m.convert("-c -o compression_type=zstd,cluster_size=2M");
    qcow2_zstd_uncompressed: "qcow2", |m| m.convert("-o compression_type=zstd");

    qcow2_empty_disk: "qcow2", |m| m.create("", "0");
    qcow2_one_byte: "qcow2", |m| m.create("", "1");
    qcow2_one_terabyte: "qcow2", |m| m.create("-o cluster_size=2M", "1T")
        .io("write -P 7 1000G 64k");
    qcow2_odd_sectors: "qcow2", |m| m.convert_sized((64 << 10) + 512, "");
    qcow2_unaligned_source: "qcow2", |m| m.convert_sized((1 << 20) + 77, "");
    qcow2_metadata: "qcow2", |m| m.create("-o preallocation=metadata", "3M");
    qcow2_falloc: "qcow2", |m| m.create("-o preallocation=falloc", "3M");
    qcow2_full: "qcow2", |m| m.create("-o preallocation=full", "3M");
    qcow2_metadata_converted: "qcow2", |m| m.convert("-o preallocation=metadata");
    qcow2_full_converted: "qcow2", |m| m.convert("-o preallocation=full");
    qcow2_metadata_extended_l2: "qcow2", |m| m
        .create("-o preallocation=metadata,extended_l2=on,cluster_size=32k", "3M");
    qcow2_metadata_cluster_512: "qcow2", |m| m
        .create("-o preallocation=metadata,cluster_size=512", "3M");

    qcow2_data_file: "qcow2", |m| m.convert("-o data_file=disk.data");
    qcow2_data_file_raw: "qcow2", |m| m.convert("-o data_file=disk.data,data_file_raw=on");
    qcow2_data_file_extended_l2: "qcow2", |m| m.convert("-o data_file=disk.data,extended_l2=on");
    qcow2_data_file_metadata: "qcow2", |m| m
        .create("-o data_file=disk.data,preallocation=metadata", "3M");
    qcow2_data_file_raw_created: "qcow2", |m| m
        .create("-o data_file=disk.data,data_file_raw=on", "3M").io("write -P 5 1M 64k");

    qcow2_every_zero_written: "qcow2", |m| m.convert("-S 0");
    qcow2_parallel_out_of_order: "qcow2", |m| m.convert("-W -m 16");
    qcow2_created_then_filled: "qcow2", |m| m.create("", "4M").source("source", 3 << 20)
        .img("convert -n -f raw -O qcow2 source disk");
}
