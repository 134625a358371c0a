"""What oVirt's imageio does with images, through its own modules.

Its argument is an empty folder. The `qemu-img` that is meant is first in the search path; images are
written and read through the reference's `qemu-nbd`. Prints what imageio sees, which does not depend on
who made the images.
"""

import os
import sys
import tarfile

from ovirt_imageio import client
from ovirt_imageio._internal import qemu_img, qemu_nbd

FOLDER = os.path.abspath(sys.argv[1])
SIZE = 8 * 1024**2
FORMATS = [("raw", "raw"), ("qcow2", "qcow2"), ("raw", "qcow2")]


def at(name):
    return os.path.join(FOLDER, name)


def attempt(what, *args, **options):
    """The name of the error that a call raises, or "done"."""
    try:
        what(*args, **options)
    except Exception as error:  # Whatever it is, it is what imageio's callers would see.
        return type(error).__name__
    return "done"


def write(image, fmt, *pieces):
    with qemu_nbd.open(image, fmt) as disk:
        for offset, data in pieces:
            disk.write(offset, data)
        disk.flush()


def extents(image, **options):
    names = ("start", "length", "zero", "hole", "dirty")
    return [[getattr(e, name, None) for name in names] for e in client.extents(image, **options)]


def show(title, image, **member):
    info = client.info(image, **member)
    print(title, info["format"], info["virtual-size"], info.get("backing-filename"))
    for fmt in ("raw", "qcow2"):
        print("measured", fmt, sorted(client.measure(image, fmt, **member).items()))
    print("checksum", client.checksum(image, **member))
    print("extents", extents(image, **member))


for src, dst in FORMATS:
    qemu_img.create(at("src"), src, size=SIZE)
    qemu_img.create(at("dst"), dst, size=SIZE)
    write(at("dst"), dst, (SIZE // 2, b"\0"))
    compare = {"format1": src, "format2": dst}
    print(src, dst, "equal", attempt(qemu_img.compare, at("src"), at("dst"), **compare))
    print("strictly", attempt(qemu_img.compare, at("src"), at("dst"), strict=True, **compare))
    write(at("dst"), dst, (SIZE // 2, b"x"))
    print("different", attempt(qemu_img.compare, at("src"), at("dst"), **compare))
print("wrong format", attempt(qemu_img.compare, at("src"), at("src"), format1="qcow2"))
print("missing", attempt(qemu_img.compare, at("src"), at("nothing")))

for fmt in ("raw", "qcow2"):
    qemu_img.create(at("base"), fmt, size=SIZE, quiet=True)
    write(at("base"), fmt, (0, b"a" * 65536), (3 * 65536, b"b" * 4096), (SIZE - 512, b"c" * 512))
    show(fmt, at("base"))
    qemu_img.create(at("over"), "qcow2", backing_file=at("base"), backing_format=fmt)
    write(at("over"), "qcow2", (65536, b"d" * 65536))
    show("over " + fmt, at("over"))
    for compressed in (False, True):
        qemu_img.convert(at("over"), at("copy"), "qcow2", "qcow2", progress=True, compressed=compressed)
        print(attempt(qemu_img.compare, at("over"), at("copy"), format1="qcow2", format2="qcow2"))
        # Where the copy has holes is the tool's business.
        print("copied", client.checksum(at("copy")))
    qemu_img.unsafe_rebase(at("over"), at("copy"), "qcow2")
    show("rebased", at("over"))

qemu_img.create(at("tracked"), "qcow2", size=SIZE)
qemu_img.bitmap_add(at("tracked"), "record")
print(qemu_img.info(at("tracked"))["format-specific"]["data"]["bitmaps"])
write(at("tracked"), "qcow2", (0, b"e" * 4096), (SIZE // 2, b"f" * 65536))
print("dirty", extents(at("tracked"), bitmap="record"))

with tarfile.open(at("appliance.ova"), "w") as archive:
    for name in ("copy", "tracked"):
        archive.add(at(name), name)
show("member", at("appliance.ova"), member="copy")
