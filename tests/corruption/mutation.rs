//! One change to the files of a store, as a value that says what it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::layout::Layout;

pub(crate) const SECTOR_SIZE: usize = 512;

/// Every file of a store with its bytes. Copies share them.
pub(crate) type Image = BTreeMap<String, Arc<Vec<u8>>>;

/// Where a file is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The same store at an earlier moment.
    Age(usize),
    /// Another store that did the same, and so has files of the same names.
    Foreign,
    /// A copy of the store's directory that went its own way.
    Twin,
}

/// What is put behind the end of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filling {
    Zeros,
    Garbage(u64),
    /// The file's own bytes from this offset on.
    Stale(usize),
}

/// A change. Its `Debug` text names it in reports and in `RINGCASK_MUTATION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    Flip { file: String, at: usize, mask: u8 },
    Cut { file: String, len: usize },
    ZeroEnd { file: String, from: usize },
    Extend { file: String, by: usize, with: Filling },
    ZeroSector { file: String, sector: usize },
    CopySector { from: (String, usize), to: (String, usize) },
    SwapSectors { one: (String, usize), other: (String, usize) },
    StaleSector { file: String, sector: usize, age: usize },
    Replace { file: String, with: Source },
    SwapFiles { one: String, other: String },
    Rename { from: String, to: String },
    Duplicate { from: String, to: String },
    Remove { file: String },
    Both(Box<Mutation>, Box<Mutation>),
}

impl Mutation {
    /// What kind it is, for the table of outcomes.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Mutation::Flip { .. } => "flip",
            Mutation::Cut { .. } => "cut",
            Mutation::ZeroEnd { .. } => "zero end",
            Mutation::Extend { .. } => "extend",
            Mutation::ZeroSector { .. } => "zero sector",
            Mutation::CopySector { .. } => "copy sector",
            Mutation::SwapSectors { .. } => "swap sectors",
            Mutation::StaleSector { .. } => "stale sector",
            Mutation::Replace { .. } => "replace file",
            Mutation::SwapFiles { .. }
            | Mutation::Rename { .. }
            | Mutation::Duplicate { .. }
            | Mutation::Remove { .. } => "names",
            Mutation::Both(..) => "two at once",
        }
    }

    /// Does it. Nothing happens to a file that is no longer there.
    pub(crate) fn apply(&self, layout: &Layout, image: &mut Image) {
        match self {
            Mutation::Flip { file, at, mask } => edit(image, file, |bytes| {
                if let Some(byte) = bytes.get_mut(*at) {
                    *byte ^= mask;
                }
            }),
            Mutation::ZeroEnd { file, from } => edit(image, file, |bytes| {
                let from = bytes.len().min(*from);
                bytes[from..].fill(0);
            }),
            Mutation::Cut { file, len } => edit(image, file, |bytes| bytes.truncate(*len)),
            Mutation::Extend { file, by, with } => edit(image, file, |bytes| {
                let end = bytes.len() + by;
                match with {
                    Filling::Zeros => bytes.resize(end, 0),
                    Filling::Garbage(seed) => {
                        let mut random = fastrand::Rng::with_seed(*seed);
                        bytes.resize_with(end, || random.u8(..));
                    }
                    Filling::Stale(from) => {
                        let stale = bytes.get(*from..).unwrap_or_default();
                        let stale: Vec<u8> = stale.iter().copied().cycle().take(*by).collect();
                        bytes.extend(stale);
                    }
                }
            }),
            Mutation::ZeroSector { file, sector } => {
                edit(image, file, |bytes| sector_of(bytes, *sector).fill(0));
            }
            Mutation::CopySector { from, to } => {
                let Some(source) = read_sector(image, from) else { return };
                overwrite(image, to, &source);
            }
            Mutation::SwapSectors { one, other } => {
                let (Some(first), Some(second)) =
                    (read_sector(image, one), read_sector(image, other))
                else {
                    return;
                };
                overwrite(image, one, &second);
                overwrite(image, other, &first);
            }
            Mutation::StaleSector { file, sector, age } => {
                let place = (file.clone(), *sector);
                let stale = read_sector(&layout.ages[*age], &place).unwrap_or_default();
                // What had not been written by then reads as zeros.
                let mut whole = stale;
                whole.resize(SECTOR_SIZE, 0);
                overwrite(image, &place, &whole);
            }
            Mutation::Replace { file, with } => match layout.source(*with).get(file) {
                Some(bytes) => drop(image.insert(file.clone(), bytes.clone())),
                None => drop(image.remove(file)),
            },
            Mutation::SwapFiles { one, other } => {
                let (first, second) = (image.remove(one), image.remove(other));
                image.extend(first.map(|bytes| (other.clone(), bytes)));
                image.extend(second.map(|bytes| (one.clone(), bytes)));
            }
            Mutation::Rename { from, to } => {
                let bytes = image.remove(from);
                image.extend(bytes.map(|bytes| (to.clone(), bytes)));
            }
            Mutation::Duplicate { from, to } => {
                let bytes = image.get(from).cloned();
                image.extend(bytes.map(|bytes| (to.clone(), bytes)));
            }
            Mutation::Remove { file } => drop(image.remove(file)),
            Mutation::Both(first, second) => {
                first.apply(layout, image);
                second.apply(layout, image);
            }
        }
    }
}

fn edit(image: &mut Image, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
    if let Some(bytes) = image.get_mut(file) {
        change(Arc::make_mut(bytes));
    }
}

fn sector_of(bytes: &mut [u8], sector: usize) -> &mut [u8] {
    let start = bytes.len().min(sector * SECTOR_SIZE);
    let end = bytes.len().min(start + SECTOR_SIZE);
    &mut bytes[start..end]
}

fn read_sector(image: &Image, (file, sector): &(String, usize)) -> Option<Vec<u8>> {
    let bytes = image.get(file)?;
    let start = sector * SECTOR_SIZE;
    let end = bytes.len().min(start + SECTOR_SIZE);
    bytes.get(start..end).map(<[u8]>::to_vec)
}

/// As much of it as the file is long there.
fn overwrite(image: &mut Image, (file, sector): &(String, usize), with: &[u8]) {
    edit(image, file, |bytes| {
        let to = sector_of(bytes, *sector);
        let len = to.len().min(with.len());
        to[..len].copy_from_slice(&with[..len]);
    });
}
