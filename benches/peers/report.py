"""The tables of benches/RESULTS.md, from what measure.py found."""

from cases import CASES, STREAM, STREAM_MOST

INTRODUCTION = """# Results

Written by `benches/peers/run`; do not edit. Medians of {repeats} repeats, all sides in turn, {threads} threads each.

- Machine: {cpu}, {cores} cores, {system}; {instructions}
- Date: {date}; revision {revision}
- Beside: {packages}

A Gpair is 10⁹ (query, reference) distances, all of them compared, from queries in memory to the sorted top-k in memory.
References are added (faiss) or packed (atlasknn) before. atlasknn's distances are computed in f64 from the rows as given
and rounded once; faiss's are differences of f32 sums. "Same ids" is the share of atlasknn's neighbours of the first
1,000 queries that the other one has too. Memory is the peak of the process while it searches.
"""

MAIN = """
## Exact search, the best instructions there are

faiss is `IndexFlatL2`, the faster of its runs on all instructions and on AVX2. sgemm is that of numpy (OpenBLAS), 4096 × 4096 ×
4096 on as many threads: {gflops:.0f} GFLOP/s. A pair counts as 2 × d operations.

| case | references × queries × d, k | faiss, Gpair/s | atlasknn, Gpair/s | ratio | wanted | of sgemm | same ids | memory, MiB: faiss / atlasknn |
|---|---|---|---|---|---|---|---|---|
"""

AVX2 = """
## Exact search, AVX2 on both sides

sgemm on AVX2: {gflops:.0f} GFLOP/s. The same run as above, with `ATLASKNN_SIMD=avx2`, faiss and its OpenBLAS held to AVX2.

| case | faiss, Gpair/s | atlasknn, Gpair/s | ratio | of sgemm |
|---|---|---|---|---|
"""

ORDER = """
## Order of the references

| case | measured | wanted |
|---|---|---|
"""

OTHERS = """
## Other libraries

{exact_shape}:

| library | Gpair/s | atlasknn is so many times as fast | same ids |
|---|---|---|---|
"""

APPROXIMATE = """
{shape}, approximate; M = 16, efConstruction = 200, ef = 200 for the graphs, pynndescent as it comes:

| library | queries/s | recall@k | building, s |
|---|---|---|---|
"""

STREAMING = """
## Streaming from zarr

`atlasknn search` of {queries:,} × {dim} float32 queries (zarr v3, sharded, zstd, {stored:.0f} MiB) against {rows:,} references in
memory, k = {k}, `--host-memory 1GiB`, to a zarr store; beside a search of the same rows in memory.

| | time, s | range | CPU time / wall | Gpair/s | memory, MiB |
|---|---|---|---|---|---|
"""


class Found:
    """Entries by case and side."""

    def __init__(self, found):
        self.machine, self.quick = found["machine"], found["quick"]
        self.entries = {(entry["case"], entry["side"]): entry for entry in found["entries"]}

    def speed(self, case, side):
        return self.entries.get((case, side), {}).get("gpairs_per_s")

    def faiss(self, case):
        """The faster of faiss's runs."""
        sides = [self.entries.get((case, side)) for side in ("faiss", "faiss on AVX2")]
        return max((side for side in sides if side), key=lambda side: side["gpairs_per_s"], default=None)

    def gflops(self, side):
        return next((entry["gflops"] for (_, name), entry in self.entries.items() if name == side), None)


def number(value):
    return "" if value is None else f"{value:.2f}" if value >= 0.995 else f"{value:.3f}"


def mebibytes(entry):
    return f"{entry['peak_bytes'] / 2**20:,.0f}" if entry.get("peak_bytes") else "?"


def share_of(gflops, speed, dim):
    return f"{speed * 2 * dim / gflops:.0%}" if gflops else ""


def shape(case):
    return f"{case.rows:,} × {case.queries:,} × {case.dim}, {case.k}"


def main_table(found, cases):
    rows = []
    for case in cases:
        ours, faiss = found.entries.get((case.name, "atlasknn")), found.faiss(case.name)
        if not ours or not faiss or len(case.peers) > 2:
            continue
        speed = ours["gpairs_per_s"]
        rows.append(
            f"| {case.name} | {shape(case)} | {number(faiss['gpairs_per_s'])} | {number(speed)} | "
            f"**{speed / faiss['gpairs_per_s']:.2f}** | {f'≥ {case.wanted}' if case.wanted else ''} | "
            f"{share_of(found.gflops('sgemm'), speed, case.dim)} | {faiss.get('same_ids', 0):.4f} | "
            f"{mebibytes(faiss)} / {mebibytes(ours)} |"
        )
    return "\n".join(rows)


def avx2_table(found, cases):
    rows = []
    for case in cases:
        ours, faiss = found.speed(case.name, "atlasknn on AVX2"), found.speed(case.name, "faiss on AVX2")
        if ours and faiss:
            share = share_of(found.gflops("sgemm on AVX2"), ours, case.dim)
            rows.append(f"| {case.name} | {number(faiss)} | {number(ours)} | **{ours / faiss:.2f}** | {share} |")
    return "\n".join(rows)


def order_table(found):
    rows = []
    shuffled, by_cluster = (found.speed(case, "atlasknn") for case in ("mixture", "sorted by cluster"))
    if shuffled and by_cluster:
        rows.append(f"| sorted by cluster, rate over that of shuffled ones | {by_cluster / shuffled:.0%} | ≥ 80% |")
    random, identical = (found.speed(case, "atlasknn") for case in ("200,000 random", "200,000 identical"))
    if random and identical:
        rows.append(f"| 200,000 identical ones × 2,000, time over that of random ones | {random / identical:.2f} | ≤ 5 |")
    return "\n".join(rows)


def other_tables(found, cases):
    text = ""
    for case in (case for case in cases if len(case.peers) > 2):
        ours = found.entries.get((case.name, "atlasknn"))
        if not ours:
            continue
        text += (APPROXIMATE if case.approximate else OTHERS).format(shape=shape(case), exact_shape=shape(case))
        for side in ("atlasknn", *case.peers):
            entry = found.entries[case.name, side]
            same = entry.get("same_ids", 1)
            if case.approximate:
                speed = f"{case.queries / entry['seconds']:,.0f}"
                name = f"{side} (exact)" if side == "atlasknn" else side
                text += f"| {name} | {speed} | {same:.4f} | {entry['prepare_s']:.1f} |\n"
            else:
                times = entry["seconds"] / ours["seconds"]
                text += f"| {side} | {number(entry['gpairs_per_s'])} | {times:.1f} | {same:.4f} |\n"
    return text


def streaming(found, case):
    memory, streamed = (found.entries.get((case.name, side)) for side in ("atlasknn", "streamed"))
    if not streamed:
        return ""
    stored = streamed["stored_bytes"] / 2**20
    text = STREAMING.format(queries=case.queries, dim=case.dim, rows=case.rows, k=case.k, stored=stored)
    for name, entry in (("in memory", memory), ("zarr to zarr", streamed)):
        busy = f"{entry['cpu_seconds'] / entry['seconds']:.2f}" if entry["cpu_seconds"] else ""
        low, high = entry["range"]
        text += (
            f"| {name} | {entry['seconds']:.2f} | {low:.2f}–{high:.2f} | {busy} | "
            f"{number(entry['gpairs_per_s'])} | {mebibytes(entry)} |\n"
        )
    tax = streamed["seconds"] / memory["seconds"]
    return text + f"\nEnd to end over in memory: **{tax:.3f}** (wanted: ≤ {STREAM_MOST}).\n"


def text(found):
    """The whole report."""
    found = Found(found)
    cases = [case.small() if found.quick else case for case in CASES]
    repeats = min((entry["repeats"] for entry in found.entries.values()), default=0)
    about = found.machine | {"packages": ", ".join(found.machine["packages"]), "repeats": repeats}
    parts = [
        INTRODUCTION.format(**about),
        MAIN.format(gflops=found.gflops("sgemm") or 0) + main_table(found, cases) + "\n",
        AVX2.format(gflops=found.gflops("sgemm on AVX2") or 0) + avx2_table(found, cases) + "\n",
        ORDER + order_table(found) + "\n",
        other_tables(found, cases),
        streaming(found, STREAM.small() if found.quick else STREAM),
    ]
    return "".join(parts)
