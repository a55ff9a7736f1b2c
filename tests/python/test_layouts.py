"""Stores as other tools wrote them (tests/fixtures/anndata_layouts) read equal to what was put in."""

import json
import shutil

import formulas
import numpy as np
import pytest
import zarr
from conftest import FIXTURES, OPENERS, labels

LAYOUTS = sorted(path.name for path in FIXTURES.glob("*.zarr"))
REPS = ["X_pca", "X_f64", "X_f16"]
K = 8
# The cells are 2,000; their first rows are enough to compare with a brute force.
QUERIES = 150


@pytest.fixture(scope="module")
def expected():
    """What was put in: embeddings, and columns of obs."""
    folder = FIXTURES / "expected"
    columns = json.loads((folder / "columns.json").read_text(encoding="utf-8"))
    arrays = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    return arrays | {key: np.array(values) for key, values in columns.items()}


@pytest.fixture(scope="module")
def query(tmp_path_factory, expected):
    """The first rows as plain arrays, one file per representation."""
    folder = tmp_path_factory.mktemp("queries")
    for rep in REPS:
        np.save(folder / f"{rep}.npy", expected[rep][:QUERIES])
    return folder


def test_the_fixtures_are_there():
    assert {"v2.zarr", "v3_default.zarr", "v3_split_features.zarr", "v3_annbatch_sharded.zarr"} <= set(LAYOUTS)


@pytest.mark.parametrize("rep", REPS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_true_neighbours(atlasknn, expected, query, layout, rep, tmp_path):
    words = ["-o", tmp_path / "out.zarr", "--reference-rep", rep, "-k", K]
    atlasknn("search", query / f"{rep}.npy", FIXTURES / layout, *words)
    out = OPENERS["read_zarr"](tmp_path / "out.zarr")
    found = out.obsm["knn_indices"], out.obsm["knn_distances"]
    # float64 rows are centred before they are rounded; a row's distance to itself is 0 either way.
    tolerance = 1e-5 if rep == "X_f64" else 1e-6
    formulas.check_neighbours(*found, expected[rep][:QUERIES], expected[rep], tolerance=tolerance)
    assert list(out.var_names) == list(expected["index"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_its_annotations(atlasknn, expected, layout, tmp_path):
    # The nearest other cell alone decides, so what is transferred is what that cell has.
    words = ["--label", "cell_type", "cat_na", "name", "--value", "score", "flag", "--obsm", "X_f16"]
    atlasknn("map", FIXTURES / layout, "-o", tmp_path / "out.zarr", "--rep", "X_pca", "-k", 1, *words)
    out = OPENERS["read_zarr"](tmp_path / "out.zarr")
    nearest = out.obsm["knn_indices"][:, 0]
    apart = formulas.distances(expected["X_pca"][:QUERIES], expected["X_pca"])
    np.fill_diagonal(apart, np.inf)
    assert np.array_equal(nearest[:QUERIES], apart.argmin(axis=1))
    assert list(out.obs_names) == list(expected["index"])
    for key in ("cell_type", "name"):
        assert labels(out.obs[f"{key}_pred"]) == list(expected[key][nearest]), key
    assert np.array_equal(out.obs["cat_na_pred"].cat.codes, expected["cat_na_codes"][nearest])
    formulas.check_close("score", out.obs["score_pred"], expected["score"][nearest], tolerance=1e-12)
    formulas.check_close("flag", out.obs["flag_pred"], expected["flag"][nearest], tolerance=0)
    formulas.check_close("X_f16", out.obsm["X_f16_pred"], expected["X_f16"][nearest], tolerance=0)


def test_an_annbatch_collection_of_two_is_read_as_one(atlasknn, expected, query, tmp_path):
    collection = tmp_path / "collection.zarr"
    root = zarr.open_group(collection, mode="w", zarr_format=3)
    root.attrs.update({"encoding-type": "annbatch-preshuffled", "encoding-version": "0.1.0"})
    # Two layouts on purpose: each data set is opened for itself.
    for i, layout in enumerate(["v3_annbatch_sharded.zarr", "v3_split_features.zarr"]):
        shutil.copytree(FIXTURES / layout, collection / f"dataset_{i}")
    words = ["--reference-rep", "X_pca", "-k", K]
    atlasknn("search", query / "X_pca.npy", collection, "-o", tmp_path / "out.zarr", *words)
    out = OPENERS["read_zarr"](tmp_path / "out.zarr")
    both = np.concatenate([expected["X_pca"]] * 2)
    ids, distances = out.obsm["knn_indices"], out.obsm["knn_distances"]
    formulas.check_neighbours(ids, distances, expected["X_pca"][:QUERIES], both)
    # Every cell is there twice, at the same distance: the first data set comes first.
    assert np.array_equal(ids[:, 1::2], ids[:, ::2] + 2000)
    assert list(out.var_names) == list(expected["index"]) * 2
