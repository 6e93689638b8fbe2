//! Every input that fuzzing has kept still passes: `fuzz/corpus`, given to the decoders it was found for.
//!
//! An input that once failed is put there and stays. Miri runs this too, on the smaller ones.

use std::io::Write;
use std::path::Path;

use ringcask::decoders::DECODERS;

/// Miri takes a millisecond where the processor takes a microsecond.
const INPUT_LEN_MAX: usize = if cfg!(miri) { 256 } else { 1 << 20 };
const INPUTS_PER_DECODER_MAX: usize = if cfg!(miri) { 12 } else { usize::MAX };

/// Breaks if a decoder panics, or breaks a promise, on bytes that it once met.
#[test]
fn every_kept_input_passes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut count = 0;
    for (name, check) in DECODERS {
        let mut inputs: Vec<Vec<u8>> = std::fs::read_dir(corpus.join(name))
            .unwrap_or_else(|error| panic!("there are no inputs for {name}: {error}"))
            .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
            .filter(|input| input.len() <= INPUT_LEN_MAX)
            .collect();
        // The longest of those that are short enough reach the furthest.
        inputs.sort_by_key(|input| std::cmp::Reverse(input.len()));
        inputs.truncate(INPUTS_PER_DECODER_MAX);
        for input in &inputs {
            check(input);
        }
        count += inputs.len();
    }
    assert!(count >= DECODERS.len(), "every decoder has an input");
    // Past the capture of test output.
    let counted = format!("counted: kept fuzz inputs = {count}\n");
    std::io::stderr().write_all(counted.as_bytes()).unwrap();
}
