"""The tables of benches/RESULTS.md, from what measure.py found."""

from pathlib import Path

import report_lists
from cases import BY_CLUSTER_LEAST, CASES, IDENTICAL_MOST, STREAM, STREAM_BUSY, STREAM_MOST

INTRODUCTION = """# Results

Written by `benches/peers/run`; do not edit. Medians of {repeats} repeats, all sides in turn, {threads} threads each. A repeat
during which other programs took more than 4% of the processors was done again{disturbed}.

- Machine: {cpu}, {cores} cores, {system}; {instructions}
- Date: {date}; revision {revision}
- Beside: {packages}
- OpenBLAS is told `OPENBLAS_CORETYPE={blas}`, which numpy's finds by itself; that of faiss, from 2021, may not know this
  processor, and would take kernels without AVX.

A Gpair is 10⁹ (query, reference) distances, all of them compared, from queries in memory to the sorted top-k in memory.
References are added (faiss) or packed (atlasknn) before. atlasknn's distances are computed in f64 from the rows as given
and rounded once; faiss's are differences of f32 sums. The mixture is made of seeded clusters that look like principal
components of cells; GloVe-50 and MNIST-50 are principal components of word vectors and digits.
"""

WANTED = """
## What is wanted

| what | wanted | measured | |
|---|---|---|---|
"""

MAIN = """
## Exact search

faiss is `IndexFlatL2`, the faster of two runs: with all instructions there are, and held to AVX2. By itself it multiplies
matrices only where queries × d reach 128,000; where they do not, a second line has it with that threshold lowered to 20
("with BLAS"). sgemm is that of numpy (OpenBLAS), 4096 × 4096 × 4096 on as many threads: {gflops:.0f} GFLOP/s. A pair
counts as 2 × d operations. atlasknn may be above 100%: it sorts pairs out in whole numbers of 16 bits, which take half
the instructions of f32, before it computes the exact distances of those that are left. Rates are in Gpair/s, with the
slowest and fastest repeat. "Same ids" is the share of atlasknn's neighbours of the first 1,000 queries that faiss has
too. Memory is the peak of the process while it searches.

| case | references × queries × d, k | faiss | atlasknn | ratio | of sgemm | same ids | memory, MiB: faiss, atlasknn |
|---|---|---|---|---|---|---|---|
"""

AVX2 = """
## Exact search, AVX2 on both sides

sgemm on AVX2: {gflops:.0f} GFLOP/s. The same run as above, with `ATLASKNN_SIMD=avx2-i16`, faiss and its OpenBLAS held to AVX2.

| case | faiss | atlasknn | ratio | of sgemm |
|---|---|---|---|---|
"""

ORDER = """
## Order of the references

| references × queries × d, k | order | Gpair/s | memory, MiB |
|---|---|---|---|
"""

OTHERS = """
## Other libraries

{shape}, exact:

| library | Gpair/s | atlasknn is so many times as fast | same ids | memory, MiB |
|---|---|---|---|---|
"""

APPROXIMATE = """
{shape}, approximate; M = 16, efConstruction = 200, ef = 200 for the graphs, pynndescent as it comes:

| library | queries/s | recall@k | building, s | memory, MiB |
|---|---|---|---|---|
"""

STREAMING = """
## Streaming from zarr

`atlasknn search` of {queries:,} × {dim} float32 queries (zarr v3, sharded, zstd, {stored:.0f} MiB) against {rows:,} references in
memory, k = {k}, `--host-memory 1GiB`, to a zarr store: the whole process, from its start to the last file. Beside it a search of
the same rows that are in memory already, packing excluded, the neighbours left in memory. Medians of {repeats}, in turn.

| | time, s | slowest and fastest | CPU time / wall | Gpair/s | memory, MiB |
|---|---|---|---|---|---|
"""


BLAS = "faiss with BLAS"


class Found:
    """Entries by case and side."""

    def __init__(self, found):
        self.machine, self.quick = found["machine"], found["quick"]
        self.entries = {(entry["case"], entry["side"]): entry for entry in found["entries"]}

    def speed(self, case, side):
        return self.entries.get((case, side), {}).get("gpairs_per_s")

    def faiss(self, case, mode="faiss"):
        """The faster of faiss's runs."""
        sides = [self.entries.get((case, side)) for side in (mode, f"{mode} on AVX2")]
        return max((side for side in sides if side), key=lambda side: side["gpairs_per_s"], default=None)

    def ratio(self, case, mode="faiss"):
        ours, faiss = self.speed(case, "atlasknn"), self.faiss(case, mode)
        return ours / faiss["gpairs_per_s"] if ours and faiss else None

    def share(self, case, side="atlasknn", sgemm="sgemm"):
        """Of the machine's sgemm."""
        speed, gflops = self.speed(case.name, side), self.gflops(sgemm)
        return speed * 2 * case.dim / gflops if speed and gflops else None

    def gflops(self, side):
        return next((entry["gflops"] for (_, name), entry in self.entries.items() if name == side), None)

    def quotient(self, case, side, of):
        """The speed of one side over that of another."""
        a, b = self.speed(case, side), self.speed(case, of)
        return a / b if a and b else None


def number(value):
    return f"{value:.2f}" if value >= 0.995 else f"{value:.3f}"


def mebibytes(entry):
    return f"{entry['peak_bytes'] / 2**20:,.0f}" if entry.get("peak_bytes") else "?"


def percent(share):
    return "" if share is None else f"{share:.0%}"


def rate(entry):
    """The median, and what the slowest and the fastest repeat reached."""
    pairs = entry["gpairs_per_s"] * entry["seconds"]
    fastest, slowest = entry["range"]
    return f"{number(entry['gpairs_per_s'])} ({number(pairs / slowest)}–{number(pairs / fastest)})"


def shape(case):
    return f"{case.rows:,} × {case.queries:,} × {case.dim}, {case.k}"


def wanted_table(found, cases):
    """Every figure that is wanted, and whether it was met."""
    lines = []
    for case in cases:
        if case.wanted:
            lines.append((f"{case.name}: times as fast as faiss", found.ratio(case.name), case.wanted, True, number))
        if BLAS in case.peers:
            lines.append((f"{case.name}: times as fast as {BLAS}", found.ratio(case.name, BLAS), None, True, number))
        if case.wanted_share:
            lines.append((f"{case.name}: share of sgemm", found.share(case), case.wanted_share, True, percent))
    by_cluster = found.quotient("mixture", "atlasknn, by cluster", "atlasknn")
    lines.append(("sorted by cluster: rate over that of shuffled ones", by_cluster, BY_CLUSTER_LEAST, True, percent))
    identical = found.quotient("identical references", "atlasknn", "atlasknn, identical")
    lines.append(("identical references: time over that of random ones", identical, IDENTICAL_MOST, False, number))
    memory, streamed = (found.entries.get((STREAM.name, side)) for side in ("atlasknn", "streamed"))
    if streamed:
        tax = streamed["seconds"] / memory["seconds"]
        lines.append(("streaming: time over that in memory", tax, STREAM_MOST, False, number))
        if streamed["cpu_seconds"]:
            busy, least = streamed["cpu_seconds"] / streamed["seconds"], STREAM_BUSY * found.machine["threads"]
            lines.append(("streaming: CPU time over wall time", busy, least, True, number))
    lines += report_lists.wanted_lines(found, found.quick)
    rows = []
    for what, value, limit, at_least, show in lines:
        if value is not None and limit is None:
            rows.append(f"| {what} | | {show(value)} | |")
        elif value is not None:
            met = value >= limit if at_least else value <= limit
            limit = percent(limit) if show is percent else f"{limit:g}"
            verdict = "met" if met else "**not met**"
            rows.append(f"| {what} | {'≥' if at_least else '≤'} {limit} | {show(value)} | {verdict} |")
    return "\n".join(rows)


def main_table(found, cases):
    rows = []
    for case, mode in ((case, mode) for case in cases for mode in ("faiss", BLAS)):
        ours, faiss = found.entries.get((case.name, "atlasknn")), found.faiss(case.name, mode)
        if not ours or not faiss or not case.wanted:
            continue
        name = case.name if mode == "faiss" else f"{case.name}; {mode}"
        rows.append(
            f"| {name} | {shape(case)} | {rate(faiss)} | {rate(ours)} | **{found.ratio(case.name, mode):.2f}** | "
            f"{percent(found.share(case))} | {faiss['same_ids']:.4f} | {mebibytes(faiss)}, {mebibytes(ours)} |"
        )
    return "\n".join(rows)


def avx2_table(found, cases):
    rows = []
    for case in cases:
        ours, faiss = (found.entries.get((case.name, f"{side} on AVX2")) for side in ("atlasknn", "faiss"))
        if ours and faiss and case.wanted:
            share = found.share(case, "atlasknn on AVX2", "sgemm on AVX2")
            ratio = ours["gpairs_per_s"] / faiss["gpairs_per_s"]
            rows.append(f"| {case.name} | {rate(faiss)} | {rate(ours)} | **{ratio:.2f}** | {percent(share)} |")
    if not rows:
        return ""
    return AVX2.format(gflops=found.gflops("sgemm on AVX2") or 0) + "\n".join(rows) + "\n"


def order_table(found, cases):
    rows = []
    for case in cases:
        for order in ("shuffled", *case.orders) if case.orders else ():
            entry = found.entries.get((case.name, "atlasknn" if order == "shuffled" else f"atlasknn, {order}"))
            if entry:
                rows.append(f"| {shape(case)} | {order} | {rate(entry)} | {mebibytes(entry)} |")
    return "\n".join(rows)


def other_tables(found, cases):
    text = ""
    for case in (case for case in cases if len(case.peers) > 2):
        ours = found.entries.get((case.name, "atlasknn"))
        if not ours:
            continue
        text += (APPROXIMATE if case.approximate else OTHERS).format(shape=shape(case))
        for side in ("atlasknn", *case.peers):
            entry = found.entries[case.name, side]
            same, memory = entry.get("same_ids", 1), mebibytes(entry)
            if case.approximate:
                speed = f"{case.queries / entry['seconds']:,.0f}"
                name = f"{side} (exact)" if side == "atlasknn" else side
                text += f"| {name} | {speed} | {same:.4f} | {entry['prepare_s']:.1f} | {memory} |\n"
            else:
                times = entry["seconds"] / ours["seconds"]
                text += f"| {side} | {number(entry['gpairs_per_s'])} | {times:.1f} | {same:.4f} | {memory} |\n"
    return text


def streaming(found, case):
    memory, streamed = (found.entries.get((case.name, side)) for side in ("atlasknn", "streamed"))
    if not streamed:
        return ""
    stored = streamed["stored_bytes"] / 2**20
    about = {"queries": case.queries, "dim": case.dim, "rows": case.rows, "k": case.k, "repeats": streamed["repeats"]}
    text = STREAMING.format(**about, stored=stored)
    for name, entry in (("in memory", memory), ("zarr to zarr", streamed)):
        busy = f"{entry['cpu_seconds'] / entry['seconds']:.2f}" if entry["cpu_seconds"] else ""
        fastest, slowest = entry["range"]
        text += (
            f"| {name} | {entry['seconds']:.2f} | {slowest:.2f}–{fastest:.2f} | {busy} | "
            f"{number(entry['gpairs_per_s'])} | {mebibytes(entry)} |\n"
        )
    return text + f"\nEnd to end over in memory: **{streamed['seconds'] / memory['seconds']:.3f}**.\n"


def text(found):
    """The whole report."""
    found = Found(found)
    cases = [case.small() if found.quick else case for case in CASES]
    timed = {case.name for case in CASES}
    repeats = min((entry["repeats"] for entry in found.entries.values() if entry["case"] in timed), default=0)
    count = found.machine["disturbed"]
    about = found.machine | {
        "packages": ", ".join(found.machine["packages"]),
        "repeats": repeats,
        "disturbed": f", but for {count} of them: the machine was never quiet" if count else "",
    }
    parts = [
        INTRODUCTION.format(**about),
        "\nAll cases were made small to see whether the script works: these figures say nothing.\n" if found.quick else "",
        WANTED + wanted_table(found, cases) + "\n",
        MAIN.format(gflops=found.gflops("sgemm") or 0) + main_table(found, cases) + "\n",
        avx2_table(found, cases),
        ORDER + order_table(found, cases) + "\n",
        other_tables(found, cases),
        streaming(found, STREAM.small() if found.quick else STREAM),
        report_lists.text(found, found.quick),
    ]
    # What `cargo bench --bench gpu` found, where there is a GPU: written by hand.
    parts.append("\n" + (Path(__file__).parent.parent / "results-gpu.md").read_text())
    return "".join(parts)
