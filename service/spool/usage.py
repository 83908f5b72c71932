"""Memory and processor use of this process, which MLflow shows as system metrics; measured without another package."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

MEMORY, CPU, GPU = "system/process_memory_megabytes", "system/process_cpu_percentage", "system/gpu_memory_megabytes"
STATM = Path("/proc/self/statm")


class Usage:
    """Each call measures the time since the last one, or since construction."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def __call__(self) -> dict[str, float]:
        """Resident memory in MB, CPU time of all threads in percent of one core, and GPU memory reserved by torch, if it uses a GPU."""
        wall, cpu = time.monotonic(), time.process_time()
        share = 100 * (cpu - self._cpu) / max(wall - self._wall, 1e-6)
        self._wall, self._cpu = wall, cpu
        usage = {CPU: round(share, 1)}
        if STATM.exists():  # Linux
            usage[MEMORY] = round(int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)
        torch = sys.modules.get("torch")  # loaded in trainers; not imported here, as it takes seconds
        if torch is not None and torch.cuda.is_initialized():
            usage[GPU] = round(torch.cuda.memory_reserved() / 1e6, 1)
        return usage
