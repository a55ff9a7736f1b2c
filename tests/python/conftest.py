"""The program under test, the cells it is given, and the ways to open what it writes."""

import json
import os
import subprocess
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

# What an installed anndata can write: (name, settings).
FORMATS = {
    "v2": {"zarr_write_format": 2},
    "v3": {"zarr_write_format": 3},
}
if hasattr(ad.settings, "auto_shard_zarr_v3"):
    FORMATS["v2"]["auto_shard_zarr_v3"] = False
    FORMATS["v3"]["auto_shard_zarr_v3"] = False
    FORMATS["v3_sharded"] = {"zarr_write_format": 3, "auto_shard_zarr_v3": True}

# The three ways in which people open an output.
OPENERS = {
    "read_zarr": ad.read_zarr,
    "read_lazy": lambda path: ad.experimental.read_lazy(path).to_memory(),
    "read_lazy_without_names": lambda path: ad.experimental.read_lazy(path, load_annotation_index=False).to_memory(),
}

FIXTURES = Path(__file__).parents[1] / "fixtures" / "anndata_layouts"


@pytest.fixture(scope="session")
def atlasknn(tmp_path_factory):
    """Runs the program; returns what `--json` says where it is asked for. Fails the test when the program fails."""
    program = os.environ.get("ATLASKNN_BIN")
    assert program and Path(program).is_file(), "ATLASKNN_BIN names no program; run scripts/test"

    # What it remembers is not for the one who runs the tests.
    environment = {**os.environ, "ATLASKNN_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}

    def run(*words):
        command = [program, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout.splitlines()[-1]) if "--json" in words else done

    return run


def make_cells(n, seed, prefix):
    """Cells with every kind of annotation, in three clusters that the labels follow."""
    rng = np.random.default_rng(seed)
    cluster = rng.integers(0, 3, n)
    centre = np.random.default_rng(99).standard_normal((3, 20)) * 4
    rows = centre[cluster] + rng.standard_normal((n, 20))
    names = np.array(["B", "NKé", "T cell"])[cluster]
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(names),
            "with_missing": pd.Categorical(np.where(rng.random(n) < 0.1, None, names)),
            "text": [f"sample {c}" for c in cluster],
            "score": rng.random(n),
            "score_f32": rng.random(n).astype(np.float32),
            "count": rng.integers(0, 5000, n),
            "flag": rng.random(n) < 0.5,
        },
        index=[f"{prefix}{i}" for i in range(n)],
    )
    obsm = {
        "X_f64": rows,
        "X_pca": rows.astype(np.float32),
        "X_f16": rows.astype(np.float16),
        "X_umap": rng.standard_normal((n, 2)).astype(np.float32),
    }
    expression = sp.random(n, 30, density=0.2, format="csr", dtype=np.float32, random_state=seed)
    return ad.AnnData(X=expression, obs=obs, obsm=obsm)


@pytest.fixture(scope="session", params=FORMATS)
def stores(request, tmp_path_factory):
    """(query, reference) as AnnData, and the paths of both as zarr, once per format."""
    folder = tmp_path_factory.mktemp(request.param)
    cells = make_cells(250, 1, "query"), make_cells(400, 2, "reference")
    paths = folder / "query.zarr", folder / "reference.zarr"
    with ad.settings.override(**FORMATS[request.param]):
        for adata, path in zip(cells, paths, strict=True):
            adata.write_zarr(path)
    return cells, paths


def labels(column):
    """A column of labels as text, None where missing."""
    return [None if pd.isna(value) else str(value) for value in column]
