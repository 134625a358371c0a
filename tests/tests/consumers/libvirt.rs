//! libvirt's storage driver and its offline snapshots. It looks at the exit status only, and reads image
//! headers itself.

use crate::host::{Host, SIZE};

#[test]
fn volumes_are_created() {
    let host = Host::new();
    for (options, place) in [
        ("-f raw", "a 4096K"),
        ("-f qcow2 -o compat=0.10", "b 4096K"),
        ("-f qcow2 -o preallocation=metadata,compat=1.1,lazy_refcounts", "c 4096K"),
        ("-f qcow2 -o preallocation=falloc,compat=1.1", "d 4096K"),
        ("-f qcow2 -o nocow=on,compat=1.1,cluster_size=8192,extended_l2=off", "e 4096K"),
        ("-f qcow2 -o compat=1.1,extended_l2=on", "f 4096K"),
        ("-f qcow2 -b base.raw -o backing_fmt=raw,compat=1.1", "g 4096K"),
        ("-f qcow2 -b base.raw -o backing_fmt=raw", "h"),
    ] {
        host.text(&format!("qemu-img create {options} {place}"));
        let name = place.split(' ').next().unwrap_or(place);
        host.json(&format!("qemu-img info --output=json {name}"));
        let check = host.run(&format!("qemu-img check {name}"));
        check.expect(if name == "a" { 63 } else { 0 });
    }
}

#[test]
fn encrypted_volumes_are_created_and_resized() {
    let host = Host::new();
    let secret = "--object secret,id=vol_encrypt0,file=key";
    let cipher = "cipher-alg=aes-256,cipher-mode=xts,hash-alg=sha256,ivgen-alg=plain64,\
                  ivgen-hash-alg=sha256,iter-time=10";
    host.run_unlimited(&format!(
        "qemu-img create -f luks {secret} -o key-secret=vol_encrypt0,{cipher} l {SIZE}"
    ))
    .expect(0);
    host.run_unlimited(&format!(
        "qemu-img create -f qcow2 {secret} -o encrypt.format=luks,encrypt.key-secret=vol_encrypt0,\
         encrypt.cipher-alg=aes-256,encrypt.iter-time=10 q {}K",
        SIZE / 1024
    ))
    .expect(0);
    host.ok(&format!(
        "qemu-img convert --image-opts -n --target-image-opts {secret} \
         driver=raw,file.filename=base.raw driver=luks,file.filename=l,key-secret=vol_encrypt0"
    ));
    host.ok(&format!(
        "qemu-img resize {secret} --image-opts \
         driver=qcow2,file.filename=q,encrypt.key-secret=vol_encrypt0 {}",
        2 * SIZE
    ));
    host.ok(&format!(
        "qemu-img convert {secret} --image-opts driver=luks,file.filename=l,key-secret=vol_encrypt0 \
         -O raw open"
    ));
    host.holds("open", "raw", "base.raw");
}

#[test]
fn volumes_are_cloned_and_resized() {
    let host = Host::new();
    host.text("qemu-img convert -f raw -O qcow2 -o compat=1.1 base.raw clone");
    host.holds("clone", "qcow2", "base.raw");
    host.text("qemu-img convert -f qcow2 -O raw clone back");
    host.holds("back", "raw", "base.raw");
    host.text(&format!("qemu-img resize clone {}", 2 * SIZE));
    host.run(&format!("qemu-img resize clone {SIZE}")).expect(1);
    host.text(&format!("qemu-img resize --shrink clone {SIZE}"));
    host.holds("clone", "qcow2", "base.raw");
}

#[test]
fn offline_domains_have_snapshots() {
    let host = Host::new();
    host.ok("qemu-img create -f qcow2 -o backing_fmt=qcow2,backing_file=over.qcow2 external");
    host.text("qemu-img snapshot -c snap1 base.qcow2");
    host.text("qemu-img snapshot -a snap1 base.qcow2");
    host.text("qemu-img snapshot -d snap1 base.qcow2");
    host.run("qemu-img snapshot -d snap1 base.qcow2").expect(1);
    host.text("qemu-img rebase -u -F qcow2 -f qcow2 -b base.qcow2 external");
    host.json("qemu-img info --output=json --backing-chain external");
}
