"""What keeps the removed weights of a parameter at 0, in its copies and pickles, too."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import reduce_tensor
from torch.utils.hooks import unserializable_hook

from trainables.errors import UserError

LOOK_EVERY = 100  # gradients; to look at a GPU's weights waits for it


class Hold:
    """Makes the gradients of a parameter's removed weights 0, and raises UserError once such a weight itself is not 0.

    It looks before every gradient on a CPU, and at every 100th elsewhere. A deep copy or a pickle of the parameter has a hold of its own:
    torch would drop the hook, and the copy's removed weights would grow.
    """

    def __init__(self, where: str, mask: Tensor, parameter: nn.Parameter) -> None:
        """`where` names the weight in messages; `mask` has the parameter's shape. Holds nothing before `hook`."""
        self.where = where
        self.removed = mask == 0
        self._parameter = weakref.ref(parameter)  # which refers to this hold
        self.followers: Sequence[Hold] = ()  # on targets, which have no gradients and are looked at along with this
        self._alive: Tensor | None = None
        self._gradients = 0
        self._cached: tuple[Tensor, Tensor, Tensor] | None = None
        self._handle: Any = None

    @staticmethod
    def of(parameter: nn.Parameter) -> Hold | None:
        """The hold on a parameter."""
        hold = getattr(parameter.__dict__.get("__deepcopy__"), "__self__", None)
        return hold if isinstance(hold, Hold) else None

    @property
    def parameter(self) -> nn.Parameter:
        """What is held."""
        parameter = self._parameter()
        if parameter is None:
            raise self.replaced()
        return parameter

    def replaced(self) -> UserError:
        """The error that a layer has a parameter that nothing holds."""
        return UserError(f"{self.where} has another parameter than the one that is held; call masks.attach(modules)")

    def hook(self) -> None:
        """Begin, or begin again, in place of a hold that there is."""
        parameter = self.parameter
        previous = Hold.of(parameter)
        if previous is not None:
            previous.release()
        trained = parameter.requires_grad
        self._handle = parameter.requires_grad_().register_hook(self._masked)  # refused of a parameter that is frozen for now
        parameter.requires_grad_(trained)
        parameter.__dict__ |= {"__deepcopy__": self._copied, "__reduce_ex__": self._reduced}

    def release(self) -> None:
        """Let the parameter go; its values stay."""
        if self._handle is None:
            return
        self._handle.remove()
        parameter = self._parameter()
        if parameter is not None and Hold.of(parameter) is self:
            del parameter.__dict__["__deepcopy__"], parameter.__dict__["__reduce_ex__"]

    def check(self) -> None:
        """Raise UserError if a removed weight is not 0."""
        if not self._any():
            return
        alive = self.parameter.detach()[self.removed]
        count = int((alive.abs() > 0).sum())
        if count:  # else NaN: training has diverged, which is not a matter of masks
            raise UserError(
                f"{count} of {len(alive)} removed weights of {self.where} are not 0 any more: an optimizer with state from before, "
                "one that mixes weights (Muon), a loaded state or a copy brought them back; call masks.apply(optimizer)"
            )

    def _any(self) -> Tensor:
        """A number or truth that is not 0 if a removed weight is not; also if some weight is no number."""
        parameter = self.parameter.detach()
        self.removed = self.removed.to(parameter.device)
        if parameter.device.type == "cpu":  # a fifth of the time that the other takes there
            return torch.dot(parameter.abs().reshape(-1), self._factors(parameter)[0])
        return torch.logical_and(parameter, self.removed).any()

    def _factors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """1 for removed weights and 0 for others, flat, and the reverse in the weights' shape."""
        if self._cached is None or self._cached[0] is not self.removed or self._cached[1].dtype != like.dtype:
            gone = self.removed.to(like)
            self._cached = self.removed, gone.reshape(-1), 1 - gone
        return self._cached[1:]

    def _look(self) -> None:
        parameter = self.parameter
        if parameter.device.type == "cpu":
            self.check()
        elif not (parameter.is_cuda and torch.cuda.is_current_stream_capturing()):
            self._alive = self._any() if self._alive is None else self._alive | self._any()
            self._gradients += 1
            if self._gradients % LOOK_EVERY == 0 and self._alive:
                self._alive = None
                self.check()

    @unserializable_hook  # type: ignore[untyped-decorator]
    def _masked(self, gradient: Tensor) -> Tensor:
        for hold in (self, *self.followers):
            hold._look()
        self.removed = self.removed.to(gradient.device)
        if gradient.device.type == "cpu":
            masked = gradient * self._factors(gradient)[1]  # a tenth of the time that the other takes there
            if math.isfinite(float(masked.detach().sum())):
                return masked
        return gradient.masked_fill(self.removed, 0)  # an infinite gradient, times 0, would be NaN

    def _copied(self, memo: dict[int, Any]) -> nn.Parameter:
        new: nn.Parameter = type(self.parameter).__deepcopy__(self.parameter, memo)
        if Hold.of(new) is None:  # else it is the one in `memo`
            Hold(self.where, ~self.removed, new).hook()
        return new

    def _reduced(self, protocol: int) -> tuple[Any, ...]:
        return held, (self.parameter.data, self.parameter.requires_grad, self.where, ~self.removed)


def _shared(parameter: nn.Parameter) -> tuple[Any, ...]:
    """As torch sends a parameter to another process, with its hold."""
    rebuild, arguments = reduce_tensor(parameter)
    if (hold := Hold.of(parameter)) is None:
        return rebuild, arguments
    return _held_again, (rebuild, arguments, hold.where, ~hold.removed)


def _held_again(rebuild: Callable[..., nn.Parameter], arguments: tuple[Any, ...], where: str, mask: Tensor) -> nn.Parameter:
    parameter = rebuild(*arguments)
    Hold(where, mask, parameter).hook()
    return parameter


# To other processes parameters go by their type's function, and `__reduce_ex__` is not asked.
ForkingPickler.register(nn.Parameter, _shared)


def held(data: Tensor, requires_grad: bool, where: str, mask: Tensor) -> nn.Parameter:
    """A parameter with a hold, as a pickle has it."""
    parameter = nn.Parameter(data, requires_grad)
    Hold(where, mask, parameter).hook()
    return parameter
