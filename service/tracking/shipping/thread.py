"""The shipper of a run, in the background. If MLflow is down it retries later; training is not affected."""

from __future__ import annotations

import contextlib
import threading

from service.terminal.signals import blocked
from service.tracking.connection import DeletedError, redacted
from service.tracking.shipping.shipper import Shipper
from trainables.errors import UserError

PERIOD = 2.0  # seconds between two passes
LONGEST_WAIT = 60.0  # seconds between two passes while MLflow is down


class ShipperThread:
    """Calls the shipper every few seconds in the background."""

    def __init__(self, shipper: Shipper) -> None:
        self._shipper, self._stop = shipper, threading.Event()
        self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)
        self._asked, self._refusal = threading.Event(), ""
        self._wanted = threading.Event()  # passes: they would slow the start of Ray, and have nothing new to ship until then
        self.trouble, self._unfinished = "", False

    def check(self, patience: float) -> None:
        """Ship from now on. Raise UserError if MLflow would never take anything from here; without an answer in so many seconds it may
        yet."""
        self.start()
        self._asked.wait(patience)
        self._wanted.set()
        if self._refusal:
            raise UserError(self._refusal)

    @property
    def left_alone(self) -> list[str]:
        return self._shipper.left_alone()

    def start(self) -> None:
        """Ask MLflow, if not started. Not done at construction, since importing MLflow would slow the driver's own start by seconds."""
        if not self.begun:
            with blocked():  # signals go to the main thread, and to nobody while Ray starts
                self._thread.start()

    @property
    def begun(self) -> bool:
        return self._thread.ident is not None

    def finish(self, patience: float, *, while_it_gets_on: bool = False, unfinished: bool = False) -> bool:
        """Ship the rest; False, with the reason in `trouble`, if that takes longer than `patience` seconds. `while_it_gets_on` restarts
        that time as long as there is progress. `unfinished`: first of all say on the sweep's run that nobody trains it now."""
        self._unfinished = unfinished
        self._stop.set()
        self._wanted.set()
        self.start()
        self._thread.join(patience)
        before = -1
        while while_it_gets_on and self._thread.is_alive() and self._shipper.stored != before:
            before = self._shipper.stored
            self._thread.join(patience)
        if self._thread.is_alive():
            self.trouble = self.trouble or "MLflow does not answer"
            return False
        return not self.trouble

    def _run(self) -> None:
        try:
            self._shipper.ask()
        except Exception as error:
            self._refusal = str(error) if isinstance(error, UserError) else redacted(error)
        self._asked.set()
        self._wanted.wait()
        wait = PERIOD
        while not self._stop.wait(wait):
            wait = PERIOD if self._pass() else min(LONGEST_WAIT, 2 * wait)
        if self._unfinished:
            with contextlib.suppress(Exception):  # there is hardly time for that, and none to say what is wrong
                self._shipper.close()
        self._pass()

    def _pass(self) -> bool:
        try:
            self._shipper.ship()
        except DeletedError as error:
            self.trouble = self._shipper.remedy(str(error))
            return False
        except Exception as error:
            self.trouble = redacted(error)
            return False
        self.trouble = ""
        return True
