"""One other library in a process of its own: says when it is ready, and then does one repeat per line of input.

Called by measure.py as `peer.py NAME REFERENCES QUERIES K THREADS BATCH IDS`. What goes before "ready" (reading, adding or
building) is not timed. A repeat is timed from the queries to the ids and distances that the library hands out.
"""

import json
import sys
import time

import numpy as np

PIECE = 100_000


def pieces(path):
    rows = np.load(path, mmap_mode="r")
    for start in range(0, len(rows), PIECE):
        yield np.array(rows[start : start + PIECE])


def faiss_flat(references, k, threads):
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatL2(np.load(references, mmap_mode="r").shape[1])
    for piece in pieces(references):
        index.add(piece)
    return lambda queries: index.search(queries, k)[1]


def faiss_blas(references, k, threads):
    """The same told to multiply matrices however few the queries are; by itself it does from 128,000 values."""
    import faiss

    faiss.cvar.distance_compute_blas_threshold = 20
    return faiss_flat(references, k, threads)


def sklearn_brute(references, k, threads):
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=k, algorithm="brute", n_jobs=threads).fit(np.load(references))
    return lambda queries: index.kneighbors(queries)[1]


def usearch_exact(references, k, threads):
    from usearch.index import MetricKind, search

    rows = np.load(references)
    return lambda queries: search(rows, queries, k, MetricKind.L2sq, exact=True, threads=threads).keys


def hnswlib_graph(references, k, threads, ef=200):
    import hnswlib

    rows = np.load(references)
    index = hnswlib.Index("l2", rows.shape[1])
    index.init_index(len(rows), M=16, ef_construction=200, random_seed=1)
    index.add_items(rows, num_threads=threads)
    index.set_ef(ef)
    return lambda queries: index.knn_query(queries, k, num_threads=threads)[0]


def usearch_graph(references, k, threads, ef=200):
    from usearch.index import Index

    rows = np.load(references)
    index = Index(
        ndim=rows.shape[1], metric="l2sq", dtype="f32", connectivity=16, expansion_add=200, expansion_search=ef
    )
    index.add(np.arange(len(rows)), rows, threads=threads)
    return lambda queries: index.search(queries, k, threads=threads).keys


def pynndescent_graph(references, k, threads):
    import pynndescent

    def build(rows):
        index = pynndescent.NNDescent(rows, n_neighbors=k, random_state=1, n_jobs=threads)
        index.prepare()
        return index

    rows = np.load(references)
    # Compiles what it needs, which takes longer than the rest and is not building.
    build(rows[:2000]).query(rows[:10], k=k)
    started = time.perf_counter()
    index = build(rows)
    return lambda queries: index.query(queries, k=k)[0], time.perf_counter() - started


def sgemm(references, k, threads):
    """4096 × 4096 × 4096 in float32, whatever the rows: what this machine multiplies at best."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)
    a, b = np.random.default_rng(0).random((2, 4096, 4096), dtype=np.float32)
    out = np.empty_like(a)
    return lambda _: np.matmul(a, b, out=out)


PEERS = {
    "faiss": faiss_flat,
    "faiss with BLAS": faiss_blas,
    "sklearn": sklearn_brute,
    "usearch": usearch_exact,
    "hnswlib graph": hnswlib_graph,
    "usearch graph": usearch_graph,
    "pynndescent graph": pynndescent_graph,
    "sgemm": sgemm,
}


def main():
    name, references, queries, k, threads, batch, ids = sys.argv[1:]
    rows = np.load(queries)
    size = int(batch) or len(rows)
    started = time.perf_counter()
    search = PEERS[name](references, int(k), int(threads))
    seconds = time.perf_counter() - started
    if isinstance(search, tuple):
        search, seconds = search
    print(json.dumps({"ready": True, "prepare_s": seconds}), flush=True)
    found = []
    for _ in sys.stdin:
        found = []
        started = time.perf_counter()
        if name == "sgemm":
            search(rows)
        else:
            found = [search(rows[start : start + size]) for start in range(0, len(rows), size)]
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)
    if found:
        np.concatenate(found).astype("<u8").tofile(ids)


if __name__ == "__main__":
    main()
