//! The file of an unfinished unit: a line of JSON, then ids, then distances, then CRC-32C of all before it; little-endian.
//!
//! It is written and checked piece by piece, because the neighbours of a block are most of what a plan counts.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::manifest::{EngineRecord, FORMAT};
use crate::error::{Error, StoreError};
use crate::schedule::search::{Checkpoint, Unfinished};
use crate::topk::TopK;
use crate::units::K;

/// Values turned into bytes at a time.
const PIECE: usize = 8192;
/// Bytes of the checksum.
const CRC_BYTES: usize = 4;
/// More than a header takes, the names of a few engines included.
const HEADER_BYTES_MAX: u64 = 16 << 10;

/// The most bytes of a checkpoint of this many rows.
#[must_use]
pub fn bytes_max(rows: u64, k: K) -> u64 {
    rows.saturating_mul(k.get() as u64 * 12).saturating_add(HEADER_BYTES_MAX)
}

/// Writes a checkpoint and what computed it.
///
/// # Errors
/// Those of `to`.
pub fn write(checkpoint: &Unfinished<'_>, engines: &[EngineRecord], to: &mut dyn Write) -> io::Result<()> {
    let header = Header {
        format: FORMAT,
        rows: (checkpoint.rows.start, checkpoint.rows.end),
        complete_to: checkpoint.complete_to,
        round: checkpoint.round,
        references_done: checkpoint.references_done,
        k: u32::try_from(checkpoint.k).unwrap_or(K::MAX),
        engines: engines.to_vec(),
    };
    let mut crc = 0;
    let mut piece = serde_json::to_vec(&header)?;
    piece.push(b'\n');
    let mut put = |bytes: &[u8]| {
        crc = crc32c::crc32c_append(crc, bytes);
        to.write_all(bytes)
    };
    put(&piece)?;
    for ids in checkpoint.top.iter().flat_map(|part| part.ids.chunks(PIECE)) {
        piece.clear();
        piece.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
        put(&piece)?;
    }
    for distances in checkpoint.top.iter().flat_map(|part| part.distances.chunks(PIECE)) {
        piece.clear();
        piece.extend(distances.iter().flat_map(|d| d.to_le_bytes()));
        put(&piece)?;
    }
    to.write_all(&crc.to_le_bytes())
}

/// The checkpoint in these bytes, and what computed it.
///
/// # Errors
/// [`StoreError::Damaged`] when they are not what was written.
pub fn decode(bytes: &[u8]) -> Result<(Checkpoint, Vec<EngineRecord>), Error> {
    let (bytes, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or_else(|| damaged("it is too short"))?;
    if crc32c::crc32c(bytes) != u32::from_le_bytes(*crc) {
        return Err(damaged("its checksum is wrong"));
    }
    let end = bytes.iter().position(|&b| b == b'\n').ok_or_else(|| damaged("no header"))?;
    let header: Header = serde_json::from_slice(&bytes[..end]).map_err(|error| damaged(&error.to_string()))?;
    let k = K::new(header.k)?;
    let body = &bytes[end + 1..];
    let rows = header.rows.1.checked_sub(header.rows.0).ok_or_else(|| damaged("rows"))?;
    let slots = usize::try_from(rows).unwrap_or(usize::MAX).saturating_mul(k.get());
    if header.format != FORMAT || body.len() != slots.saturating_mul(12) {
        return Err(damaged("it has another length than its header says"));
    }
    let (ids, distances) = body.split_at(slots * 8);
    let ids: Vec<u64> = ids.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
    let distances: Vec<f32> = distances.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let top = TopK::from_parts(k, ids, distances).ok_or_else(|| damaged("its rows are not in order"))?;
    if !(header.rows.0..=header.rows.1).contains(&header.complete_to) {
        return Err(damaged("its rows"));
    }
    let (rows, complete_to) = (header.rows.0..header.rows.1, header.complete_to);
    let Header { round, references_done, engines, .. } = header;
    Ok((Checkpoint { rows, complete_to, round, references_done, top }, engines))
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    rows: (u64, u64),
    complete_to: u64,
    #[serde(default)]
    round: u32,
    references_done: u64,
    k: u32,
    #[serde(default)]
    engines: Vec<EngineRecord>,
}

fn damaged(why: &str) -> Error {
    StoreError::Damaged { array: "the checkpoint".to_owned(), why: why.to_owned() }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        let mut top = TopK::empty(3, K::new(2).unwrap());
        top.set_row(1, &[(0.25, 7), (0.5, 1)]);
        Checkpoint { rows: 10..13, complete_to: 11, round: 1, references_done: 99, top }
    }

    fn engines() -> Vec<EngineRecord> {
        let [device, adapter, driver, variant] = ["gpu", "A card", "vulkan 1.2", "wide"].map(str::to_owned);
        vec![EngineRecord { device, adapter, driver, variant }]
    }

    fn encode(checkpoint: &Checkpoint) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&checkpoint.unfinished(), &engines(), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_checkpoint_comes_back_as_it_was() {
        let long = Checkpoint {
            rows: 0..20_000,
            complete_to: 0,
            top: TopK::empty(20_000, K::new(1).unwrap()),
            ..checkpoint()
        };
        for checkpoint in [checkpoint(), long] {
            let bytes = encode(&checkpoint);
            let rows = checkpoint.rows.end - checkpoint.rows.start;
            let k = K::new(u32::try_from(checkpoint.top.k()).unwrap()).unwrap();
            assert!(bytes.len() as u64 <= bytes_max(rows, k));
            assert_eq!(decode(&bytes).unwrap(), (checkpoint, engines()));
        }
    }

    #[test]
    fn a_checkpoint_with_any_flipped_bit_is_refused() {
        let bytes = encode(&checkpoint());
        for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            assert!(decode(&bad).is_err(), "bit {bit} of byte {at}");
        }
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "{len} bytes");
        }
    }
}
