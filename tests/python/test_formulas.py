"""The formulas by hand, and every check made to fail."""

import formulas
import numpy as np
import pytest
import scipy.sparse as sp

ROWS = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)


def found(k=5, own_row=True):
    return formulas.brute_force(ROWS, ROWS, k, own_row)


def test_nearest_rows_by_hand():
    line = np.array([[0.0], [1.0], [3.0]])
    ids, distances = formulas.brute_force(line, line, 4, own_row=False)
    assert ids.tolist() == [[1, 2, -1, -1], [0, 2, -1, -1], [1, 0, -1, -1]]
    assert distances[:, :2].tolist() == [[1, 3], [1, 2], [2, 3]]
    assert np.isposinf(distances[:, 2:]).all()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda ids, d: (np.roll(ids, 1, axis=0), d),
        lambda ids, d: (ids, d * (1 + 1e-5)),
        lambda ids, d: (np.where(ids == ids[0, 0], -1, ids), d),
        lambda ids, d: (np.column_stack([ids[:, :1], ids[:, :1], ids[:, 2:]]), d),
        lambda ids, d: (ids[:, ::-1], d[:, ::-1]),
    ],
)
def test_wrong_neighbours_are_seen(spoil):
    formulas.check_neighbours(*found(), ROWS, ROWS)
    with pytest.raises(AssertionError):
        formulas.check_neighbours(*spoil(*found()), ROWS, ROWS)


def test_weights_by_hand():
    d = np.array([[0.0, 1.0, np.inf]])
    mean, variance = 0.5, 0.25
    assert np.allclose(formulas.kernel_weights("gauss", d), [[1, np.exp(-1 / (2 * mean**2)), 0]])
    assert np.allclose(formulas.kernel_weights("scarches", d), [[1, np.exp(-variance / 4), 0]])
    assert np.allclose(formulas.kernel_weights("inverse_distance", d), [[1e8, 1 / (1 + 1e-8), 0]])
    assert np.allclose(formulas.kernel_weights("equal", d), [[1, 1, 0]])


def test_a_wrong_matrix_is_seen():
    matrix = formulas.mapping_matrix("gauss", *found(), len(ROWS))
    formulas.check_matrix(matrix.copy(), matrix)
    unlike = matrix.copy()
    unlike.data[3] += 1e-4
    for wrong in (unlike, matrix.tocsc(), matrix.astype(np.float64), matrix[:, :-1]):
        with pytest.raises(AssertionError):
            formulas.check_matrix(wrong, matrix)
    with pytest.raises(AssertionError):
        formulas.check_matrix(matrix * np.float32(0.5), matrix * np.float32(0.5))


def test_wrong_labels_are_seen():
    matrix = sp.csr_matrix(np.array([[0.5, 0.25, 0.25], [0.1, 0.9, 0.0]], np.float32))
    labels = ["b", None, "a"]
    formulas.check_labels(["b", None], [0.5, 0.9], matrix, labels)
    for names, confidences in [(["a", None], [0.5, 0.9]), (["b", "a"], [0.5, 0.9]), (["b", None], [0.5, 0.8])]:
        with pytest.raises(AssertionError):
            formulas.check_labels(names, confidences, matrix, labels)


def test_presence_by_hand():
    raw, scores = formulas.presence(np.array([[0, 1], [0, -1]]), np.array([[1.0, 1.0], [1.0, np.inf]]), 3)
    weight = np.exp(-0.5)
    assert np.allclose(raw, [2 * weight, weight, 0])
    assert np.allclose(scores[[0, 2]], [1, 0]) and 0.4 < scores[1] < 0.6
    with pytest.raises(AssertionError):
        formulas.check_close("presence", raw, raw + [0, 0, 1e-3])
