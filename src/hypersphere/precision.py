"""The precision of a run: float32, or bfloat16 autocast, on processors without bfloat16 too."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def autocast(device: str, precision: str) -> contextlib.AbstractContextManager[object]:
    """What a network is run under. device: "cpu" or "cuda"; precision: "fp32" or "bf16".

    On a CPU without bfloat16 instructions torch's own convolutions in bfloat16 take many times as
    long as in float32 (a line of `make bench` says how many): there `Rounded` takes their place.
    """
    cast = torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")
    if precision != "bf16" or device != "cpu" or has_bfloat16():
        return cast
    return _both(cast, Rounded())


@contextlib.contextmanager
def _both(cast: torch.autocast, rounded: Rounded) -> Iterator[None]:
    with cast, rounded:
        yield


@functools.cache
def has_bfloat16() -> bool:
    """Whether torch has fast bfloat16 kernels for this CPU: oneDNN's, from AVX-512 on."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


class Rounded(TorchFunctionMode):
    """Under bfloat16 autocast on a CPU: convolutions and fully connected layers by float32 kernels.

    Their inputs, weights and results are rounded to bfloat16 where hardware would round them,
    forwards and backwards, and the sums between are float32's, as in hardware; so values differ
    from hardware's as those of two processors do, by the order of the sums.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in ROUNDED or not torch.is_autocast_enabled("cpu"):
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            values = {name: _round(value) for name, value in kwargs.items()}
            return func(*map(_round, args), **values).bfloat16()


ROUNDED = (F.conv2d, F.linear)


def _round(value: Any) -> Any:
    return value.bfloat16().float() if isinstance(value, Tensor) else value
