//! Choices the parser knows and nothing carries out yet: each is refused with one sentence that names it.

use super::args::{MapArgs, SearchArgs, TransferArgs};
use super::flags::{Mapping, Scanpy};
use super::values::Kernel;

/// Whether a choice was made, and what to say about it.
type Choice = (bool, String);

fn said(made: bool, sentence: &str) -> Choice {
    (made, sentence.to_owned())
}

/// What of a `map` is not built yet.
pub fn map(args: &MapArgs) -> Option<String> {
    let groups = [mapping(&args.mapping), scanpy(args.scanpy)];
    first(groups.into_iter().flatten())
}

/// What of a `search` is not built yet.
pub fn search(args: &SearchArgs) -> Option<String> {
    first(scanpy(args.scanpy).into_iter())
}

/// What of a `transfer` is not built yet.
pub fn transfer(args: &TransferArgs) -> Option<String> {
    let groups = [mapping(&args.mapping), scanpy(args.scanpy)];
    first(groups.into_iter().flatten())
}

fn first(choices: impl Iterator<Item = Choice>) -> Option<String> {
    choices.into_iter().find_map(|(made, sentence)| made.then_some(sentence))
}

fn mapping(args: &Mapping) -> Vec<Choice> {
    let kernel = |k: Kernel, name: &str| {
        let instead = "use gauss, scarches, inverse_distance or equal";
        (args.kernel == k, format!("--kernel {name} is not built yet: {instead}"))
    };
    vec![
        kernel(Kernel::Random, "random"),
        kernel(Kernel::Jaccard, "jaccard"),
        kernel(Kernel::Hnoca, "hnoca"),
        kernel(Kernel::Umap, "umap"),
        said(
            !args.layer.is_empty(),
            "--layer is not built yet: labels, numbers and obsm arrays can be transferred today",
        ),
        said(args.steps.get() > 1, "--steps above 1 is not built yet: leave it out, and neighbours are used directly"),
        said(args.symmetrize, "--symmetrize is not built yet: use --no-symmetrize, which is what happens today"),
        said(args.max_row.is_some(), "--max-row is not built yet: rows of the mapping matrix have k entries today"),
    ]
}

fn scanpy(args: Scanpy) -> Vec<Choice> {
    let sentence = "--scanpy is not built yet: the neighbours are in obsm/knn_indices and obsm/knn_distances of OUT";
    vec![said(args.scanpy, sentence)]
}
