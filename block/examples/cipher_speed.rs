//! How fast ciphers encrypt and decrypt on one core, for `cargo xtask bench crypto`: a line for each, with
//! the bytes a second at its end.

use std::error::Error;
use std::time::{Duration, Instant};

use cairn_block::crypto::{CipherAlg, CipherMode, CipherSpec, HashAlg, IvGenAlg, SectorCipher};

/// Bytes of one request: they stay in the processor's cache, as those of a copy do.
const REQUEST: usize = 64 << 10;
/// Time that each figure takes.
const TIME: Duration = Duration::from_secs(1);

fn main() -> Result<(), Box<dyn Error>> {
    for (name, alg, mode) in [
        ("aes-256-xts", CipherAlg::Aes256, CipherMode::Xts),
        ("aes-128-xts", CipherAlg::Aes128, CipherMode::Xts),
        ("aes-256-cbc", CipherAlg::Aes256, CipherMode::Cbc),
        ("serpent-256-xts", CipherAlg::Serpent256, CipherMode::Xts),
        ("twofish-256-xts", CipherAlg::Twofish256, CipherMode::Xts),
    ] {
        let spec = CipherSpec { alg, mode, ivgen: IvGenAlg::Plain64, ivgen_hash: HashAlg::Sha256 };
        let key: Vec<u8> = (0..=255).take(spec.key_len()).collect();
        let cipher = SectorCipher::new(spec, &key)?;
        println!("{name} encrypt {}", rate(|sector, data| cipher.encrypt(sector, data)));
        println!("{name} decrypt {}", rate(|sector, data| cipher.decrypt(sector, data)));
    }
    Ok(())
}

/// Bytes a second that `work` gets through.
fn rate(work: impl Fn(u64, &mut [u8])) -> f64 {
    let mut data = vec![7; REQUEST];
    let mut sector = 0;
    let started = Instant::now();
    while started.elapsed() < TIME {
        for _ in 0..16 {
            work(sector, &mut data);
            sector += (REQUEST / SectorCipher::SECTOR) as u64;
        }
    }
    let bytes = sector * SectorCipher::SECTOR as u64;
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let rate = bytes as f64 / started.elapsed().as_secs_f64();
    rate
}
