"""The inverted file of faiss in a process of its own.

Called by lists.py as `peer_lists.py REFERENCES QUERIES K THREADS LISTS IDS`. It says when it is ready. A line of input is then
a number of lists to visit, or `build`: to build the index once more. Building is training as the library comes (up to 256 rows
per list) and adding, of rows that are in memory; a search is timed from the queries to ids and distances in memory.
"""

import json
import sys
import time

import faiss
import numpy as np


def main():
    references, queries, k, threads, lists, ids = sys.argv[1:]
    faiss.omp_set_num_threads(int(threads))
    rows, queries = np.load(references), np.load(queries)

    def build():
        started = time.perf_counter()
        # The quantizer is returned beside the index, which does not keep it alive.
        quantizer = faiss.IndexFlatL2(rows.shape[1])
        index = faiss.IndexIVFFlat(quantizer, rows.shape[1], int(lists))
        index.train(rows)
        index.add(rows)
        return index, quantizer, time.perf_counter() - started

    index, quantizer, seconds = build()
    print(json.dumps({"ready": True, "prepare_s": seconds}), flush=True)
    for line in sys.stdin:
        if line.strip() == "build":
            del index
            index, quantizer, seconds = build()
        else:
            index.nprobe = int(line)
            started = time.perf_counter()
            found = index.search(queries, int(k))[1]
            seconds = time.perf_counter() - started
            found.astype("<u8").tofile(ids)
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
