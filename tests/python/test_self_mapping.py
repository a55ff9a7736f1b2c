"""Cells mapped onto themselves: nobody is their own neighbour, and self edges are added afterwards."""

import formulas
import numpy as np
import pytest
from conftest import OPENERS, labels

K = 12


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("self_edges", [False, True])
def test_self_mapping_is_cellmappers(atlasknn, stores, self_edges, opener, tmp_path):
    (_, cells), (_, path) = stores
    edges = "--self-edges" if self_edges else "--no-self-edges"
    words = ["--rep", "X_pca", "-k", K, "--label", "cell_type", "--presence", "--matrix", edges]
    atlasknn("map", path, "-o", tmp_path / "out.zarr", *words)
    out = OPENERS[opener](tmp_path / "out.zarr")
    ids, distances = out.obsm["knn_indices"], out.obsm["knn_distances"]
    assert out.shape == (cells.n_obs, cells.n_obs) and ids.shape == (cells.n_obs, K)
    assert not np.any(ids == np.arange(cells.n_obs)[:, None]), "a cell is its own neighbour"
    formulas.check_neighbours(ids, distances, cells.obsm["X_pca"], cells.obsm["X_pca"], own_row=False)
    matrix = formulas.mapping_matrix("gauss", ids, distances, cells.n_obs, self_edges)
    formulas.check_matrix(out.X, matrix)
    assert np.all((out.X.diagonal() > 0) == self_edges)
    truth = labels(cells.obs["cell_type"])
    formulas.check_labels(labels(out.obs["cell_type_pred"]), out.obs["cell_type_conf"], matrix, truth)
    raw, _ = formulas.presence(ids, distances, cells.n_obs)
    formulas.check_close("presence_raw", out.var["presence_raw"], raw, tolerance=1e-6)


def test_without_a_word_no_cell_votes_for_itself(atlasknn, stores, tmp_path):
    _, (path, _) = stores
    atlasknn("map", path, "-o", tmp_path / "out.zarr", "--rep", "X_pca", "-k", K, "--matrix")
    assert not OPENERS["read_zarr"](tmp_path / "out.zarr").X.diagonal().any()


def test_identical_cells_are_each_others_neighbours(atlasknn, stores, tmp_path):
    (query, _), _ = stores
    twins = query[np.repeat(np.arange(40), 3)].copy()
    twins.obs_names_make_unique()
    twins.write_zarr(tmp_path / "twins.zarr")
    atlasknn("search", tmp_path / "twins.zarr", "-o", tmp_path / "out.zarr", "--rep", "X_pca", "-k", 2)
    out = OPENERS["read_zarr"](tmp_path / "out.zarr")
    rows = np.arange(120)
    first = rows // 3 * 3
    # Ties go to the lower id, so the two others come in order.
    expected = np.stack([np.setdiff1d([f, f + 1, f + 2], [row]) for row, f in zip(rows, first, strict=True)])
    assert np.array_equal(out.obsm["knn_indices"], expected)
    assert not out.obsm["knn_distances"].any()


def test_more_neighbours_than_others_are_padded(atlasknn, stores, tmp_path):
    (query, _), _ = stores
    few = query[:5].copy()
    few.write_zarr(tmp_path / "few.zarr")
    atlasknn("search", tmp_path / "few.zarr", "-o", tmp_path / "out.zarr", "--rep", "X_pca", "-k", 6)
    out = OPENERS["read_zarr"](tmp_path / "out.zarr")
    ids, distances = out.obsm["knn_indices"], out.obsm["knn_distances"]
    assert np.all(ids[:, 4:] == -1) and np.all(np.isposinf(distances[:, 4:]))
    formulas.check_neighbours(ids, distances, few.obsm["X_pca"], few.obsm["X_pca"], own_row=False)
