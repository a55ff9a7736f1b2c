"""What the program must find, from numpy alone: brute force in float64, CellMapper's weights and transfers.

Every `check_*` raises an AssertionError that says where; test_formulas.py shows that each of them can.
"""

import numpy as np
import scipy.sparse as sp


def distances(queries, references):
    """Euclidean distances, queries x references, of the rows as float32, in float64."""
    q, r = (np.asarray(rows, dtype=np.float32).astype(np.float64) for rows in (queries, references))
    return np.stack([np.sqrt(((row - r) ** 2).sum(axis=1)) for row in q])


def brute_force(queries, references, k, own_row=True):
    """Ids and distances of the k nearest, ties by lower id; -1 and +inf where there are fewer than k."""
    found = distances(queries, references)
    if not own_row:
        np.fill_diagonal(found, np.inf)
    ids = np.full((len(found), k), -1, dtype=np.int64)
    nearest = np.full((len(found), k), np.inf)
    order = np.argsort(found, axis=1, kind="stable")[:, :k]
    sorted_distances = np.take_along_axis(found, order, axis=1)
    real = np.isfinite(sorted_distances)
    ids[:, : order.shape[1]] = np.where(real, order, -1)
    nearest[:, : order.shape[1]] = sorted_distances
    return ids, nearest


def check_neighbours(ids, found, queries, references, own_row=True, tolerance=1e-6):
    """Neighbours are those of a brute force. Where ids differ, both must be at the same distance."""
    ids, found = np.asarray(ids), np.asarray(found)
    expected_ids, expected = brute_force(queries, references, ids.shape[1], own_row)
    padding = expected_ids == -1
    assert np.array_equal(ids == -1, padding), "padding in other places"
    assert np.all(np.isposinf(found[padding])), "padding at a finite distance"
    assert np.allclose(found[~padding], expected[~padding], rtol=tolerance, atol=0), "distances differ"
    assert np.all(np.diff(np.where(padding, 0, found), axis=1)[~padding[:, 1:]] >= 0), "a row is not ascending"
    for row, column in np.argwhere(ids != expected_ids):
        of_found = distances(queries[row : row + 1], references[ids[row, column]][None])[0, 0]
        close = np.isclose(of_found, expected[row, column], rtol=tolerance, atol=0)
        assert close, f"row {row}: {ids[row, column]} is not among the nearest, {expected_ids[row, column]} is"
    for row in ids:
        assert len(set(row[row >= 0])) == (row >= 0).sum(), "a neighbour comes twice"


def kernel_weights(kernel, found):
    """Weights before rows are normalised; means and variances are of all the distances given."""
    real = found[np.isfinite(found)].astype(np.float64)
    d = np.where(np.isfinite(found), found, 0).astype(np.float64)
    if kernel == "gauss":
        weights = np.exp(-(d**2) / (2 * real.mean() ** 2))
    elif kernel == "scarches":
        weights = np.exp(-d * real.var() / 4)
    elif kernel == "inverse_distance":
        weights = 1 / (d + 1e-8)
    elif kernel == "equal":
        weights = np.ones_like(d)
    else:
        raise ValueError(kernel)
    return np.where(np.isfinite(found), weights, 0)


def mapping_matrix(kernel, ids, found, n_references, self_edges=False):
    """M, queries x references, CSR float32: rows sum to 1, or to 0 where there is no weight."""
    ids, found = np.asarray(ids, dtype=np.int64), np.asarray(found, dtype=np.float64)
    if self_edges:
        ids = np.column_stack([np.arange(len(ids)), ids])
        found = np.column_stack([np.zeros(len(found)), found])
    weights = kernel_weights(kernel, found)
    real = ids >= 0
    rows = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)
    matrix = sp.csr_matrix((weights[real], (rows[real], ids[real])), shape=(len(ids), n_references))
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    scale = np.divide(1.0, sums, out=np.ones_like(sums), where=sums != 0)
    return (sp.diags_array(scale) @ matrix).tocsr().astype(np.float32)


def check_matrix(found, expected, tolerance=1e-6):
    """The same entries, and rows that sum to 1."""
    assert sp.issparse(found) and found.format == "csr", f"M is {type(found)}"
    assert found.shape == expected.shape and found.dtype == np.float32, (found.shape, found.dtype)
    assert abs(found - expected).max() <= tolerance, "weights differ"
    sums = np.asarray(found.sum(axis=1)).ravel()
    assert np.allclose(sums, 1, rtol=0, atol=1e-5), "a row does not sum to 1"


def label_votes(matrix, labels):
    """Names in the order of their columns (sorted; missing ones last, as None) and probabilities."""
    missing = np.array([label is None for label in labels])
    names = sorted({label for label in labels if label is not None})
    columns = names + ([None] if missing.any() else [])
    place = {name: column for column, name in enumerate(columns)}
    one_hot = sp.csr_matrix(
        (np.ones(len(labels), np.float32), (np.arange(len(labels)), [place[label] for label in labels]))
    )
    return columns, np.asarray((matrix @ one_hot).todense())


def check_labels(found, confidences, matrix, labels, tolerance=1e-5):
    """Every label wins its vote (within rounding where two are level), and the confidence is its share."""
    columns, votes = label_votes(matrix, labels)
    assert np.allclose(confidences, votes.max(axis=1), rtol=0, atol=tolerance), "confidences differ"
    for row, label in enumerate(found):
        share = votes[row, columns.index(label)]
        assert share >= votes[row].max() - tolerance, f"row {row}: {label} has {share} of the votes"


def check_close(what, found, expected, tolerance=1e-5):
    """The same numbers in the same shape, relative to the largest."""
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, expected {expected.shape}"
    scale = max(1.0, np.abs(expected).max(initial=0))
    assert np.allclose(found, expected, rtol=0, atol=tolerance * scale), f"{what} differs"


def presence(found_ids, found, n_references):
    """Raw presence sums (gauss weights, not normalised) and scores (clipped at 1% and 99%, stretched to 0..1)."""
    weights = kernel_weights("gauss", np.asarray(found, dtype=np.float64))
    real = np.asarray(found_ids) >= 0
    raw = np.bincount(np.asarray(found_ids)[real], weights=weights[real], minlength=n_references)
    clipped = np.clip(raw, *np.percentile(raw, [1, 99]))
    span = clipped.max() - clipped.min()
    return raw, (clipped - clipped.min()) / span if span > 0 else np.zeros_like(clipped)
