//! The longer texts of `--help`, with their worked examples, and the welcome.

pub const WELCOME: &str = "\
atlasknn finds, for every cell of a query, the nearest cells of a reference atlas, and transfers the atlas's
annotations with them. Both may be far larger than memory: it streams from zarr to zarr.

Three commands to start with:

  atlasknn demo                    map a small PBMC query onto its reference and show the result
  atlasknn info query.zarr         see what a store holds and which arrays can be searched
  atlasknn map query.zarr atlas.zarr -o mapped.zarr --rep X_pca --label cell_type
                                   label your own cells

`atlasknn --help` lists all commands; `atlasknn map --help` explains the main one, with examples.
";

pub const ABOUT: &str = "\
Finds the nearest reference cells of every query cell, when neither side fits in memory, and turns those neighbours \
into transferred labels, numbers, embeddings and presence scores.

Input: AnnData zarr stores (v2 or v3), annbatch collections, zarr arrays, .npy files. Output: one AnnData zarr store, \
cells in the order of the query.";

pub const ABOUT_EXAMPLES: &str = "\
Examples:
  See it work:
    atlasknn demo
  Label query cells with the cell types of an atlas:
    atlasknn map query.zarr atlas.zarr -o mapped.zarr --rep X_pca --label cell_type
  What any command does, with examples:
    atlasknn map --help";

pub const DEMO: &str = "\
Maps a small PBMC query onto a PBMC reference, both bundled with the program, in a few seconds. It shows the plan, the \
accuracy against the known cell types, and commands to try next. The data and the result stay in a folder, so that you \
can look at them and use them to play.";

pub const DEMO_EXAMPLES: &str = "\
Examples:
  Run it in ./atlasknn-demo:
    atlasknn demo
  Keep its files somewhere else:
    atlasknn demo -o /tmp/pbmc";

pub const MAP: &str = "\
Finds the k nearest reference cells of every query cell, weighs them by distance, and transfers what you ask for: \
labels with a confidence, numbers, embeddings, presence scores. Without REFERENCE the query is mapped onto itself.

Query and reference must have coordinates in the same space, for example one PCA or one scVI model; `atlasknn info \
STORE` lists the candidates. The run needs little memory whatever the number of cells (--host-memory), and can be \
interrupted and continued (--resume).";

pub const MAP_EXAMPLES: &str = "\
Examples:
  Transfer one label, with the 30 nearest neighbours:
    atlasknn map query.zarr atlas.zarr -o mapped.zarr --rep X_pca --label cell_type
  Transfer more, and score how well each reference cell is represented in the query:
    atlasknn map query.zarr atlas.zarr -o mapped.zarr --rep X_scvi -k 15 \\
        --label cell_type --label tissue --value age --obsm X_umap --presence
  See first how much memory, time and disk it will take:
    atlasknn map query.zarr atlas.zarr -o mapped.zarr --label cell_type --dry-run
  Find doubtful cells: labels smoothed over other donors only, unsure ones left empty:
    atlasknn map cells.zarr -o smoothed.zarr --label cell_type --exclude-group donor \\
        --min-confidence 0.6

Several keys may follow one --label, --value or --obsm; then write QUERY and REFERENCE first.";

pub const SEARCH: &str = "\
Finds the k nearest reference cells of every query cell and writes their row numbers and distances to obsm/knn_indices \
and obsm/knn_distances of an AnnData zarr store. `atlasknn transfer` can use them later, as often as you like. Without \
REFERENCE, the neighbours of every cell among the others.";

pub const SEARCH_EXAMPLES: &str = "\
Examples:
  Neighbours in an atlas:
    atlasknn search query.zarr atlas.zarr -o neighbours.zarr --rep X_scvi -k 30
  By cosine distance, where the two sides name their coordinates differently:
    atlasknn search query.zarr atlas.zarr -o neighbours.zarr --metric cosine \\
        --rep X_emb --reference-rep X_scvi
  Neighbours of every cell among the cells of the other batches:
    atlasknn search cells.zarr -o neighbours.zarr --exclude-group batch
  Nearly all true neighbours in far less time, through an index that is built first:
    atlasknn search query.zarr atlas.zarr -o neighbours.zarr --rep X_scvi --method ivf
  The same through an index made by `atlasknn index`:
    atlasknn search query.zarr atlas.zarr -o neighbours.zarr --rep X_scvi \\
        --index atlas.index --recall 0.99
  Through a graph in memory, with more candidates than usual:
    atlasknn search query.zarr atlas.zarr -o neighbours.zarr --rep X_scvi \\
        --method hnsw --hnsw-ef 300
  Plain arrays, within 4 GiB of memory:
    atlasknn search query.npy reference.npy -o neighbours.zarr --host-memory 4GiB";

pub const TRANSFER: &str = "\
Weighs the neighbours of an earlier `atlasknn search` (or `atlasknn map`) and transfers what you ask for. There is no \
new search, so trying another kernel or another label is quick. REFERENCE must be the one that was searched.";

pub const TRANSFER_EXAMPLES: &str = "\
Examples:
  One label from neighbours found before:
    atlasknn transfer neighbours.zarr atlas.zarr -o labels.zarr --label cell_type
  Another kernel, with the probability of every category:
    atlasknn transfer neighbours.zarr atlas.zarr -o labels.zarr --label cell_type \\
        --kernel equal --probabilities
  Let two categories vote only:
    atlasknn transfer neighbours.zarr atlas.zarr -o t_cells.zarr --label cell_type \\
        --label-subset \"cell_type=CD4 T\" --label-subset \"cell_type=CD8 T\"";

pub const INDEX: &str = "\
Builds an index of a large reference, out of core, so that later searches compare only the likely cells (ivf). Cells are \
put into lists of cells near each other; what each list holds lies together on the disk.

INDEX is a zarr store of its own and holds a copy of the coordinates, as they are or smaller (--encoding). The same \
reference, seed and kind of device give the same index, whatever memory and threads.";

pub const INDEX_EXAMPLES: &str = "\
Examples:
  Index an atlas:
    atlasknn index atlas.zarr -o atlas.index --rep X_scvi
  At half the size:
    atlasknn index atlas.zarr -o atlas.index --rep X_scvi --encoding f16";

pub const EVALUATE: &str = "\
Compares transferred labels with known ones: accuracy, precision, recall and F1, overall and label by label. Cells \
without a known label are left out, and with --min-confidence the unsure ones too.";

pub const EVALUATE_EXAMPLES: &str = "\
Examples:
  How many labels are right:
    atlasknn evaluate mapped.zarr --truth query.zarr:obs/cell_type
  Where the query's column has another name than the transferred label:
    atlasknn evaluate mapped.zarr --truth query.zarr:obs/annotation --prediction cell_type
  Sure labels only:
    atlasknn evaluate mapped.zarr --truth query.zarr:obs/cell_type --min-confidence 0.8";

pub const INFO: &str = "\
Lists the arrays and columns of a store, with shape, type and size, and says for each what it can be used as: \
coordinates to search (--rep), a label (--label), a number (--value) or an embedding (--obsm) to transfer. Of an index it \
shows how many lists it has and how evenly cells are spread over them.";

pub const INFO_EXAMPLES: &str = "\
Examples:
  What is in it:
    atlasknn info query.zarr
  The same for a program:
    atlasknn info query.zarr --json";

pub const DEVICES: &str = "\
Shows the processor and the memory of this machine, its adapters (GPUs, and programs that stand in for one) with what \
--device and --device-variant take, and what each of the ways to compute can do today.";

pub const DEVICES_EXAMPLES: &str = "\
Examples:
  What is there:
    atlasknn devices
  The same for a program:
    atlasknn devices --json";

pub const VERIFY: &str = "\
Reads an output again and checks that every chunk is there, that checksums are right, and that the neighbours of every \
cell are sorted and in range; of an index, that every cell is in it once and no farther from the centre of its list than \
the index says. Problems are listed, and the exit code is 1 if there are any.";

pub const VERIFY_EXAMPLES: &str = "\
Examples:
  After copying a result to another machine:
    atlasknn verify mapped.zarr
  Is an index whole:
    atlasknn verify atlas.index
  In a script:
    atlasknn verify mapped.zarr --quiet && echo fine";
