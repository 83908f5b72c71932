"""Python imports this at its start where this folder is on PYTHONPATH: so a fault reaches the driver and all of Ray's workers.

$FAULTS names the faults, e.g. `die_at=12 no_checkpoint_hash`; they are the functions of `switches.py`.
"""

import os

if os.environ.get("FAULTS"):
    import switches

    try:
        switches.install(os.environ["FAULTS"].split())
    except BaseException:  # Python would only say so and go on, without any fault
        import traceback

        traceback.print_exc()
        os._exit(70)
