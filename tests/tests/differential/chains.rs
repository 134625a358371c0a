//! Overlays on backing files.

use crate::images;
use crate::maker::SIZE;

images! {
    overlay_on_raw: "qcow2", |m| m.source("base", SIZE)
        .create("-b base -F raw", "").io("write -P 3 100k 200k");
    overlay_on_qcow2: "qcow2", |m| m.source("source", SIZE)
        .img("convert -f raw -O qcow2 source base")
        .create("-b base -F qcow2", "").io("write -P 3 100k 200k");
    overlay_untouched: "qcow2", |m| m.source("base", SIZE).create("-b base -F raw", "");
    overlay_version_2: "qcow2", |m| m.source("base", SIZE)
        .create("-o compat=0.10 -b base -F raw", "").io("write -P 3 100k 200k");
    overlay_larger_than_base: "qcow2", |m| m.source("base", SIZE)
        .create("-b base -F raw", "8M").io("write -P 3 6M 200k").io("write -z 1M 64k");
    overlay_smaller_than_base: "qcow2", |m| m.source("base", SIZE)
        .create("-b base -F raw", "1M").io("write -P 3 900k 64k");
    overlay_zero_clusters: "qcow2", |m| m.source("base", SIZE)
        .create("-b base -F raw", "").io("write -z 64k 512k").io("write -z -u 1M 100k");
    overlay_small_clusters: "qcow2", |m| m.source("base", SIZE)
        .create("-o cluster_size=4k -b base -F raw", "").io("write -P 9 10k 3k");
    overlay_subclusters: "qcow2", |m| m.source("base", SIZE)
        .create("-o extended_l2=on,cluster_size=64k -b base -F raw", "")
        .io("write -P 9 10k 3k").io("write -z 70k 8k").io("discard 128k 64k");
    overlay_subclusters_metadata: "qcow2", |m| m.source("base", SIZE)
        .create("-o extended_l2=on,preallocation=metadata -b base -F raw", "")
        .io("write -P 9 10k 3k");
    overlay_discarded: "qcow2", |m| m.source("base", SIZE)
        .create("-b base -F raw", "").io("write -P 3 0 512k").io("discard 128k 128k");
    overlay_data_file: "qcow2", |m| m.source("base", SIZE)
        .create("-o data_file=disk.data -b base -F raw", "").io("write -P 3 100k 200k");
    overlay_depth_3: "qcow2", |m| m.source("bottom", SIZE)
        .img("create -q -f qcow2 -b bottom -F raw low")
        .io_on("low", "qcow2", "write -P 1 0 300k")
        .img("create -q -f qcow2 -o cluster_size=4k -b low -F qcow2 middle")
        .io_on("middle", "qcow2", "write -P 2 100k 300k")
        .create("-b middle -F qcow2", "").io("write -P 3 200k 300k");
    overlay_converted: "qcow2", |m| m.source("base", SIZE)
        .img("create -q -f qcow2 -b base -F raw upper")
        .io_on("upper", "qcow2", "write -P 3 100k 200k")
        .img("convert -f qcow2 -O qcow2 -B base -F raw upper disk");
    overlay_converted_compressed: "qcow2", |m| m.source("base", SIZE)
        .img("create -q -f qcow2 -b base -F raw upper")
        .io_on("upper", "qcow2", "write -P 3 100k 200k")
        .img("convert -c -f qcow2 -O qcow2 -B base -F raw upper disk");
}
