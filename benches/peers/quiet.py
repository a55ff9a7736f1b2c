"""Whether other programs were busy: what is measured meanwhile is measured again."""

import os
import time
from pathlib import Path

# Of all processors: what others may take of them while something is measured.
OTHERS_MOST = 0.04
TICKS = os.sysconf("SC_CLK_TCK")


def busy_seconds():
    """CPU time of everything so far, and what a host took away; None where there is no /proc."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / TICKS


class Quiet:
    """Waits for a quiet machine, in all for no longer than its patience."""

    def __init__(self, patience_s):
        self.patience_s = patience_s
        self.disturbed = 0

    def _others(self, own, work):
        """What `work` returns, and the share that others took; `own` says what part of its result is its CPU time."""
        before, started = busy_seconds(), time.perf_counter()
        result = work()
        seconds, after = time.perf_counter() - started, busy_seconds()
        if before is None or own(result) is None:
            return result, 0.0
        return result, max(0.0, after - before - own(result)) / seconds / os.cpu_count()

    def wait(self):
        while self.patience_s > 0:
            _, others = self._others(lambda _: 0.0, lambda: time.sleep(0.5))
            if others <= OTHERS_MOST:
                return
            self.patience_s -= 0.5

    def measure(self, own, work):
        """What `work` returns when nothing else was busy. Out of patience, what it returns, and it is counted."""
        while True:
            self.wait()
            started = time.perf_counter()
            result, others = self._others(own, work)
            if others <= OTHERS_MOST:
                return result
            self.patience_s -= time.perf_counter() - started
            if self.patience_s <= 0:
                self.disturbed += 1
                return result
