"""The steps of one run on one device, without a word to the host in between.

A whole epoch's draws lie on the device as tables; a step takes its row, counts on, and sums its
loss there. On a CUDA device such a step is captured once as a CUDA graph and then replayed: the
hundreds of kernel launches of a small network cost the host more than the device.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hypersphere.data.transforms import Crops, crop_and_flip, draw_crops
from hypersphere.training.images import SmallImages, augmentation_draws, batches_of_epoch
from hypersphere.training.learner import Learner
from hypersphere.training.resume import Say

Ready = Callable[[], bool]  # whether it is worth going on yet

AHEAD = 32  # steps queued on the device before another run gets its turn
WARM = 3  # steps of a batch size before it is captured: libraries set up what cannot be captured
WORTH = 8  # steps of a batch size in an epoch, below which capturing it saves nothing


@dataclass
class Tables:
    """All draws of one batch size in one epoch, a row per step: positions of the images (n, b) and
    what `Crops` holds, each (n, b) or None."""

    chosen: Tensor
    rows: Tensor | None
    columns: Tensor | None
    mirrored: Tensor | None

    def tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if value is not None}


def tables_of(images: SmallImages, epoch: int) -> tuple[list[int], dict[int, Tables]]:
    """The batch sizes of an epoch in order, and its draws by batch size: those that Lightning's
    loop would make (images.EpochBatches)."""
    training, augmentation = images.training, images.training.data.augmentation
    batches = batches_of_epoch(training, images.train[1], epoch)
    generator = augmentation_draws(training, epoch)
    crops: dict[int, list[Crops]] = {}
    for batch in batches:
        drawn = Crops(None, None, None)
        if augmentation is not None:
            drawn = draw_crops(len(batch), augmentation.crop_padding, augmentation.flip, generator)
        crops.setdefault(len(batch), []).append(drawn)

    def table(size: int) -> Tables:
        chosen = torch.from_numpy(np.stack([batch for batch in batches if len(batch) == size]))
        parts = [
            None if getattr(crops[size][0], name) is None
            else torch.stack([getattr(each, name) for each in crops[size]])
            for name in ("rows", "columns", "mirrored")
        ]  # fmt: skip
        return Tables(chosen.long(), *parts)

    return [len(batch) for batch in batches], {size: table(size) for size in crops}


class Steps:
    """Takes the steps of a run's epochs; `learner` and the images lie on `device` already.

    On a CUDA device each batch size that occurs often is captured. A step that cannot be captured
    is launched kernel by kernel instead, with the same numbers; `say` is told once.
    """

    def __init__(
        self,
        learner: Learner,
        optimizer: torch.optim.Optimizer,
        images: SmallImages,
        device: torch.device,
        say: Say,
    ) -> None:
        self.learner, self.optimizer, self.images = learner, optimizer, images
        self.device, self.say = device, say
        self.capturing = device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if self.capturing else None
        if self.stream is not None:
            graphs_can_step(optimizer, device)
            # Else some gradients of convolutions are summed in the order in which threads arrive,
            # and a run's numbers would depend on what else the device has to do.
            torch.backends.cudnn.deterministic = True
        self.tables: dict[int, Tables] = {}
        self.row: dict[int, Tensor] = {}
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.taken: Counter[int] = Counter()
        self.loss_sum = torch.zeros((), device=device)
        if self.stream is not None:  # all that was laid out so far must lie there
            self.stream.wait_stream(torch.cuda.current_stream(device))

    def on_stream(self) -> AbstractContextManager[object]:
        """Work inside is queued behind this run's own; never yield inside."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def queued(self) -> Ready:
        """Tells when everything queued so far is done."""
        if self.stream is None:
            return lambda: True
        return self.stream.record_event().query

    def epoch(self, epoch: int) -> Iterator[Ready]:
        """Take all steps of an epoch (0, 1, ...), at most AHEAD of them ahead of the device. The
        sum of their losses is the learner's."""
        sizes, tables = tables_of(self.images, epoch)
        with self.on_stream():
            self.loss_sum.zero_()
            for size, table in tables.items():
                self._load(size, table)
        often = Counter(sizes)
        before = self.queued()
        for number, size in enumerate(sizes, 1):
            with self.on_stream():
                self._step(size, worth=often[size] >= WORTH)
            if number % (AHEAD // 2) == 0:
                # The half before this one must be done before the next is queued.
                yield before
                before = self.queued()
        self.learner.loss_sum, self.learner.batches = self.loss_sum, len(sizes)

    def _load(self, size: int, table: Tables) -> None:
        """Copy an epoch's draws to where the captured step reads them."""
        kept = self.tables.get(size)
        if kept is None or len(kept.chosen) < len(table.chosen):
            self.graphs.pop(size, None)  # it reads from where the shorter table lies
            self.tables[size] = Tables(
                *(None if v is None else v.to(self.device) for v in vars(table).values())
            )
            self.row[size] = torch.zeros(1, dtype=torch.long, device=self.device)
            return
        for name, values in table.tensors().items():
            if self.capturing:
                values = values.pin_memory()
            kept.tensors()[name][: len(values)].copy_(values, non_blocking=True)
        self.row[size].zero_()

    def _step(self, size: int, *, worth: bool) -> None:
        self.taken[size] += 1
        if self.capturing and worth and size not in self.graphs and self.taken[size] > WARM:
            self._capture(size)
        if size in self.graphs:
            self.graphs[size].replay()
        elif self.capturing:
            self._take_in_place(size)
        else:
            self._take(size)

    def _take(self, size: int) -> None:
        """One step, with nothing in it that depends on the host."""
        table, row = self.tables[size], self.row[size]
        drawn = {name: v.index_select(0, row)[0] for name, v in table.tensors().items()}
        chosen = drawn.pop("chosen")
        images, augmentation = self.images.train[0], self.images.training.data.augmentation
        if augmentation is None:
            batch = images.permute(0, 2, 3, 1).index_select(0, chosen).permute(0, 3, 1, 2)
        else:
            crops = Crops(drawn.get("rows"), drawn.get("columns"), drawn.get("mirrored"))
            batch = crop_and_flip(images, chosen, augmentation.crop_padding, crops)
        values = self.images.train_values()
        numbers = [self.images.train[1], *([] if values is None else [values])]
        rest = (n.index_select(0, chosen) for n in numbers)
        self.loss_sum += self.learner.step(self.optimizer, batch, *rest)
        row += 1

    def _take_in_place(self, size: int) -> None:
        """One step that leaves every buffer where it lies: captured steps read and write there,
        whatever is launched between them."""
        network = self.learner.network
        buffers = dict(network.named_buffers())
        try:
            self._take(size)
        finally:
            renewed = put_back(network, buffers)
        for name, new in renewed.items():
            buffers[name].copy_(new)

    def _capture(self, size: int) -> None:
        graph = torch.cuda.CUDAGraph()
        gc.disable()  # freeing another run's graph meanwhile would spoil this one
        graph.capture_begin()
        try:
            self._take_in_place(size)
        except torch.OutOfMemoryError:  # the pack goes on with fewer
            raise
        except Exception as error:  # each operation refuses in words of its own
            self.capturing = False
            why = str(error).strip().splitlines()[0]
            self.say(f"run {self.learner.training.id}: its steps cannot be captured ({why}); they"
                     " are launched one kernel at a time")  # fmt: skip
        finally:
            try:
                graph.capture_end()
            except RuntimeError:  # the capture ended with its error
                self.capturing = False
            gc.enable()
        if self.capturing:
            self.graphs[size] = graph


def put_back(network: nn.Module, buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a network its `buffers` back where a step put new tensors in their places (running
    class means), which are returned by name. A captured step reads from where the old ones lie, so
    that it must copy the new ones there itself."""
    replaced = {k: new for k, new in network.named_buffers() if new is not buffers[k]}
    for name in replaced:
        place, _, own = name.rpartition(".")
        setattr(network.get_submodule(place), own, buffers[name])
    return replaced


def graphs_can_step(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Make an optimiser keep on `device` all that changes between steps (again after its state was
    loaded): the learning rate, which its schedule then fills in place, and counts of steps."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), device=device)
        if "capturable" in group:
            group["capturable"] = True
        if "fused" in group:  # the kernel that takes the learning rate as a tensor
            group["fused"], group["foreach"] = True, False
    for state in optimizer.state.values():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].to(device)
