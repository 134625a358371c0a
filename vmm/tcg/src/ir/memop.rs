//! How memory is accessed.

/// Bytes that an access moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Size {
    /// One byte.
    B1,
    /// Two bytes.
    B2,
    /// Four bytes.
    B4,
    /// Eight bytes.
    B8,
}

impl Size {
    /// All sizes, by the logarithm of their number of bytes.
    pub const ALL: [Size; 4] = [Size::B1, Size::B2, Size::B4, Size::B8];

    /// Number of bytes.
    #[inline]
    pub const fn bytes(self) -> u64 {
        1 << self as u8
    }

    /// The lowest bits that fit.
    #[inline]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }
}

/// How an access is ordered with others of the same CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Order {
    /// As the guest's memory model has plain accesses.
    Relaxed,
    /// Before all later accesses.
    Acquire,
    /// After all earlier accesses.
    Release,
    /// Both, in one order for all CPUs.
    Sequential,
}

/// What an atomic read-modify-write stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rmw {
    /// The operand.
    Swap,
    /// The sum.
    Add,
    /// The bitwise and.
    And,
    /// The bitwise or.
    Or,
    /// The bitwise exclusive or.
    Xor,
    /// The signed minimum.
    MinS,
    /// The signed maximum.
    MaxS,
    /// The unsigned minimum.
    MinU,
    /// The unsigned maximum.
    MaxU,
}

impl Rmw {
    /// All functions, by their number.
    pub const ALL: [Rmw; 9] = [
        Rmw::Swap,
        Rmw::Add,
        Rmw::And,
        Rmw::Or,
        Rmw::Xor,
        Rmw::MinS,
        Rmw::MaxS,
        Rmw::MinU,
        Rmw::MaxU,
    ];

    /// Name in listings.
    pub fn name(self) -> &'static str {
        ["swap", "add", "and", "or", "xor", "mins", "maxs", "minu", "maxu"][self as usize]
    }
}

/// An access, packed into 16 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MemOp(u16);

impl MemOp {
    const SIGNED: u16 = 1 << 2;
    const BIG_ENDIAN: u16 = 1 << 3;
    const ALIGNED: u16 = 1 << 4;
    const NARROW: u16 = 1 << 5;
    const ORDER: u32 = 6;
    const MMU: u32 = 8;
    const RMW: u32 = 12;

    /// A little-endian access that zero-extends, at any address, relaxed.
    pub const fn new(size: Size) -> MemOp {
        MemOp(size as u16)
    }

    /// Sign-extends what is loaded.
    #[must_use]
    pub const fn signed(self) -> MemOp {
        MemOp(self.0 | MemOp::SIGNED)
    }

    /// The most significant byte first.
    #[must_use]
    pub const fn big_endian(self) -> MemOp {
        MemOp(self.0 | MemOp::BIG_ENDIAN)
    }

    /// Faults unless the address is a multiple of the size.
    #[must_use]
    pub const fn aligned(self) -> MemOp {
        MemOp(self.0 | MemOp::ALIGNED)
    }

    /// Takes the address modulo 2^32.
    #[must_use]
    pub const fn narrow(self) -> MemOp {
        MemOp(self.0 | MemOp::NARROW)
    }

    /// With another order.
    #[must_use]
    pub const fn ordered(self, order: Order) -> MemOp {
        MemOp(self.0 & !(3 << MemOp::ORDER) | (order as u16) << MemOp::ORDER)
    }

    /// Through another translation regime of the guest, of which it numbers up to 16.
    #[must_use]
    pub const fn through(self, mmu: u8) -> MemOp {
        MemOp(self.0 & !(15 << MemOp::MMU) | ((mmu & 15) as u16) << MemOp::MMU)
    }

    /// The size.
    #[inline]
    pub fn size(self) -> Size {
        Size::ALL[usize::from(self.0 & 3)]
    }

    /// Whether loads sign-extend.
    #[inline]
    pub const fn is_signed(self) -> bool {
        self.0 & MemOp::SIGNED != 0
    }

    /// Whether the most significant byte comes first.
    #[inline]
    pub const fn is_big_endian(self) -> bool {
        self.0 & MemOp::BIG_ENDIAN != 0
    }

    /// Whether other addresses than multiples of the size fault.
    #[inline]
    pub const fn is_aligned(self) -> bool {
        self.0 & MemOp::ALIGNED != 0
    }

    /// Whether addresses are taken modulo 2^32.
    #[inline]
    pub const fn is_narrow(self) -> bool {
        self.0 & MemOp::NARROW != 0
    }

    /// The order.
    #[inline]
    pub const fn order(self) -> Order {
        match self.0 >> MemOp::ORDER & 3 {
            0 => Order::Relaxed,
            1 => Order::Acquire,
            2 => Order::Release,
            _ => Order::Sequential,
        }
    }

    /// The translation regime.
    pub const fn mmu(self) -> u8 {
        (self.0 >> MemOp::MMU & 15) as u8
    }

    /// The address that `base` and `offset` make.
    #[inline]
    pub const fn address(self, base: u64, offset: i16) -> u64 {
        let sum = base.wrapping_add_signed(offset as i64);
        if self.0 & MemOp::NARROW != 0 { sum & 0xffff_ffff } else { sum }
    }

    /// The loaded `value`, extended.
    #[inline]
    pub fn extend(self, value: u64) -> u64 {
        let shift = 64 - 8 * self.size().bytes();
        if self.is_signed() {
            ((value << shift).cast_signed() >> shift).cast_unsigned()
        } else {
            value << shift >> shift
        }
    }

    pub(crate) const fn with_rmw(self, rmw: Rmw) -> MemOp {
        MemOp(self.0 & !(15 << MemOp::RMW) | (rmw as u16) << MemOp::RMW)
    }

    pub(crate) fn rmw(self) -> Rmw {
        Rmw::ALL.get(usize::from(self.0 >> MemOp::RMW)).copied().unwrap_or(Rmw::Swap)
    }

    /// The access and another 16 bits in an immediate.
    pub(crate) const fn pack(self, other: u16) -> i32 {
        (self.0 as u32 | (other as u32) << 16).cast_signed()
    }

    /// The reverse of [`MemOp::pack`].
    #[inline]
    pub(crate) const fn unpack(imm: i32) -> (MemOp, u16) {
        let bits = imm.cast_unsigned();
        (MemOp((bits & 0xffff) as u16), (bits >> 16) as u16)
    }
}

impl std::fmt::Debug for MemOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.is_signed() { 's' } else { 'u' };
        write!(f, "{sign}{}", 8 * self.size().bytes())?;
        if self.is_big_endian() {
            f.write_str(".be")?;
        }
        if self.is_aligned() {
            f.write_str(".aligned")?;
        }
        if self.0 & MemOp::NARROW != 0 {
            f.write_str(".a32")?;
        }
        match self.order() {
            Order::Relaxed => {}
            Order::Acquire => f.write_str(".acq")?,
            Order::Release => f.write_str(".rel")?,
            Order::Sequential => f.write_str(".seq")?,
        }
        if self.mmu() != 0 {
            write!(f, ".mmu{}", self.mmu())?;
        }
        Ok(())
    }
}
