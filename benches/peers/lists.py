"""Search through inverted files: atlasknn and others, at the same numbers of lists to visit."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from sides import Asked, Side, recall


def timed(command):
    """Seconds, CPU seconds and peak memory of a whole process."""
    started = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{command} ended with status {status}: {errors.decode()}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def truth(case, files, options):
    """The true neighbours, found by comparing every pair."""
    side = Side("atlasknn", options.exact, files, case, options.threads, options.home)
    side.repeat(options.quiet)
    side.close()
    return side.found(case.k)


class InvertedSide:
    """One library: builds and searches, as often as it is asked."""

    def __init__(self, name, case, files, options):
        self.name, self.case, self.options, self.files = name, case, options, files
        self.ids = options.home / f"{name}-lists.u64"
        self.index = options.home / "lists.index"
        self.builds, self.searches, self.recalls = [], {}, {}
        references, queries = files
        if name == "atlasknn":
            self.build()
            command = [options.ivf, "--index", self.index, "--queries", queries, "-k", case.k]
            command += ["--threads", options.threads, "--ids", self.ids]
        else:
            faiss = [sys.executable, Path(__file__).with_name("peer_lists.py")]
            command = faiss if name == "faiss" else [options.ann]
            command += [references, queries, case.k, options.threads, case.lists, self.ids]
        self.process = Asked(name, command, options.threads)
        if name != "atlasknn":
            self.builds.append(self.process.ready["prepare_s"])

    def build(self):
        """Once more. atlasknn's is the whole program, from the file of the rows to the index on the disk."""
        if self.name != "atlasknn":
            self.builds.append(self.process.ask(self.options.quiet, "build")[0])
            return
        command = [self.options.atlasknn, "index", self.files[0], "-o", self.index, "--lists", self.case.lists]
        command += ["--threads", self.options.threads, "--quiet", "--overwrite"]
        self.builds.append(self.options.quiet.measure(lambda run: run[1], lambda: timed(command))[0])

    def search(self, probes, true):
        self.searches.setdefault(probes, []).append(self.process.ask(self.options.quiet, probes)[0])
        if probes not in self.recalls:
            self.recalls[probes] = recall(np.fromfile(self.ids, dtype="<u8").reshape(true.shape), true)

    def close(self):
        peak = self.process.end()
        if self.index.exists() and self.name == "atlasknn":
            shutil.rmtree(self.index)
        probes = [
            {"nprobe": probes, "recall": self.recalls[probes], "seconds": statistics.median(seconds)}
            | {"range": [min(seconds), max(seconds)]}
            for probes, seconds in sorted(self.searches.items())
        ]
        builds = {"build_s": statistics.median(self.builds), "build_range": [min(self.builds), max(self.builds)]}
        about = {"side": self.name, "case": self.case.name, "repeats": len(next(iter(self.searches.values())))}
        return about | builds | {"peak_bytes": peak, "probes": probes}


def measure(case, data, options):
    """One entry per library: medians of building, and of searching at each number of lists."""
    files = data.files(case)
    true = truth(case, files, options)
    sides = [InvertedSide(name, case, files, options) for name in (*case.peers, "atlasknn")]
    for _ in range(min(options.repeats, 3) - 1):
        for side in sides:
            side.build()
    for _ in range(options.repeats):
        for probes in case.probes:
            for side in sides:
                side.search(probes, true)
    return [side.close() for side in sides]
