//! Any bytes as a file: it is imported, or refused, in the same way however it comes and whoever dies meanwhile. The fuzz target `file` searches
//! for bytes that break this.

use landfall_import::declaration::{Format, OnMiss};

use crate::world::{CommitFault, Fault, World, cut, gzip};

/// What became of a file.
fn became(world: &World) -> impl PartialEq + std::fmt::Debug + use<> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let ended = runtime.block_on(world.finish_measured());
    (ended, world.landed(), world.records(), world.rejections())
}

/// Imports a file twice, calmly and roughly, and panics unless both come to the same. The first four bytes choose the declaration, the length of
/// chunks, and where the connection is cut and the worker dies; the others are the file, or a text to compress.
pub(crate) fn is_imported_alike_however_it_comes(data: &[u8]) {
    let Some((&[declared, chunk, cut_after, death], bytes)) = data.split_first_chunk() else {
        return;
    };
    let bytes = if declared & 0x80 == 0 {
        bytes.to_vec()
    } else {
        gzip(&String::from_utf8_lossy(bytes), 2)
    };
    let world = || {
        let mut world = World::new("a", bytes.clone()).maps_user(OnMiss::Keep);
        world.import.format =
            [Format::Auto, Format::Ndjson, Format::Json, Format::Csv][usize::from(declared & 3)];
        world.import.natural_key = (declared & 4 == 0).then(|| "/id".to_owned());
        world.knows_user("u", "cloud")
    };
    let mut calm = world();
    calm.store.chunk = bytes.len().max(1);
    let mut rough = world();
    rough.store.chunk = usize::from(chunk).max(1);
    rough.store.ranges = declared & 8 == 0;
    rough.hurried = declared & 16 == 0;
    let after = usize::from(cut_after) + 1;
    rough.store_faults([Fault::After(after, cut()), Fault::EndsAfter(2 * after)]);
    let fault = [
        CommitFault::KillBefore,
        CommitFault::KillAfter,
        CommitFault::UnknownWritten,
    ][usize::from(death) % 3];
    rough.commit_fault(usize::from(death / 3), fault);
    assert_eq!(became(&rough), became(&calm));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_search_has_kept_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/file");
        for entry in std::fs::read_dir(folder).unwrap() {
            is_imported_alike_however_it_comes(&std::fs::read(entry.unwrap().path()).unwrap());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn any_file_is_imported_alike_however_it_comes(
            head in any::<[u8; 4]>(),
            words in prop::collection::vec(
                prop_oneof![
                    8 => prop::sample::select(vec![
                        "{", "}", "[", "]", ",", "\"", "\n", " ", "\"id\":1", "\"id\":\"x\"", "\"user\":\"u\"", "\"user\":7", "a,b", "é",
                        "{\"id\":1,\"user\":\"u\"}\n", "{\"id\":2}\n", "\u{feff}", "7\n",
                    ]).prop_map(|word| word.as_bytes().to_vec()),
                    1 => prop::collection::vec(any::<u8>(), 0..6),
                    1 => (0_usize..300).prop_map(|length| vec![b'x'; length]),
                ],
                0..30,
            ),
        ) {
            is_imported_alike_however_it_comes(&[&head[..], &words.concat()].concat());
        }
    }
}
