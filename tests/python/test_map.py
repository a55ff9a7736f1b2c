"""A mapping of query onto reference, opened in every way, is what the formulas say."""

import formulas
import numpy as np
import pytest
import scipy.sparse as sp
from conftest import OPENERS, labels

K = 15
KERNELS = ["gauss", "scarches", "inverse_distance", "equal"]


@pytest.fixture(scope="module")
def mapped(atlasknn, stores, tmp_path_factory):
    """Everything a mapping can write, for every format of the inputs: (query, reference, output, what it said)."""
    (query, reference), (query_path, reference_path) = stores
    out = tmp_path_factory.mktemp("mapped") / "out.zarr"
    said = atlasknn(
        *["map", query_path, reference_path, "-o", out, "--rep", "X_pca", "-k", K, "--kernel", "gauss"],
        *["--label", "cell_type", "--label", "with_missing", "--label", "text"],
        *["--value", "score", "--value", "score_f32", "--value", "count", "--value", "flag"],
        *["--obsm", "X_umap", "--obsm", "X_f64", "--presence", "--matrix", "--json"],
    )
    return query, reference, out, said


@pytest.fixture(scope="module", params=OPENERS)
def opened(request, mapped):
    """(query, reference, output) with the output opened in one of the ways."""
    query, reference, path, _ = mapped
    return query, reference, OPENERS[request.param](path), request.param


def expected_matrix(out, reference):
    return formulas.mapping_matrix("gauss", out.obsm["knn_indices"], out.obsm["knn_distances"], reference.n_obs)


def test_shapes_and_names_are_those_of_query_and_reference(opened):
    query, reference, out, how = opened
    assert out.shape == (query.n_obs, reference.n_obs)
    assert out.obsm["knn_indices"].shape == (query.n_obs, K) and out.obsm["knn_indices"].dtype == np.int32
    assert out.obsm["knn_distances"].dtype == np.float32
    if how != "read_lazy_without_names":
        assert list(out.obs_names) == list(query.obs_names)
        assert list(out.var_names) == list(reference.obs_names)


def test_neighbours_are_those_of_a_brute_force(opened):
    query, reference, out, _ = opened
    found = out.obsm["knn_indices"], out.obsm["knn_distances"]
    formulas.check_neighbours(*found, query.obsm["X_pca"], reference.obsm["X_pca"])


def test_the_mapping_matrix_is_cellmappers(opened):
    _, reference, out, _ = opened
    assert sp.issparse(out.X) and out.X.has_sorted_indices
    formulas.check_matrix(out.X, expected_matrix(out, reference))


@pytest.mark.parametrize("key", ["cell_type", "with_missing", "text"])
def test_labels_and_confidences_are_cellmappers(opened, key):
    _, reference, out, _ = opened
    matrix = expected_matrix(out, reference)
    formulas.check_labels(labels(out.obs[f"{key}_pred"]), out.obs[f"{key}_conf"], matrix, labels(reference.obs[key]))
    assert list(out.obs[f"{key}_pred"].cat.categories) == sorted({label for label in labels(reference.obs[key]) if label})
    assert out.obs[f"{key}_conf"].dtype == np.float32


@pytest.mark.parametrize(
    ("key", "dtype"), [("score", np.float64), ("score_f32", np.float32), ("count", np.float64), ("flag", np.float64)]
)
def test_numbers_are_weighted_means(opened, key, dtype):
    _, reference, out, _ = opened
    expected = expected_matrix(out, reference) @ reference.obs[key].to_numpy().astype(np.float64)
    formulas.check_close(key, out.obs[f"{key}_pred"], expected)
    assert out.obs[f"{key}_pred"].dtype == dtype


@pytest.mark.parametrize("key", ["X_umap", "X_f64"])
def test_embeddings_are_weighted_means(opened, key):
    _, reference, out, _ = opened
    expected = expected_matrix(out, reference) @ reference.obsm[key]
    formulas.check_close(key, out.obsm[f"{key}_pred"], expected)
    assert out.obsm[f"{key}_pred"].dtype == reference.obsm[key].dtype


def test_presence_is_cellmappers(opened):
    _, reference, out, _ = opened
    raw, scores = formulas.presence(out.obsm["knn_indices"], out.obsm["knn_distances"], reference.n_obs)
    formulas.check_close("presence_raw", out.var["presence_raw"], raw, tolerance=1e-6)
    formulas.check_close("presence_score", out.var["presence_score"], scores)
    assert (out.var["presence_raw"].dtype, out.var["presence_score"].dtype) == (np.float64, np.float32)


def test_the_manifest_says_what_was_asked(opened):
    query, reference, out, _ = opened
    manifest = out.uns["atlasknn"]
    assert (int(manifest["rows"]), int(manifest["reference_rows"])) == (query.n_obs, reference.n_obs)
    assert str(manifest["parameters"]["metric"]) == "euclidean" and int(manifest["parameters"]["k"]) == K
    assert str(manifest["version"]) and float(manifest["run"]["seconds"]["total"]) > 0


def test_json_says_the_same_as_the_output(mapped):
    query, _, out, said = mapped
    assert (said["rows"], said["k"], said["method"], said["device"]) == (query.n_obs, K, "exact", "cpu")
    assert {"read", "search", "map", "write", "total"} <= set(said["seconds"])
    assert said["bytes_written"] > 0 and said["out"] == str(out)


def test_the_output_verifies(atlasknn, mapped):
    assert atlasknn("verify", mapped[2], "--quiet").returncode == 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_maps_the_same_neighbours_again(atlasknn, stores, mapped, kernel, tmp_path):
    _, (_, reference_path) = stores
    _, reference, neighbours, _ = mapped
    out = tmp_path / "out.zarr"
    words = ["--kernel", kernel, "--label", "cell_type", "--value", "score", "--matrix"]
    atlasknn("transfer", neighbours, reference_path, "-o", out, *words)
    found, earlier = OPENERS["read_zarr"](out), OPENERS["read_zarr"](neighbours)
    ids, distances = earlier.obsm["knn_indices"], earlier.obsm["knn_distances"]
    expected = formulas.mapping_matrix(kernel, ids, distances, reference.n_obs)
    formulas.check_matrix(found.X, expected)
    formulas.check_close("score", found.obs["score_pred"], expected @ reference.obs["score"].to_numpy())
    formulas.check_labels(
        labels(found.obs["cell_type_pred"]), found.obs["cell_type_conf"], expected, labels(reference.obs["cell_type"])
    )


@pytest.mark.parametrize("rep", ["X_f64", "X_f16"])
def test_other_float_types_are_searched_as_float32(atlasknn, stores, rep, tmp_path):
    (query, reference), paths = stores
    atlasknn("search", *paths, "-o", tmp_path / "out.zarr", "--rep", f"obsm/{rep}", "-k", K)
    out = OPENERS["read_zarr"](tmp_path / "out.zarr")
    # float64 rows are centred before they are rounded, so their distances are not those of the rows rounded as they are.
    tolerance = 1e-5 if rep == "X_f64" else 1e-6
    found = out.obsm["knn_indices"], out.obsm["knn_distances"]
    formulas.check_neighbours(*found, query.obsm[rep], reference.obsm[rep], tolerance=tolerance)


def test_places_without_a_neighbour_are_padded(atlasknn, stores, tmp_path):
    (query, reference), (query_path, _) = stores
    few = reference[:7].copy()
    few.write_zarr(tmp_path / "few.zarr")
    words = ["--rep", "X_pca", "-k", 10, "--label", "cell_type", "--matrix"]
    done = atlasknn("map", query_path, tmp_path / "few.zarr", "-o", tmp_path / "out.zarr", *words)
    assert "10" in done.stderr and "7" in done.stderr, f"no warning: {done.stderr}"
    out = OPENERS["read_zarr"](tmp_path / "out.zarr")
    ids, distances = out.obsm["knn_indices"], out.obsm["knn_distances"]
    assert np.all(ids[:, 7:] == -1) and np.all(np.isposinf(distances[:, 7:])) and np.all(ids[:, :7] >= 0)
    formulas.check_neighbours(ids, distances, query.obsm["X_pca"], few.obsm["X_pca"])
    formulas.check_matrix(out.X, formulas.mapping_matrix("gauss", ids, distances, 7))


@pytest.mark.parametrize("opener", OPENERS)
def test_without_names_the_rows_are_numbered(atlasknn, stores, opener, tmp_path):
    _, paths = stores
    atlasknn("search", *paths, "-o", tmp_path / "out.zarr", "--rep", "X_pca", "-k", 3, "--names", "none")
    out = OPENERS[opener](tmp_path / "out.zarr")
    assert list(out.obs_names) == [str(row) for row in range(out.n_obs)]
    assert list(out.var_names) == [str(row) for row in range(out.n_vars)]


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("names", [[], ["--names", "none"]])
def test_presence_by_groups_is_a_frame_of_the_references(atlasknn, stores, opener, names, tmp_path):
    (query, reference), paths = stores
    words = ["--rep", "X_pca", "-k", K, "--presence-by", "cell_type", *names]
    atlasknn("map", *paths, "-o", tmp_path / "out.zarr", *words)
    out = OPENERS[opener](tmp_path / "out.zarr")
    frame = out.varm["presence_score"]
    assert list(frame.columns) == sorted(set(query.obs["cell_type"]))
    # The scale of the weights is that of all queries, whatever the group.
    ids = np.asarray(out.obsm["knn_indices"])
    weights = formulas.kernel_weights("gauss", np.asarray(out.obsm["knn_distances"], dtype=np.float64))
    for group in frame.columns:
        mine = (query.obs["cell_type"] == group).to_numpy()
        raw = np.bincount(ids[mine].ravel(), weights=weights[mine].ravel(), minlength=reference.n_obs)
        clipped = raw.clip(*np.percentile(raw, [1, 99]))
        expected = (clipped - clipped.min()) / (clipped.max() - clipped.min())
        formulas.check_close(group, np.asarray(frame[group]), expected)
