"""What a run was asked to do, besides the sweep's name: kept in the sweep's journal, so that nothing need be typed again. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.planning.options import TrainingOptions
from service.storage.commands import command
from service.terminal.redaction import redact, redact_webhook


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """`overrides` are the `--set` values. `retry_failed`: failed trials are tried again. `fresh`: what other sweeps have done is
    trained again. `new_data`: what was trained on another version of a dataset is trained again on the one that is here. `same_code`:
    trials of other code are not continued. `study_storage`: the address of a database for an adaptive sweep's studies, in place of a file.
    `notify`: the address of a webhook that is told what becomes of the run.

    `resumed`: the trials are all that the sweep has ever planned, not those of its file.
    """

    overrides: tuple[str, ...] = ()
    options: TrainingOptions = field(default_factory=TrainingOptions)
    retry_failed: bool = False
    fresh: bool = False
    study_storage: str | None = None
    resumed: bool = False
    new_data: bool = False
    same_code: bool = False
    notify: str | None = None

    @property
    def retries(self) -> bool:
        return self.retry_failed or self.resumed

    def words(self) -> list[str]:
        """What is typed after the sweep's name to ask for the same again; a password is hidden."""
        words = self.options.words()
        if not self.resumed:
            words = [f"--set={setting}" for setting in self.overrides] + words
            words += ["--retry-failed"] * self.retry_failed + ["--fresh"] * self.fresh
        words += ["--new-data"] * self.new_data + ["--same-code"] * self.same_code
        words += [f"--notify={redact_webhook(self.notify)}"] if self.notify else []
        return words + ([f"--study-storage={redact(self.study_storage, {})}"] if self.study_storage else [])

    def command(self, name: str, storage: Path) -> str:
        """The command that continues this run of sweep `name`, ready to be pasted into a shell."""
        return command("resume" if self.resumed else "run", name, *self.words(), storage=storage)

    def to_json(self) -> dict[str, Any]:
        """For the journal; holds no password."""
        return {
            "overrides": list(self.overrides), "options": self.options.to_json(), "retry_failed": self.retry_failed, "fresh": self.fresh,
            "study_storage": redact(self.study_storage, {}) if self.study_storage else None, "resumed": self.resumed,
            "new_data": self.new_data, "same_code": self.same_code, "notify": redact_webhook(self.notify) if self.notify else None,
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RunSettings:
        """Also of a journal that older code wrote, which holds none: then the defaults."""
        return cls(
            overrides=tuple(value.get("overrides", ())),
            options=TrainingOptions.from_json(value.get("options", {})),
            retry_failed=bool(value.get("retry_failed")),
            fresh=bool(value.get("fresh")),
            study_storage=value.get("study_storage"),
            resumed=bool(value.get("resumed")),
            new_data=bool(value.get("new_data")),
            same_code=bool(value.get("same_code")),
            notify=value.get("notify"),
        )
