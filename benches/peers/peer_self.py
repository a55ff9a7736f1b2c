"""pynndescent's graph of all rows, in a process of its own: `peer_self.py ROWS K THREADS IDS`. One line of input, one run.

It counts a row among its own neighbours, so it is asked for one more than are wanted: with k it would find k − 1 others, and
no more than (k − 1) / k of the true ones.
"""

import json
import sys
import time

import numpy as np
import pynndescent


def main():
    path, k, threads, ids = sys.argv[1:]
    rows = np.load(path)

    def build(rows):
        return pynndescent.NNDescent(rows, n_neighbors=int(k) + 1, random_state=1, n_jobs=int(threads))

    # Compiles what it needs, which is not what is measured.
    build(rows[:2000])
    print(json.dumps({"ready": True, "version": pynndescent.__version__}), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        found = build(rows).neighbor_graph[0]
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)
        np.save(ids, found)


if __name__ == "__main__":
    main()
