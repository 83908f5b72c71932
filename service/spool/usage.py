"""What this process takes of its host, as MLflow's page shows it under System metrics; two or three numbers, and no package for them."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

MEMORY, CPU, GPU = "system/process_memory_megabytes", "system/process_cpu_percentage", "system/gpu_memory_megabytes"
STATM = Path("/proc/self/statm")


class Usage:
    """Measures between its calls: the first speaks of the time since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def __call__(self) -> dict[str, float]:
        """Resident memory in megabytes; the share of one core that all threads took, in percent; what torch holds of a GPU, if it does."""
        wall, cpu = time.monotonic(), time.process_time()
        share = 100 * (cpu - self._cpu) / max(wall - self._wall, 1e-6)
        self._wall, self._cpu = wall, cpu
        found = {CPU: round(share, 1)}
        if STATM.exists():  # Linux
            found[MEMORY] = round(int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)
        torch = sys.modules.get("torch")  # who trains has it; who only writes spools needs not wait for it
        if torch is not None and torch.cuda.is_initialized():
            found[GPU] = round(torch.cuda.memory_reserved() / 1e6, 1)
        return found
