"""Processes that wait with everything loaded, and do one repeat at a time when asked. The first is as good as any: it
warms up, and a median of five does not mind."""

import functools
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from quiet import TICKS

# Keeps every side to AVX2 on machines that have more.
AVX2 = {"OPENBLAS_CORETYPE": "Haswell", "FAISS_OPT_LEVEL": "AVX2", "ATLASKNN_SIMD": "avx2-i16"}
# What somebody set for this shell must not hold one side back: dropped, so that each library chooses by itself.
SETTINGS = ("OPENBLAS_", "OMP_", "KMP_", "MKL_", "NUMBA_", "FAISS_", "ATLASKNN_")
WHICH_CORE = """
import numpy, threadpoolctl
print(next((lib["architecture"] for lib in threadpoolctl.threadpool_info() if lib["internal_api"] == "openblas"), ""))
"""


def environment(threads):
    """This process's without those settings, and with so many threads."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    return kept | {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "NUMBA")}


@functools.cache
def blas_core():
    """The processor whose kernels numpy's OpenBLAS takes here. faiss brings an OpenBLAS of 2021 that takes processors it does
    not know for old ones without AVX, and is several times as fast when it is told."""
    command = [sys.executable, "-c", WHICH_CORE]
    return subprocess.run(command, env=environment(1), capture_output=True, text=True, check=True).stdout.strip()


def cpu_seconds(pid):
    """CPU time of a process so far; None where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_bytes(pid):
    """The largest resident memory of a process since `forget_peak`; None where there is no /proc."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


def forget_peak(pid):
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError:
        pass


class Asked:
    """A process that holds its data, and answers each line with what a repeat took."""

    def __init__(self, name, command, threads, settings=None):
        self.name = name
        settings = settings or ({"OPENBLAS_CORETYPE": blas_core()} if blas_core() else {})
        self.process = subprocess.Popen(
            list(map(str, command)),
            env=environment(threads) | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.ready = self._line()
        forget_peak(self.process.pid)

    def _line(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with exit code {self.process.wait()}")
        return json.loads(line)

    def _once(self, request):
        """Seconds and CPU seconds of a repeat."""
        before = cpu_seconds(self.process.pid)
        self.process.stdin.write(f"{request}\n")
        seconds = self._line()["seconds"]
        return seconds, None if before is None else cpu_seconds(self.process.pid) - before

    def ask(self, quiet, request="once more"):
        return quiet.measure(lambda once: once[1], lambda: self._once(request))

    def end(self):
        """The largest memory it had since it was ready."""
        peak = peak_bytes(self.process.pid)
        self.process.stdin.close()
        self.process.wait()
        return peak


class Side(Asked):
    """One library on one case: `repeat` measures once more, `close` gives the medians."""

    def __init__(self, name, exact, files, case, threads, folder, suffix=""):
        self.case = case
        self.seconds, self.cpu = [], []
        self.ids = folder / f"{name + suffix}.u64".replace(",", "").replace(" ", "-")
        self.ids.unlink(missing_ok=True)
        references, queries = files
        batch = case.batch or 0
        if name == "atlasknn":
            command = [exact, "--references", references, "--queries", queries, "-k", case.k, "--on-request"]
            command += ["--threads", threads, "--ids", self.ids]
            command += ["--batch", batch] if case.batch else []
        else:
            script = Path(__file__).with_name("peer.py")
            command = [sys.executable, script, name, references, queries, case.k, threads, batch, self.ids]
        super().__init__(name + suffix, command, threads, AVX2 if "AVX2" in suffix else None)

    def repeat(self, quiet):
        seconds, cpu = self.ask(quiet)
        self.seconds.append(seconds)
        if cpu is not None:
            self.cpu.append(cpu)

    def close(self):
        return {
            "side": self.name,
            "case": self.case.name,
            "peak_bytes": self.end(),
            "seconds": statistics.median(self.seconds),
            "range": [min(self.seconds), max(self.seconds)],
            "cpu_seconds": statistics.median(self.cpu) if self.cpu else None,
            "repeats": len(self.seconds),
            "prepare_s": self.ready["prepare_s"],
            "simd": self.ready.get("simd"),
        }

    def found(self, k):
        return np.fromfile(self.ids, dtype="<u8").reshape(-1, k)


def recall(found, truth):
    """The share of the true neighbours that were found."""
    shared = sum(len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True))
    return shared / truth.size
