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
from sides import Asked, environment

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
    """Neighbours of every row among all others, from an index that is built for it; and by pynndescent. Sides take turns."""
    rows, _ = data.files(case)
    sample = np.sort(np.random.default_rng(0).choice(case.rows, SAMPLED, replace=False))
    queries = options.home / "self-sample.npy"
    np.save(queries, np.load(rows, mmap_mode="r")[sample])
    # One more than are kept: the row itself is among them.
    true = others(truth(Sampled(case, case.k + 1), (rows, queries), options), sample, case.k)
    sides = {"atlasknn": lambda: self_mapped(case, rows, sample, options)}
    for peer in case.peers:
        sides[peer] = lambda peer=peer: self_mapped_by(peer, case, rows, sample, options)
    repeats = min(options.repeats, 3)
    runs = {side: [] for side in sides}
    for _ in range(repeats):
        for side, once in sides.items():
            runs[side].append(once())
    entries = []
    for side, of_side in runs.items():
        entry = sorted((run for run, _ in of_side), key=lambda run: run["seconds"])[repeats // 2]
        hits = sum(len(np.intersect1d(found, row)) for found, row in zip(of_side[0][1], true, strict=True))
        peak = max(run["peak_bytes"] for run, _ in of_side)
        about = {"side": side, "case": case.name, "repeats": repeats, "recall": hits / true.size, "peak_bytes": peak}
        entries.append(entry | about)
    return entries


def others(found, sample, k):
    """Neighbours of a sample's rows without those rows themselves."""
    return np.array([row[row != own][:k] for row, own in zip(found, sample, strict=True)])


def self_mapped(case, rows, sample, options):
    """What both programs took, file to file, and the neighbours of a sample."""
    index, out = options.home / "self.index", options.home / "self.out"
    built = atlasknn(options, "index", rows, "-o", index, "--overwrite")
    search = ["search", rows, "-o", out, "-k", case.k, "--method", "ivf", "--index", index, "--recall", 0.99]
    found = atlasknn(options, *search, "--overwrite")
    ours = zarr.open_group(out, mode="r")[IDS][:][sample]
    shutil.rmtree(index)
    shutil.rmtree(out)
    entry = {
        "seconds": built["seconds"]["total"] + found["seconds"]["total"],
        "build_s": built["seconds"]["total"],
        "peak_bytes": max(built["peak_bytes"], found["peak_bytes"]),
        "audited": found["recall"],
    }
    return entry, ours


def self_mapped_by(peer, case, rows, sample, options):
    """The same of a pynndescent, which counts a row among its own neighbours."""
    ids = options.home / "self.npy"
    python = options.older if peer == case.peers[0] else sys.executable
    command = [python, Path(__file__).with_name("peer_self.py"), rows, case.k, options.threads, ids]
    side = Asked(peer, command, options.threads)
    if side.ready["version"] not in peer:
        raise SystemExit(f"{peer} was to be measured, and this is {side.ready['version']}")
    seconds, _ = side._once("once more")
    entry = {"seconds": seconds, "peak_bytes": side.end()}
    return entry, [row[row != own][: case.k] for row, own in zip(np.load(ids, mmap_mode="r")[sample], sample, strict=True)]
