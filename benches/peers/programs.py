"""The whole program on what only it does: exact search by bounds, a reference out of core, and a self-mapping beside
pynndescent."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import zarr

from lists import truth
from sides import Asked, environment, recall

IDS, DISTANCES = "obsm/knn_indices", "obsm/knn_distances"
# Rows of the sample that a self-mapping's recall is measured on.
SAMPLED = 1_000


def atlasknn(options, *arguments):
    """What a command says of itself with --json, and its peak memory as the system saw it."""
    command = list(map(str, [options.atlasknn, *arguments, "--threads", options.threads, "--quiet", "--json"]))
    with tempfile.TemporaryFile("w+") as said:
        run = subprocess.Popen(command, stdout=said, env=environment(options.threads))
        _, status, usage = os.wait4(run.pid, 0)
        if status:
            raise SystemExit(f"{command} ended with status {status}")
        said.seek(0)
        return json.loads(said.read().splitlines()[-1]) | {"peak_bytes": usage.ru_maxrss * 1024}


def digests(out):
    """SHA-256 of both arrays of neighbours."""
    group = zarr.open_group(out, mode="r")
    return [hashlib.sha256(np.ascontiguousarray(group[name][:]).tobytes()).hexdigest() for name in (IDS, DISTANCES)]


def bounds(case, data, options):
    """Exact search without an index, and through one: the same bytes, or this ends."""
    references, queries = data.files(case)
    index, plain, bounded = (options.home / f"bounds.{kind}" for kind in ("index", "plain", "bounded"))
    search = ["search", queries, references, "-k", case.k, "--method", "exact", "--overwrite", "-o"]
    atlasknn(options, "index", references, "-o", index, "--overwrite")
    runs = [atlasknn(options, *search, plain), atlasknn(options, *search, bounded, "--index", index)]
    equal = digests(plain) == digests(bounded)
    if not equal:
        raise SystemExit(f"{case.name}: exact search by bounds found something else")
    for folder in (index, plain, bounded):
        shutil.rmtree(folder)
    return [
        {
            "side": "bounds",
            "case": case.name,
            "repeats": 1,
            "sha256": "equal",
            "share": runs[1]["share_of_pairs"],
            "seconds": runs[1]["seconds"]["search"],
            "plain_seconds": runs[0]["seconds"]["search"],
        }
    ]


def atlas(case, data, options):
    """A reference that memory does not hold, indexed and searched with each encoding within a budget."""
    reference = data.atlas(case.rows, case.dim)
    queries = data.atlas_queries(case.queries, case.dim)
    index, out = options.home / "atlas.index", options.home / "atlas.out"
    entries = []
    for encoding in case.encodings:
        build = ["index", reference, "-o", index, "--encoding", encoding, "--host-memory", case.memory]
        build_plan = atlasknn(options, *build, "--dry-run")
        built = atlasknn(options, *build, "--overwrite")
        search = ["search", queries, reference, "-o", out, "-k", case.k, "--method", "ivf", "--index", index]
        # All encodings visit as many lists as float32 needs, so that their recalls are of the encoding alone.
        how = entries[0]["how"] if entries else ["--recall", 0.99]
        search += [*how, "--host-memory", case.memory]
        plan = atlasknn(options, *search, "--dry-run")
        found = atlasknn(options, *search, "--overwrite")
        chosen = json.loads((out / ".atlasknn/manifest.json").read_text())["parameters"]
        how = ["--nprobe", chosen["nprobe"], *(["--horizon", chosen["horizon"]] if chosen["horizon"] else [])]
        read = plan["search"]["bytes_read"]
        planned = sum(read.values()) + plan["index"].get("samples_bytes_read", 0)
        entries.append(
            {
                "side": encoding,
                "case": case.name,
                "repeats": 1,
                "how": how,
                "visited": chosen["lists_visited"],
                "lists": built["lists"],
                "build_s": built["seconds"]["total"],
                "build_peak_bytes": built["peak_bytes"],
                "build_read": [built["bytes_read"], sum(build_plan["bytes_read"].values())],
                "index_bytes": sum(file.stat().st_size for file in index.rglob("*") if file.is_file()),
                "search_s": found["seconds"]["search"],
                "seconds": found["seconds"]["total"],
                "peak_bytes": found["peak_bytes"],
                "read": [found["bytes_read"], planned],
                "recall": found["recall"],
            }
        )
        shutil.rmtree(index)
        shutil.rmtree(out)
    return entries


class Sampled:
    """A case of another k, for the truth of a sample."""

    def __init__(self, case, k):
        self.name, self.rows, self.k, self.batch = case.name, case.rows, k, None


def self_mapping(case, data, options):
    """Neighbours of every row among all others, from an index that is built for it; and by pynndescent."""
    rows, _ = data.files(case)
    index, out = options.home / "self.index", options.home / "self.out"
    built = atlasknn(options, "index", rows, "-o", index, "--overwrite")
    search = ["search", rows, "-o", out, "-k", case.k, "--method", "ivf", "--index", index, "--recall", 0.99]
    found = atlasknn(options, *search, "--overwrite")
    sample = np.sort(np.random.default_rng(0).choice(case.rows, SAMPLED, replace=False))
    held = np.load(rows, mmap_mode="r")
    queries = options.home / "self-sample.npy"
    np.save(queries, held[sample])
    # One more than are kept: the row itself is among them.
    more = Sampled(case, case.k + 1)
    true = truth(more, (rows, queries), options)
    true = np.array([row[row != own][: case.k] for row, own in zip(true, sample, strict=True)])
    ours = zarr.open_group(out, mode="r")[IDS][:][sample]
    shutil.rmtree(index)
    shutil.rmtree(out)
    about = {"case": case.name, "repeats": 1}
    entry = {
        "side": "atlasknn",
        "seconds": built["seconds"]["total"] + found["seconds"]["total"],
        "build_s": built["seconds"]["total"],
        "peak_bytes": max(built["peak_bytes"], found["peak_bytes"]),
        "recall": recall(ours, true),
        "audited": found["recall"],
    }
    entries = [entry | about]
    if "pynndescent" in case.peers:
        ids = options.home / "self.npy"
        script = Path(__file__).with_name("peer_self.py")
        side = Asked("pynndescent", [sys.executable, script, rows, case.k, options.threads, ids], options.threads)
        seconds, _ = side._once("once more")
        peak = side.end()
        theirs = np.load(ids, mmap_mode="r")[sample]
        # It counts the row itself among its neighbours.
        theirs = np.array([row[row != own][: case.k] for row, own in zip(theirs, sample, strict=True)], dtype=object)
        hits = sum(len(np.intersect1d(np.asarray(a, dtype=np.int64), b)) for a, b in zip(theirs, true, strict=True))
        entry = {"side": "pynndescent", "seconds": seconds, "peak_bytes": peak, "recall": hits / true.size}
        entries.append(entry | about)
    return entries
