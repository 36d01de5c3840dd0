"""What a model is conditioned on, and the contract of whatever makes it: ``Condition`` and ``Encoder``.

Legend: B examples, D length of the condition vector h, S channels of the condition map s, H x W the image.
How a condition enters a layer (equations 4 and 5 of van den Oord et al. 2016) is in ``cores/conditioning.py``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from condgen.errors import CondgenError, InputError, ModelError, RecipeError, lacks_memory, shown


@dataclass(frozen=True)
class Condition:
    """h of p(x | h): a vector (B, D), a map (B, S, H, W), both, or neither (unconditional).

    Floating point, on the images' device; the core casts it to its own dtype. A condition of batch 1 stands for
    every image of a batch.
    """

    vector: Tensor | None = None
    map: Tensor | None = None

    def __post_init__(self) -> None:
        if self.vector is not None and self.vector.dim() != 2:
            raise ModelError(f"A condition's vector is (B, D), not {tuple(self.vector.shape)}.")
        if self.map is not None and self.map.dim() != 4:
            raise ModelError(f"A condition's map is (B, S, H, W), not {tuple(self.map.shape)}.")
        if self.vector is not None and self.map is not None and len(self.vector) != len(self.map):
            raise ModelError(
                f"A condition's vector and map have one batch size, not {len(self.vector)} and {len(self.map)}."
            )

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The tensors that are present."""
        return tuple(part for part in (self.vector, self.map) if part is not None)

    def __len__(self) -> int:
        """The batch size B; 1 for the empty condition, which stands for every image."""
        return len(self.parts[0]) if self.parts else 1

    def _each(self, function: Any) -> Condition:
        return Condition(*(None if part is None else function(part) for part in (self.vector, self.map)))

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Condition:
        """The conditions at ``index``, still a batch. The empty condition is its own every part."""
        if isinstance(index, int):
            index = slice(index, index + 1 or None)
        return self._each(lambda part: part[index])

    def to(self, *args: Any, **kwargs: Any) -> Condition:
        """As ``Tensor.to``: device, dtype or both."""
        return self._each(lambda part: part.to(*args, **kwargs))

    def detach(self) -> Condition:
        return self._each(lambda part: part.detach())

    def repeat(self, count: int) -> Condition:
        """Each condition ``count`` times in a row: B * count, grouped by condition."""
        return self._each(lambda part: part.repeat_interleave(count, dim=0))

    def without(self, dropped: Tensor) -> Condition:
        """Zeros of vector and map where ``dropped``, bool (B,), is true: what stands for no condition."""
        return self._each(lambda part: part.masked_fill(dropped.view(-1, *[1] * (part.dim() - 1)), 0))

    def expand(self, batch: int) -> Condition:
        """A condition of batch 1 for ``batch`` images; one of ``batch`` as it is.

        Raises:
            ModelError: the condition has another batch size than 1 or ``batch``.
        """
        if not self.parts or len(self) == batch:
            return self
        if len(self) != 1:
            raise ModelError(f"A condition of batch {len(self)} does not fit {batch} images; give 1 or {batch}.")
        return self._each(lambda part: part.expand(batch, *part.shape[1:]))

    @staticmethod
    def stack(conditions: Sequence[Condition]) -> Condition:
        """One batch out of several, in order. All have the same parts."""

        def joined(parts: list[Tensor | None]) -> Tensor | None:
            present = [part for part in parts if part is not None]
            if present and len(present) != len(parts):
                raise ModelError("Conditions with and without a part (vector or map) do not make one batch.")
            return torch.cat(present) if present else None

        return Condition(joined([c.vector for c in conditions]), joined([c.map for c in conditions]))

    def interpolate(self, other: Condition, steps: int, curve: str = "lerp") -> Condition:
        """``steps`` conditions from this one to ``other`` (both of batch 1); the ends are the very tensors given.

        ``curve``: ``lerp`` (the paper's, section 3.3) or ``slerp``, along the great circle, for unit-length vectors;
        maps always go linearly.
        """
        if curve not in ("lerp", "slerp"):
            raise RecipeError(f"The curve of an interpolation is lerp or slerp, not {curve!r}.")

        def between(a: Tensor, b: Tensor, t: float) -> Tensor:
            if curve == "slerp" and a.dim() == 2:
                cosine = nn.functional.cosine_similarity(a, b).clamp(-1, 1).item()
                angle = math.acos(cosine)
                if math.sin(angle) > 1e-6:
                    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)
            return torch.lerp(a, b, t)

        def path(a: Tensor | None, b: Tensor | None) -> Tensor | None:
            if a is None or b is None:
                return None
            inner = [between(a, b, i / (steps - 1)) for i in range(1, steps - 1)]
            return torch.cat([a, *inner, b])

        if steps < 2:
            raise RecipeError(f"An interpolation has at least 2 steps, not {steps}.")
        return Condition(path(self.vector, other.vector), path(self.map, other.map))


@dataclass(frozen=True)
class DataInfo:
    """What an encoder and a model may know of a data set without opening it; kept with the model.

    ``classes`` names the values of the batch's ``label``; ``attributes`` the columns of its ``attributes``;
    ``columns`` the width of each extra column.
    """

    channels: int
    height: int
    width: int
    bit_depth: int = 8
    classes: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    columns: Mapping[str, int] = field(default_factory=dict)

    @property
    def dimensions(self) -> int:
        """Sub-pixels of an image, C * H * W."""
        return self.channels * self.height * self.width


Batch = Mapping[str, Tensor]
"""What a data set gives: ``image`` uint8 (B, C, H, W) on 0 .. 2^bit_depth - 1; where the set has them ``label`` int64
(B,), ``attributes`` int8 (B, A) of 0 and 1, extra columns float32 (B, D) by name; ``index`` int64 (B,). In training
also ``key`` int64 (B,): the example's own stream (``condgen.streams``) for whatever an encoder randomises.

With ``data.pairs`` also ``source`` int64 (B,), the example whose condition is wanted, and what is known of that one
as ``source.image``, ``source.label``, ...: an encoder is given those under their plain names. Of a frozen encoder the
condition itself may be there, as ``h.vector`` and ``h.map``."""

KEPT = {"vector": "h.vector", "map": "h.map"}
"""Under which keys of a batch the parts of a condition lie that a frozen encoder has made before."""
SOURCE = "source."
"""What the keys begin with that describe the example's source, not the example."""


class Options(BaseModel):
    """Base of an encoder's recipe fields: subclass it, give every field a type, a default and a description."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Encoder(nn.Module, ABC):
    """The plug-in contract: turns a batch of anything into a ``Condition``.

    A subclass declares ``reads``, sets ``vector_size`` and/or ``map_channels``, and writes ``encode``. Its trainable
    parameters, if any, receive the gradients of the core's loss. Register it under the entry-point group
    ``condgen.encoders``, or call ``condgen.register_encoder`` in a program of your own.
    """

    Options: ClassVar[type[Options]] = Options
    """The fields of the recipe's section ``encoder`` beside ``type``."""
    reads: tuple[str, ...] = ()
    """The keys of a batch that ``encode`` uses; a batch without them is refused before training."""
    words: tuple[str, ...] = ()
    """The command-line words that ``parse`` understands, e.g. ``("label",)`` for ``--label``."""
    vector_size: int = 0
    """D, or 0 for no vector."""
    map_channels: int = 0
    """S, or 0 for no map."""
    frozen: bool = False
    """Whether models use the encoder as it is: a class attribute, or a property of the options, read when a model is
    built. Such an encoder has no gradients, stays in evaluation mode and out of autocast, and sees images without
    augmentation, each of a data set once: what it yields is kept on disk and looked up by later epochs, evaluations
    and processes. Its weights lie once in a run, not in every checkpoint."""
    task: str = ""
    """The command that is made for such conditions, if there is one: ``upscale``, ``colorize`` or ``complete``. Its
    encoder has the word ``image`` and shows with ``view`` what the condition has of a picture."""
    version: int = 1
    """Raise it when the same options and weights come to mean other conditions: models of another version are then
    refused, and conditions on disk made anew."""

    def __init__(self, options: Any, info: DataInfo) -> None:
        super().__init__()
        self.options = options
        self.info = info
        self._finite_seen = False
        self._fixed = False

    @property
    def fixed(self) -> bool:
        """Whether ``freeze`` was called."""
        return self._fixed

    def freeze(self) -> None:
        """From now on the weights stay as they are; see ``frozen``. Whoever builds a model calls it."""
        self._fixed = True
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """As ``nn.Module.train``; evaluation mode is all that a frozen encoder knows."""
        return super().train(mode and not self._fixed)

    def load_pretrained(self) -> None:
        """Takes weights that were learned elsewhere: from a file, another run, a package. Nothing by default.

        Called once, when a training begins. A saved model brings its own weights and loads where that file is gone.
        """

    @abstractmethod
    def encode(self, batch: Batch) -> Condition:
        """The condition of each example: vector (B, D) and map (B, S, H, W) as declared, floating point.

        The result for an example must not depend on its batch mates.
        """

    def parse(self, word: str, value: str) -> dict[str, Tensor]:
        """What a command-line word means as a batch of one, e.g. ``("label", "sneaker")`` -> ``{"label": [7]}``."""
        known = ", ".join(f"--{name}" for name in self.words) or "none"
        raise RecipeError(f"The encoder {type(self).__name__} has no word {word!r} (known: {known}).", field=word)

    def view(self, batch: Batch) -> Tensor | None:
        """What the condition shows of ``batch["image"]``, as pictures of that shape, uint8 (B, C, H, W), for sheets;
        None where there is nothing to show."""
        return None

    def known(self, batch: Batch) -> Tensor | None:
        """Which pixels of ``batch["image"]`` the condition gives away, bool (B, H, W); None: none.

        Those are certain: training, evaluation and the bits count the others alone, and sampling keeps them. Whoever
        wants other ones puts them into the batch as ``known``.
        """
        return None

    def varied(self, images: Tensor, condition: Condition, keys: Tensor) -> tuple[Tensor, Condition]:
        """In training by likelihood: images and their condition as they might have been as well, e.g. with noise on
        what an encoder is not sure of. As they are by default.

        What a frozen encoder has made once comes through here in every epoch.

        Args:
            images: integers (B, C, H, W), whose likelihood is raised.
            condition: what ``encode`` made; with ``data.pairs`` of their sources.
            keys: the examples' own streams, int64 (B,): the only source of chance (``condgen.streams``).
        """
        return images, condition

    def examples(self) -> list[tuple[str, str]]:
        """Pairs (word, value) that show the range of conditions, for sheets and grids; [] where images do that."""
        return []

    def forward(self, batch: Batch) -> Condition:
        """``encode`` with its result held against what the encoder declares.

        A frozen encoder's condition is taken from the batch where it is there already (``KEPT``).

        Raises:
            ModelError: a key is missing from the batch, ``encode`` fails, or a part has another shape, device or dtype
                than declared, or holds NaN; the sentence names the encoder.
            InputError: that is because the images are not of the shape that the encoder was made for.
        """
        name, size = type(self).__name__, next((len(value) for value in batch.values()), 1)
        if self._fixed and any(key in batch for key in KEPT.values()):
            condition: Any = Condition(*(batch.get(key) for key in KEPT.values()))
        else:
            condition = self._encoded(_of_source(batch), name)
        if not isinstance(condition, Condition):
            raise ModelError(f"The encoder {name} returned {type(condition).__name__}, not a Condition.")
        info = self.info
        expected = {
            "vector": (self.vector_size, (size, self.vector_size)),
            "map": (self.map_channels, (size, self.map_channels, info.height, info.width)),
        }
        for part, (width, shape) in expected.items():
            value: Tensor | None = getattr(condition, part)
            if value is None and not width:
                continue
            if value is None or tuple(value.shape) != shape:
                self._check_images(batch)
                found = "nothing" if value is None else str(tuple(value.shape))
                declared = str(shape) if width else "no " + part
                raise ModelError(f"The encoder {name} declares a {part} {declared} but returned {found}.")
            if not value.is_floating_point():
                raise ModelError(f"The encoder {name} returned a {part} of {value.dtype}; it must be floating point.")
            device = next((given.device for given in batch.values()), value.device)
            if value.device != device:
                raise ModelError(
                    f"The encoder {name} returned a {part} on {value.device}; its batch is on {device}, and what it "
                    "makes belongs there (register tensors as buffers, which move with the model)."
                )
            # once: later NaN shows in the loss, and the question would make a GPU wait in every step
            if not self._finite_seen and not bool(torch.isfinite(value).all()):
                raise ModelError(f"The encoder {name} returned a {part} with NaN or infinity.")
        self._finite_seen = True
        return condition

    def _check_images(self, batch: Batch) -> None:
        """Of an encoder that could not use a batch: whether its images are those that the encoder was made for.

        Raises:
            InputError: they have another size or other channels.
        """
        info, image = self.info, batch.get("image")
        shape = (info.channels, info.height, info.width)
        if image is None or "image" not in self.reads or tuple(image.shape[1:]) == shape:
            return
        raise InputError(
            f"The images are {tuple(image.shape[1:])} (channels, height, width), but the encoder {type(self).__name__} "
            f"was made for {shape}; give such, and leave data.image_size and data.channels as the model has them.",
            field="data.image_size",
        ) from None

    def _encoded(self, batch: Batch, name: str) -> Any:
        """What ``encode`` gives; of a frozen encoder without gradients and in full precision."""
        missing = [key for key in self.reads if key not in batch]
        if missing:
            raise ModelError(
                f"The encoder {name} reads {missing[0]!r}, which this data does not have.", field=missing[0]
            )
        try:
            if not self._fixed:
                return self.encode(batch)
            device = next((value.device.type for value in batch.values()), "cpu")
            with torch.no_grad(), torch.autocast(device, enabled=False):
                return self.encode(batch)
        except CondgenError:
            raise
        except Exception as error:  # a stranger's encoder may raise anything
            if lacks_memory(error):
                raise
            self._check_images(batch)
            reason = shown(" ".join(f"{type(error).__name__}: {error}".split())[:300])
            raise ModelError(
                f"The encoder {name} failed ({reason}); mend it or choose another encoder.type.", field="encoder.type"
            ) from error


def _of_source(batch: Batch) -> Batch:
    """What an encoder is given: the source's part of the batch where the examples have one, and their own keys."""
    found = {key.removeprefix(SOURCE): value for key, value in batch.items() if key.startswith(SOURCE)}
    if not found:
        return batch
    return {**found, "key": batch["key"]} if "key" in batch else found
