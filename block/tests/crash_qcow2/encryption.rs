//! Encrypted images: requests to them, and key slots that come and go.

use cairn_testkit::qcow2::Layout;
use cairn_testkit::seeded;

use crate::requests::survey;
use crate::session::Session;
use crate::survey::{Demand, Image, KIB, on_io_thread};

#[test]
fn requests() {
    let layout = Layout { encrypted: true, ..Layout::new("encrypted", &[], 16 * KIB, 60) };
    survey(layout, &layout.profile(60), 0xec, 800);
}

/// The first passphrase must open the image at every moment.
#[test]
fn key_slots() {
    let seed = seeded(0x4e);
    let layout = Layout { encrypted: true, ..Layout::new("key_slots", &[], 16 * KIB, 60) };
    on_io_thread(async {
        let image = Image::new(layout, seed, layout.blank().await.unwrap());
        let mut session = Session::begin(&image).await;
        session.write(0, 300 * KIB, 1).await;
        let add = [
            ("encrypt.state", "active"),
            ("encrypt.new-secret", Layout::OTHER_SECRET),
            ("encrypt.iter-time", "0"),
        ];
        session.amend(&add).await;
        session.write(100 * KIB, 100 * KIB, 2).await;
        session.amend(&[("encrypt.state", "inactive"), ("encrypt.keyslot", "1")]).await;
        session = session.reopen().await;
        session.amend(&add).await;
        session.write(200 * KIB, 300 * KIB, 3).await;
        let other = ("encrypt.old-secret", Layout::OTHER_SECRET);
        session.amend(&[("encrypt.state", "inactive"), other]).await;
        session.judge(Demand::Clean, seed, 300).await;
    });
}
