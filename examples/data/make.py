"""Writes pbmc_reference.zarr (500 cells) and pbmc_query.zarr (200 cells) beside this file.

Run: python make.py [GOLDEN_INPUTS]    (made with scanpy 1.11.5, anndata 0.12.19, zarr 3.1.6, numpy 2.4.6)

The cells are scanpy's bundled pbmc68k_reduced, split by a seeded permutation: the first 500 are the reference, the other
200 the query. GOLDEN_INPUTS is the folder tests/fixtures/golden/inputs; when given, the stores are read back and compared
with it, value by value.
"""
import json
import shutil
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import zarr

OUT = Path(__file__).resolve().parent
ad.settings.zarr_write_format = 3

cells = sc.datasets.pbmc68k_reduced()
order = np.random.default_rng(0).permutation(cells.n_obs)

for name, rows in {"reference": order[:500], "query": order[500:]}.items():
    part = cells[rows]
    # No genes: the demo maps an embedding, and the expression matrix would be most of the bytes.
    small = ad.AnnData(
        obs=part.obs[["bulk_labels", "phase", "n_counts", "percent_mito", "n_genes"]].copy(),
        var=pd.DataFrame(index=pd.Index([], dtype=object)),
        obsm={"X_pca": part.obsm["X_pca"].astype(np.float32), "X_umap": np.asarray(part.obsm["X_umap"])},
    )
    path = OUT / f"pbmc_{name}.zarr"
    shutil.rmtree(path, ignore_errors=True)
    small.write_zarr(path)
    zarr.consolidate_metadata(path)

if len(sys.argv) > 1:
    golden = Path(sys.argv[1])
    text = json.loads((golden / "case.json").read_text())
    reference, query = (ad.read_zarr(OUT / f"pbmc_{name}.zarr") for name in ("reference", "query"))
    for array, found in {
        "X_pca_ref": reference.obsm["X_pca"],
        "X_pca_qry": query.obsm["X_pca"],
        "X_umap_ref": reference.obsm["X_umap"],
        **{f"num_{key}": reference.obs[key].to_numpy() for key in ("n_counts", "percent_mito", "n_genes")},
    }.items():
        assert np.array_equal(np.load(golden / f"{array}.npy"), found), array
    assert text["bulk_labels_ref"] == reference.obs["bulk_labels"].astype(str).tolist()
    assert text["bulk_labels_qry"] == query.obs["bulk_labels"].astype(str).tolist()
    assert text["phase_qry"] == query.obs["phase"].astype(str).tolist()
    assert list(reference.obs_names) == [cells.obs_names[i] for i in order[:500]]
    assert list(query.obs_names) == [cells.obs_names[i] for i in order[500:]]
    print("the stores hold the golden inputs")
