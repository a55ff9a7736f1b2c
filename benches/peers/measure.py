"""Measures every case, all sides in turn, and writes the report. Started by `run`, which has made everything it needs."""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path

import cases
import lists
import programs
import report
from data import Data
from quiet import Quiet
from sides import Side, blas_core, recall

INSTRUCTIONS = ("avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni")


def measure(case, data, options):
    """One entry per side. All sides hold their rows at once, and each repeat asks one after the other."""
    make = getattr(data, case.data)
    files = data.files(case)
    settings = [(name, files, "") for name in (*case.peers, "atlasknn")]
    if case.peers and not case.approximate and "avx512f" in options.machine["instructions"]:
        settings += [(name, files, " on AVX2") for name, *_ in settings]
    settings += [("atlasknn", make(case.rows, case.queries, case.dim, order=name), f", {name}") for name in case.orders]
    sides = [Side(name, options.exact, files, case, options.threads, options.home, tag) for name, files, tag in settings]
    for _ in range(options.repeats):
        for side in sides:
            side.repeat(options.quiet)
    entries = [side.close() for side in sides]
    ours = next(side for side in sides if side.name == "atlasknn").found(case.k)
    for side, entry in zip(sides, entries, strict=True):
        if "sgemm" in side.name:
            entry["gflops"] = 2 * 4096**3 / entry["seconds"] / 1e9
        else:
            entry["gpairs_per_s"] = case.rows * case.queries / entry["seconds"] / 1e9
            if not side.name.startswith("atlasknn"):
                entry["same_ids"] = recall(side.found(case.k)[:1000], ours[:1000])
    return entries


def stream(case, data, options):
    """The program from zarr to zarr, in turn with a search of the same rows in memory."""
    files = data.mixture(case.rows, case.queries, case.dim, "shuffled")
    query = data.zarr(files[1])
    out = options.home / "streamed.zarr"
    side = Side("atlasknn", options.exact, files, case, options.threads, options.home)
    command = [options.atlasknn, "search", query, files[0], "-o", out, "-k", str(case.k), "--quiet"]
    command += ["--threads", str(options.threads), "--host-memory", "1GiB"]

    def once():
        shutil.rmtree(out, ignore_errors=True)
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, code, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        if code:
            raise SystemExit(f"{command} ended with status {code}")
        return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024

    runs = []
    # Each is long enough to be its own average.
    for _ in range(min(options.repeats, 3)):
        side.repeat(options.quiet)
        runs.append(options.quiet.measure(lambda run: run[1], once))
    shutil.rmtree(out, ignore_errors=True)
    memory = side.close() | {"gpairs_per_s": case.rows * case.queries / statistics.median(side.seconds) / 1e9}
    seconds, cpu, peak = (statistics.median(column) for column in zip(*runs, strict=True))
    streamed = {
        "side": "streamed",
        "case": case.name,
        "seconds": seconds,
        "range": [min(run[0] for run in runs), max(run[0] for run in runs)],
        "cpu_seconds": cpu,
        "repeats": len(runs),
        "peak_bytes": peak,
        "gpairs_per_s": case.rows * case.queries / seconds / 1e9,
        "stored_bytes": sum(file.stat().st_size for file in query.rglob("*") if file.is_file()),
    }
    return [memory, streamed]


def machine(options):
    """What the figures are of."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        model = f"{fields['model name']} (family {fields['cpu family']})"
        has = " ".join(name for name in INSTRUCTIONS if name in fields["flags"].split())
    except (OSError, KeyError):
        model, has = platform.processor() or platform.machine(), ""
    files = ("requirements.txt", "requirements-older.txt")
    lock = " ".join(Path(__file__).with_name(name).read_text() for name in files).split()
    revision = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "cpu": model,
        "instructions": has,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": options.threads,
        "blas": blas_core() or "no OpenBLAS",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "revision": revision.stdout.strip(),
        "packages": list(dict.fromkeys(word for word in lock if "==" in word)),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--exact", required=True)
    parser.add_argument("--ivf", required=True)
    parser.add_argument("--ann", required=True)
    parser.add_argument("--atlasknn", required=True)
    parser.add_argument("--older", required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--patience", type=float, default=1800)
    options = parser.parse_args()
    if options.quick:
        options.repeats = 1
    data = Data(options.home, options.quick)
    options.machine = machine(options)
    options.quiet = Quiet(0 if options.quick else options.patience)
    results = options.home / ("quick.json" if options.quick else "results.json")
    kept = json.loads(results.read_text())["entries"] if options.only and results.exists() else []
    to = options.home / "QUICK.md" if options.quick else Path(__file__).parents[1] / "RESULTS.md"

    kinds = [(cases.CASES, measure), ([cases.STREAM], stream), (cases.INVERTED, lists.measure)]
    kinds += [(cases.BOUNDS, programs.bounds), (cases.ATLASES, programs.atlas), ([cases.SELF], programs.self_mapping)]
    for case, measure_case in ((case, measure_case) for several, measure_case in kinds for case in several):
        if options.only not in case.name:
            continue
        case = case.small() if options.quick else case
        print(f"{case.name}: ", end="", flush=True)
        began = time.perf_counter()
        entries = measure_case(case, data, options)
        speeds = [(entry["side"], entry.get("gpairs_per_s")) for entry in entries]
        speeds = [f"{side} {speed:.3g} Gpair/s" for side, speed in speeds if speed]
        print(*[*speeds, f"{time.perf_counter() - began:.0f} s"], sep=", ", flush=True)
        kept = [entry for entry in kept if entry["case"] != case.name] + entries
        options.machine["disturbed"] = options.quiet.disturbed
        found = {"machine": options.machine, "quick": options.quick, "entries": kept}
        results.write_text(json.dumps(found, indent=1))
        # After every case, so that an interrupted run leaves what it has.
        to.write_text(report.text(found))
    print(f"written: {to}")


if __name__ == "__main__":
    main()
