"""The parts of benches/RESULTS.md about indexes: inverted files, bounds, a reference out of core, self-mapping."""

import math

import cases

INVERTED = """
## Inverted file: {name}

{queries:,} queries in one batch, k = {k}, d = {dim}, {rows:,} references, all sides asked for
{lists:,} lists. faiss is `IndexIVFFlat`, trained as it comes (up to 256 rows per list); ann-search-rs is its `IvfIndex`, as it
comes. Building is from rows in memory to an index in memory; that of atlasknn is the whole program `atlasknn index`, from a file
to a file. Searches are in memory. Medians of {repeats} searches in turn{builds}.

| nprobe | {heads} |
|---|{rules}|
"""

BOUNDS = """
## Exact search by bounds

`atlasknn search --method exact --index INDEX` beside the same without an index: ids and distances have the same SHA-256 (the
run ends where they do not). The share is that of (query, reference) pairs that were compared; times are of one run each.

| case | references × queries × d, k | pairs compared | search, s | without an index, s |
|---|---|---|---|---|
"""

ATLAS = """
## A reference out of core: {name}

`atlasknn index` and `atlasknn search --method ivf --recall 0.99`, both with `--host-memory {memory}`: {rows:,} × {dim} float32
references in zarr, {queries:,} queries, k = {k}. {lists:,} lists, of which float32 visits {visited:.1f} per query (`{how}`); the other
encodings visit the same, and get exact distances from the reference (refined). Bytes read include the two samples of a search that are
compared with every reference. One run each, while other programs may run, so times say little; memory is what the system
reports.

| encoding | index, MiB | recall@{k} | peak, MiB: index, search | read over the plan: index, search | building, s | whole search, s (audit included) |
|---|---|---|---|---|---|---|
"""

SELF = """
## Self-mapping

Neighbours of each of {rows:,} × {dim} rows (the mixture) among all others, k = {k}, {threads} threads. atlasknn: `index` and
`search --method ivf --recall 0.99`, both whole programs, file to file. pynndescent: `NNDescent(rows, n_neighbors={asked})` (the row itself is one) with
its other parameters as they come, rows in memory, compiling excluded. The median of {repeats}, in turns. Recall is that of
{sampled:,} rows.

| | time, s | recall@{k} | memory, MiB |
|---|---|---|---|
"""


def at_recall(entry, queries, wanted):
    """Queries/s at a recall, between two numbers of lists: straight in log(1 - recall) and log(queries/s)."""
    points = sorted((probe["recall"], queries / probe["seconds"]) for probe in entry["probes"])
    for (low, slow), (high, fast) in zip(points, points[1:], strict=False):
        if low <= wanted <= high and low < high < 1:
            share = (math.log(1 - wanted) - math.log(1 - low)) / (math.log(1 - high) - math.log(1 - low))
            return math.exp(math.log(slow) + share * (math.log(fast) - math.log(slow)))
    return None


def sides(found, case):
    """Entries of a case by side."""
    return {side: entry for (name, side), entry in found.entries.items() if name == case.name}


def wanted_lines(found, quick):
    """(what, measured, limit, whether that is the least, how it is shown)."""
    number = "{:.2f}".format
    lines = []
    for case in chosen(cases.INVERTED, quick):
        entries = sides(found, case)
        ours, others = entries.get("atlasknn"), [entry for side, entry in entries.items() if side != "atlasknn"]
        if not ours or "faiss" not in entries:
            continue
        for recall in cases.RECALLS:
            peers = [speed for entry in others if (speed := at_recall(entry, case.queries, recall))]
            if peers and (speed := at_recall(ours, case.queries, recall)):
                what = f"{case.name}: queries/s over those of the faster peer at recall {recall}"
                lines.append((what, speed / max(peers), cases.INVERTED_LEAST, True, number))
        build = ours["build_s"] / entries["faiss"]["build_s"]
        lines.append((f"{case.name}: building time over that of faiss", build, cases.BUILD_MOST, False, number))
        pairs = zip(entries["faiss"]["probes"], ours["probes"], strict=True)
        less = max(theirs["recall"] - mine["recall"] for theirs, mine in pairs)
        what = f"{case.name}: recall below that of faiss at the same nprobe, at most"
        lines.append((what, less, cases.RECALL_LESS_MOST, False, "{:.4f}".format))
    for case, side, entry in ((case, *item) for case in cases.ATLASES for item in sides(found, case).items()):
        first = sides(found, case)["f32"]
        peak = max(entry["peak_bytes"], entry["build_peak_bytes"]) / 2**20
        most = cases.ATLAS_BYTES_MOST / 2**20
        lines.append((f"{case.name}, {side}: peak memory, MiB", peak, most, False, "{:.0f}".format))
        read = max(measured / planned for measured, planned in (entry["read"], entry["build_read"]))
        lines.append((f"{case.name}, {side}: bytes read over the plan", read, cases.ATLAS_READ_MOST, False, number))
        if side == "f32":
            what, least = f"{case.name}, f32: recall by the audit", cases.ATLAS_RECALL_LEAST
            lines.append((what, entry["recall"], least, True, "{:.4f}".format))
        elif side != "pq":
            what, loss = f"{case.name}, {side}: recall below that of f32", first["recall"] - entry["recall"]
            lines.append((what, loss, cases.ATLAS_LOSS_MOST, False, "{:.4f}".format))
    entries = sides(found, cases.SELF)
    if cases.SELF_PEER in entries:
        times = entries[cases.SELF_PEER]["seconds"] / entries["atlasknn"]["seconds"]
        lines.append((f"self-mapping: times as fast as {cases.SELF_PEER}", times, cases.SELF_LEAST, True, number))
    if entries:
        lines.append(("self-mapping: recall", entries["atlasknn"]["recall"], 0.99, True, "{:.4f}".format))
    return lines


def chosen(several, quick):
    return [case.small() if quick else case for case in several]


def inverted(found, case):
    entries = sides(found, case)
    if "atlasknn" not in entries:
        return ""
    names = [*(peer for peer in case.peers if peer in entries), "atlasknn"]
    heads = " | ".join(f"{name}: recall | queries/s" for name in names)
    builds = "; building " + ", ".join(f"{name} {entries[name]['build_s']:.2f} s" for name in names)
    about = case.__dict__ | {"heads": heads, "rules": "---|---|" * len(names), "builds": builds}
    text = INVERTED.format(**about | {"repeats": entries["atlasknn"]["repeats"], "rules": about["rules"][:-1]})
    for at, probe in enumerate(entries["atlasknn"]["probes"]):
        each = [entries[name]["probes"][at] for name in names]
        cells = [f"{one['recall']:.4f} | {case.queries / one['seconds']:,.0f}" for one in each]
        text += f"| {probe['nprobe']} | {' | '.join(cells)} |\n"
    for recall in cases.RECALLS:
        speeds = [at_recall(entries[name], case.queries, recall) for name in names]
        cells = [f"{recall} | {speed:,.0f}" if speed else f"{recall} | " for speed in speeds]
        text += f"| between | {' | '.join(cells)} |\n"
    return text


def bounds(found, several):
    rows = ""
    for case in several:
        for entry in sides(found, case).values():
            shape = f"{case.rows:,} × {case.queries:,} × {case.dim}, {case.k}"
            times = f"{entry['seconds']:.2f} | {entry['plain_seconds']:.2f}"
            rows += f"| {case.name} | {shape} | {entry['share']:.1%} | {times} |\n"
    return BOUNDS + rows if rows else ""


def atlas(found, case):
    entries = sides(found, case)
    if not entries:
        return ""
    first = next(iter(entries.values()))
    how = " ".join(map(str, first["how"]))
    text = ATLAS.format(**case.__dict__ | {"lists": first["lists"], "visited": first["visited"], "how": how})
    for side, entry in entries.items():
        peaks = f"{entry['build_peak_bytes'] / 2**20:,.0f}, {entry['peak_bytes'] / 2**20:,.0f}"
        reads = ", ".join(f"{measured / planned:.3f}" for measured, planned in (entry["build_read"], entry["read"]))
        times = f"{entry['build_s']:.0f} | {entry['seconds']:.0f}"
        size = f"{entry['index_bytes'] / 2**20:,.0f}"
        text += f"| {side} | {size} | {entry['recall']:.4f} | {peaks} | {reads} | {times} |\n"
    return text


def self_mapping(found, case):
    entries = sides(found, case)
    if not entries:
        return ""
    about = {"threads": found.machine["threads"], "sampled": 1_000, "asked": case.k + 1}
    about["repeats"] = entries["atlasknn"]["repeats"]
    text = SELF.format(**case.__dict__ | about)
    for side, entry in entries.items():
        text += f"| {side} | {entry['seconds']:.1f} | {entry['recall']:.4f} | {entry['peak_bytes'] / 2**20:,.0f} |\n"
    return text


def text(found, quick):
    """All tables of what was measured."""
    parts = [inverted(found, case) for case in chosen(cases.INVERTED, quick)]
    parts.append(bounds(found, chosen(cases.BOUNDS, quick)))
    parts += [atlas(found, case) for case in chosen(cases.ATLASES, quick)]
    parts.append(self_mapping(found, chosen([cases.SELF], quick)[0]))
    return "".join(parts)
