"""What every head offers, so that evaluations need not know which loss trained it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import pydantic
import torch
from torch import Tensor, nn
from torch.nn import functional as F

AT_ONCE = 2**24  # logits, or entries of a table of images by classes: 64 or 128 MiB
ROWS = 2**16  # embeddings that are added to their classes' sums at once


def _checked(init: Callable[..., None]) -> Callable[..., None]:
    """A head's constructor that holds parameters given by name to their annotations, as a
    configuration is held to them: who builds heads by hand gets the same errors."""

    @functools.cache
    def adapters() -> dict[str, pydantic.TypeAdapter[Any]]:
        hints = get_type_hints(init, include_extras=True)
        parameters = inspect.signature(init).parameters.values()
        named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name in hints]
        return {name: found for name in named if (found := _adapter(hints[name]))}

    @functools.wraps(init)
    def checked(self: Head, *args: Any, **given: Any) -> None:
        for name, adapter in adapters().items():
            if name not in given:
                continue
            try:
                given[name] = adapter.validate_python(given[name], strict=True)  # 16 becomes 16.0
            except pydantic.ValidationError as error:
                why = error.errors()[-1]["msg"]
                raise ValueError(
                    f"{type(self).__name__}: {name}={given[name]!r}: {why[0].lower()}{why[1:]}"
                ) from None
        init(self, *args, **given)

    return checked


def _adapter(hint: Any) -> pydantic.TypeAdapter[Any] | None:
    """None for what a configuration cannot hold, such as a tensor: that is taken as it is."""
    try:
        return pydantic.TypeAdapter(hint)
    except pydantic.PydanticSchemaGenerationError:
        return None


class Head(nn.Module):
    """A head over `num_classes` classes of embeddings (n, dim).

    It is built as `head(dim, num_classes, ...)`; further parameters go by name, and ValueError is
    raised for one of another type or range than its annotation says.

    Class vectors always have shape (classes, dim) and are parameters or buffers of the head, so
    that optimiser, checkpoint and imprinting see them. Heads that learn by distances alone have
    none: their classes are the means of training embeddings.
    """

    revision = 1
    classifies = False  # whether `logits` gives something
    learns_value = False  # whether `loss` takes a number of each image too (heads/values.py)
    targets: Tensor | None = None  # (classes, dim) fixed points that classes are sent to, if any
    imprinted: Tensor | None  # (classes, dim) float64: sums of unit embeddings, see imprint

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "__init__" in cls.__dict__:
            cls.__init__ = _checked(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.dim, self.num_classes = dim, num_classes
        self.register_buffer("imprinted", None)  # in no state_dict before there is something

    @classmethod
    def without_placing(cls, params: dict[str, Any]) -> dict[str, Any]:
        """Keyword parameters of a head of the same shape whose class vectors will be loaded, so
        that nothing is searched for or read from a file to place them."""
        return params

    def loss(self, embeddings: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """Scalar training loss. embeddings: (n, dim); labels: (n,) in 0 .. num_classes - 1;
        weights: (n,) of the images, of a head that `classifies`."""
        raise NotImplementedError

    def logits(self, embeddings: Tensor) -> Tensor:
        """Logits (n, num_classes) of the trained classes, of a head that `classifies`."""
        raise NotImplementedError

    def classify(self, embeddings: Tensor) -> Tensor:
        """The trained class (n,) of the largest logit of each embedding, of a head that
        `classifies`. Many embeddings of many classes come in parts: no more than AT_ONCE logits are
        there at a time."""
        parts = embeddings.split(self.at_once)
        return torch.cat([self.logits(part).argmax(1) for part in parts])

    @property
    def at_once(self) -> int:
        """Embeddings whose logits fit into AT_ONCE, at least one."""
        return max(AT_ONCE // self.num_classes, 1)

    def scores(self, embeddings: Tensor, class_vectors: Tensor) -> Tensor:
        """How well each embedding (n, dim) fits each class vector (k, dim): (n, k), higher fits
        better. Scores of trained and of inferred vectors are comparable with each other."""
        raise NotImplementedError

    def infer(
        self, embeddings: Tensor, labels: Tensor, classes: Tensor, renormalize: bool
    ) -> Tensor:
        """Class vectors (k, dim) of new `classes` (k,) from labelled embeddings (n, dim), (n,).

        The mean of the unit embeddings of each class: eq. 4 of arXiv 2102.03243, whose mean is
        shorter than 1; with `renormalize` scaled back to the unit length that its eq. 2 demands
        (imprinted weights, Qi et al. 2018).
        """
        means = class_means(F.normalize(embeddings, dim=-1), labels, classes)
        return F.normalize(means, dim=-1) if renormalize else means

    def trained(
        self, embeddings: Tensor, labels: Tensor, classes: Tensor, renormalize: bool
    ) -> Tensor:
        """Class vectors (k, dim) of the `classes` the network was trained on, in that order;
        `embeddings` and `labels` are the training set's."""
        return self.infer(embeddings, labels, classes, renormalize)

    # Imprinting

    @property
    def not_imprintable(self) -> str:
        """Why new classes cannot be imprinted, "" where they can."""
        return "has no class vectors of unit length"

    @torch.no_grad()
    def imprint(self, embeddings: Tensor, labels: Tensor) -> None:
        """Add new classes to the classifier, in place, from a few examples of each (imprinted
        weights, Qi et al. 2018, section 4.2).

        embeddings: (n, dim), of any length; labels: (n,), new classes numbered from `num_classes`
        on. Each gets one unit class vector, the normalised mean of its unit embeddings; those that
        are there keep their directions and become unit vectors where they are learned, and a scale
        is kept. Labels of classes imprinted before add further examples: the vector is then that of
        all examples at once, whatever became of it in the meantime. The sums are kept beside the
        class vectors and travel in the `state_dict`, which a head of the former number of classes
        can load. Make optimisers afterwards: they do not know the grown parameters.

        Raises ValueError for a head without unit class vectors, examples of trained classes, a gap
        in the numbers of the new classes, and embeddings of another shape, not finite, all 0, or
        of a class whose examples cancel; the head is then as it was.
        """
        if why := self.not_imprintable:
            raise ValueError(f"{type(self).__name__} cannot be imprinted: it {why}")
        # Out of inference mode: parameters that grow in it could never be trained.
        with torch.inference_mode(False), torch.no_grad():
            self._imprint(*(torch.as_tensor(each).clone() for each in (embeddings, labels)))

    def _imprint(self, embeddings: Tensor, labels: Tensor) -> None:
        vectors = self.class_vectors
        if embeddings.shape != (len(labels), self.dim) or labels.ndim != 1 or not len(labels):
            raise ValueError(
                f"imprinting needs embeddings (n, {self.dim}) and labels (n,), got"
                f" {tuple(embeddings.shape)} and {tuple(labels.shape)}"
            )
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise ValueError(f"imprinting needs labels that are integers, got {labels.dtype}")
        z, labels = embeddings.to(vectors), labels.to(vectors.device, torch.long)
        wrong = ~torch.isfinite(z).all(1) | ~z.any(1)
        if bool(wrong.any()):
            raise ValueError(f"embedding {int(wrong.nonzero()[0])} has no direction")
        known = self.num_classes - (0 if self.imprinted is None else len(self.imprinted))
        classes = labels.unique()
        if int(classes[0]) < known:
            raise ValueError(
                f"class {int(classes[0])} was trained: new classes are numbered from {known} on"
            )
        new = classes[classes >= self.num_classes]
        expected = torch.arange(self.num_classes, self.num_classes + len(new)).to(new)
        if not torch.equal(new, expected):
            first = int(expected[(new != expected).nonzero()[0]])
            raise ValueError(f"no example of class {first}: new classes are numbered without a gap")
        # All is worked out before anything grows. In float64, whatever the head was cast to since.
        sums = torch.zeros(len(new), self.dim, dtype=torch.double, device=z.device)
        if self.imprinted is not None:
            sums = torch.cat([self.imprinted.double(), sums])
        sums.index_add_(0, labels - known, F.normalize(z.double(), dim=-1))
        cancelled = classes[~sums[classes - known].any(1)]
        if len(cancelled):
            raise ValueError(f"the examples of class {int(cancelled[0])} cancel: no direction")
        self._add_classes(len(new))
        self.imprinted = sums
        self.class_vectors[classes] = F.normalize(sums[classes - known], dim=-1).to(z)

    def _add_classes(self, number: int) -> None:
        """Make room for `number` more imprinted classes, in every parameter and buffer."""
        vectors = self.class_vectors
        if self.imprinted is None:
            self.imprinted = vectors.new_zeros(0, self.dim).double()
        if number and isinstance(vectors, nn.Parameter):
            # Unit length, as the new ones have: an optimiser's step turns all of them alike.
            # Those that have it are left alone, to the bit.
            length = vectors.data.norm(dim=-1, keepdim=True)
            other = (length - 1).abs() > 1e-6
            vectors.data = torch.where(other, F.normalize(vectors.data, dim=-1), vectors.data)
        self._grow("class_vectors", vectors.new_zeros(number, self.dim))
        self._grow("imprinted", self.imprinted.new_zeros(number, self.dim))
        self.num_classes += number

    def _grow(self, name: str, rows: Tensor) -> None:
        tensor = getattr(self, name)
        tensor.data, tensor.grad = torch.cat([tensor.data, rows]), None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # A checkpoint made after imprinting has more classes than the head was built with.
        sums = state_dict.get(f"{prefix}imprinted")
        if sums is not None and not self.not_imprintable:
            own = 0 if self.imprinted is None else len(self.imprinted)
            if len(sums) >= own:
                with torch.no_grad():
                    self._add_classes(len(sums) - own)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def class_means(embeddings: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
    """Mean embedding (k, dim) of each of `classes` (k,), from embeddings (n, dim), labels (n,).

    Raises ValueError naming the classes that have no example.
    """
    # In float64: a sum of thousands of float32 would depend on how the memory is aligned.
    if len(labels) * len(classes) <= AT_ONCE:
        member = (labels[None] == classes[:, None]).double()
        count = member.sum(1)
        sums = torch.matmul(member, embeddings.double())
    else:  # the product would take time and memory that grow with images times classes
        order = classes.argsort()
        place = torch.searchsorted(classes[order], labels).clamp(max=len(classes) - 1)
        place = order[place]
        some = classes[place] == labels
        count = class_counts(place[some], len(classes)).double()
        sums = count.new_zeros((len(classes), embeddings.shape[1]))
        for part in some.nonzero().flatten().split(ROWS):
            sums.index_add_(0, place[part], embeddings[part].double())
    if not bool((count > 0).all()):
        missing = classes[count == 0].tolist()
        raise ValueError(f"no example of class {missing}: a class vector needs at least one")
    return (sums / count[:, None]).to(embeddings.dtype)


def class_counts(labels: Tensor, num_classes: int) -> Tensor:
    """How many of labels (n,) there are of each class: (num_classes,) int64. Unlike bincount it
    asks nothing of the device, so that a CUDA graph can hold it."""
    return labels.new_zeros(num_classes).index_add_(0, labels, torch.ones_like(labels))
