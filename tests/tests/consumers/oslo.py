"""What OpenStack's services see of an image, through oslo.utils.

Its arguments are a file with what `qemu-img info --output=json` says about an image, and the image.
Prints what the two readers of oslo.utils make of the report and of the image itself.
"""

import sys

from oslo_utils import imageutils
from oslo_utils.imageutils import format_inspector

with open(sys.argv[1], encoding="utf-8") as text:
    report = imageutils.QemuImgInfo(text.read(), format="json")
for name in (
    "image",
    "backing_file",
    "backing_file_format",
    "file_format",
    "virtual_size",
    "cluster_size",
    "encrypted",
):
    print(name, getattr(report, name))
for snapshot in report.snapshots:
    print("snapshot", snapshot["id"], snapshot["name"], snapshot["vm-state-size"])
data = (report.format_specific or {}).get("data", {})
print("data", sorted(data), data.get("data-file"))
print("has a disk size", report.disk_size > 0)

inspector = format_inspector.detect_file_format(sys.argv[2])
print("inspected", inspector.NAME, inspector.virtual_size)
try:
    inspector.safety_check()
    print("safe")
except format_inspector.SafetyCheckFailed as error:
    print("unsafe", sorted(error.failures))
