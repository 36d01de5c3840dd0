"""``ConditionalModel``: encoder + core + likelihood, an image density that is evaluated and sampled exactly.

Legend: B images, C colour channels, H x W pixels; x integers 0 .. V-1; h a Condition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from condgen import streams
from condgen.condition import Batch, Condition, DataInfo, Encoder
from condgen.cores.guided import GuidedCore
from condgen.errors import InputError, RecipeError, shown
from condgen.likelihoods import Guided, Likelihood, Temperature, scaled
from condgen.samplers import SAMPLERS, in_tiles, resolved

_DROPPED_CONDITION = -4
"""The stream of an example's key that says whether its condition is dropped."""
_MOST_GUIDANCE = 100


class Encoded(nn.Module):
    """What is trained with an encoder and embeds by it: the base of every model that ``condgen.load`` gives.

    Args:
        encoder: anything -> Condition.
        info: shape of the images and names of their labels.
    """

    recipe: Any
    """What the model was made by; set by ``condgen.load``, as is ``source``, the folder it was read from."""
    source: Any

    def __init__(self, encoder: Encoder, info: DataInfo) -> None:
        super().__init__()
        self.encoder = encoder
        self.info = info

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def condition(self, batch: Batch) -> Condition:
        """The encoder's condition of a batch, its promises checked (see ``Encoder.forward``)."""
        condition: Condition = self.encoder(batch)
        return condition

    @torch.no_grad()
    def encode(self, **words: str | Sequence[str] | Tensor) -> Condition:
        """A condition out of words or tensors: ``encode(label="smile")``, ``encode(label=["smile", "hat"])``,
        ``encode(image=x)`` with a uint8 (B, C, H, W) on the model's grid, or any other key of a batch.

        Raises:
            RecipeError: the encoder does not know the word or its value, the value is no text, or two words say the
                same thing.
        """
        batch: dict[str, Tensor] = {}
        said: dict[str, str] = {}
        for word, value in words.items():
            if isinstance(value, Tensor):
                batch[word] = value
                continue
            entries = [value] if isinstance(value, str) else value
            texts = isinstance(entries, Sequence) and all(isinstance(entry, str) for entry in entries)
            if not texts or not entries:
                raise RecipeError(
                    f"{shown(word)}: expected text, several texts or a tensor, found {shown(value)[:60]}; give one of "
                    "these.",
                    field=word,
                )
            parsed = [self.encoder.parse(word, entry) for entry in entries]
            for key in parsed[0]:
                if key in said:
                    raise RecipeError(f"--{word} and --{said[key]} say the same thing; give one of them.", field=word)
                said[key] = word
                batch[key] = torch.cat([entry[key] for entry in parsed])
        return self.condition({key: value.to(self.device) for key, value in batch.items()})


class ConditionalModel(Encoded):
    """p(x | h), with h made by ``encoder`` out of whatever it reads.

    Args:
        encoder: anything -> Condition.
        core: pixels and condition -> parameters of every pixel, causally.
        likelihood: parameters -> log-probabilities and values.
        info: shape of the images and names of their labels.
        condition_dropout: probability that a training example loses its condition. Above 0 the model is trained
            without condition too, and knows p(x) beside p(x | h).
    """

    def __init__(
        self,
        encoder: Encoder,
        core: nn.Module,
        likelihood: Likelihood,
        info: DataInfo,
        *,
        condition_dropout: float = 0.0,
    ) -> None:
        super().__init__(encoder, info)
        self.core: Any = core
        self.likelihood = likelihood
        self.condition_dropout = condition_dropout

    @property
    def device(self) -> torch.device:
        return next(self.core.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.core.parameters()).dtype

    @property
    def conditional(self) -> bool:
        """Whether there is a condition at all."""
        return bool(self.encoder.vector_size or self.encoder.map_channels)

    def condition(self, batch: Batch) -> Condition:
        """As of every model; in training mode as ``Encoder.varied`` makes it, and some examples lose theirs, with
        probability ``condition_dropout``.

        Which ones, their own streams say: ``batch["key"]``. Zeros of vector and map stand for no condition.
        """
        return self._example(batch)[1]

    def _example(self, batch: Batch) -> tuple[Any, Condition]:
        """The images, integers (B, C, H, W), None where the batch has none, and their condition: in training mode what
        the step learns from."""
        images, condition, keys = batch.get("image"), super().condition(batch), batch.get("key")
        if not self.training or keys is None:
            return images, condition
        if images is not None:
            images, condition = self.encoder.varied(images, condition, keys)
        if self.condition_dropout:
            dropped = streams.example_uniforms(keys, _DROPPED_CONDITION, 1)[:, 0] < self.condition_dropout
            condition = condition.without(dropped)
        return images, condition

    def no_condition(self, batch: int = 1) -> Condition:
        """What stands for no condition, of batch ``batch``: given it, p(x | h) is the model's p(x).

        ``log_prob`` and ``sample`` take it by themselves where h is None.

        Raises:
            RecipeError: the model is conditional and was not trained without its condition.
        """
        if not self.conditional:
            return Condition()
        if not self.condition_dropout:
            raise RecipeError(
                "The model was never trained without its condition; train one with encoder.dropout, e.g. 0.1.",
                field="encoder.dropout",
            )
        info, (D, S) = self.info, (self.encoder.vector_size, self.encoder.map_channels)
        vector = torch.zeros(batch, D, device=self.device, dtype=self.dtype)
        map = torch.zeros(batch, S, info.height, info.width, device=self.device, dtype=self.dtype)
        return Condition(vector if D else None, map if S else None)

    def _given(self, h: Condition | None) -> Condition:
        """``h``, or where there is none what stands for none.

        Raises:
            RecipeError: there is none, and the model was never trained without.
        """
        if h is not None and h.parts:
            return h
        if self.conditional and not self.condition_dropout:
            raise RecipeError("The model is conditional: give it a condition (model.encode makes one).")
        return self.no_condition()

    @torch.no_grad()
    def initialise(self, batch: Batch) -> None:
        """Data-dependent initialisation, once, before training; cores without one ignore it."""
        if hasattr(self.core, "initialise"):
            x, h = self._example(batch)
            self.core.initialise(scaled(x, self.likelihood.levels, self.dtype), self.core.terms(h))

    def _guided(self, guidance: float) -> tuple[Any, Likelihood]:
        """Core and likelihood, those of the guided distribution where ``guidance`` is not 0.

        Raises:
            RecipeError: ``guidance`` out of range, or the model does not know p(x).
        """
        if not (isinstance(guidance, Real) and -1 <= guidance <= _MOST_GUIDANCE):
            raise RecipeError(
                f"guidance is a number from -1 to {_MOST_GUIDANCE}, 0 for none, not {shown(guidance)[:60]}.",
                field="guidance",
            )
        if guidance == 0:
            return self.core, self.likelihood
        if not self.conditional:
            raise RecipeError("The model has no condition to be guided by; leave guidance out.", field="guidance")
        self.no_condition()  # or its sentence
        return GuidedCore(self.core), Guided(self.likelihood, guidance)

    def _parameters_of(
        self, x: Tensor, h: Condition | None, dropout_keys: Tensor | None = None, core: Any = None
    ) -> Tensor:
        info = self.info
        if tuple(x.shape[1:]) != (info.channels, info.height, info.width):
            raise InputError(
                f"The model's images are {(info.channels, info.height, info.width)} (channels, height, width), "
                f"not {tuple(x.shape[1:])}; give images of its shape, or import published weights again with "
                "--image-size."
            )
        core = core or self.core
        terms = core.terms(self._given(h).expand(len(x)))
        parameters: Tensor = core(scaled(x, self.likelihood.levels, self.dtype), terms, dropout_keys)
        return parameters

    def log_prob_map(self, x: Tensor, h: Condition | None = None, *, guidance: float = 0.0) -> Tensor:
        """ln p of each pixel given all earlier ones and h: integers (B, C, H, W) -> (B, H, W), in nats.

        ``guidance``: of the distribution that ``stream`` describes.
        """
        x = x.to(self.device)
        core, likelihood = self._guided(guidance)
        return likelihood.log_prob(self._parameters_of(x, h, core=core), x)

    def log_prob(self, x: Tensor, h: Condition | None = None, *, guidance: float = 0.0) -> Tensor:
        """ln p(x | h) in nats: integers (B, C, H, W) -> (B,)."""
        return self.log_prob_map(x, h, guidance=guidance).sum((1, 2))

    def log_prob_and_bound(
        self, x: Tensor, h: Condition | None, keys: Tensor, known: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """``log_prob`` and what training raises, twice (B,): the same numbers unless ``likelihood.bound``.

        Args:
            keys: the examples' own streams, int64 (B,), for the noise of a bound.
            known: bool (B, H, W), pixels that are certain and cost nothing, as ``Encoder.known`` says.
        """
        x = x.to(self.device)
        parameters = self._parameters_of(x, h)
        exact = _over_unknown(self.likelihood.log_prob(parameters, x), known)
        if not self.likelihood.bound:
            return exact, exact
        return exact, _over_unknown(self.likelihood.log_bound(parameters, x, keys.to(self.device)), known)

    def nll(self, batch: Batch) -> Tensor:
        """-ln p(x | encoder(batch)) of each example in nats, (B,), or its upper bound where ``likelihood.bound``:
        what training lowers. Of an image with known pixels (``Encoder.known``) it is that of the others.

        Dropout (in training mode) and the bound's noise draw from the examples' own streams, ``batch["key"]``.
        """
        (x, h), keys = self._example(batch), batch.get("key")
        parameters = self._parameters_of(x, h, keys if self.training else None)
        return -_over_unknown(self.likelihood.log_bound(parameters, x, keys), self.encoder.known(batch))

    def sample(self, h: Condition | None = None, count: int = 1, seed: int = 0, **options: Any) -> Tensor:
        """``count`` images for each condition of ``h``, a function of (weights, h, seed) alone.

        Args:
            options: those of ``stream``.

        Returns:
            uint8 (B * count, C, H, W) on 0 .. V-1, grouped by condition, on the CPU.

        Raises:
            RecipeError: an argument out of range, or no condition for a conditional model.
        """
        return torch.cat([images for images, _ in self.stream(h, count, seed, **options)])

    def sample_and_log_prob(
        self, h: Condition | None = None, count: int = 1, seed: int = 0, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """``sample``, and ln p of each image as ``log_prob`` (of the same guidance, at temperature 1) gives it, float64
        (B * count,), at no further cost."""
        images, log_probs = zip(*self.stream(h, count, seed, **options), strict=True)
        return torch.cat(images), torch.cat(log_probs)

    def stream(
        self,
        h: Condition | None = None,
        count: int = 1,
        seed: int = 0,
        *,
        temperature: Temperature = 1.0,
        guidance: float = 0.0,
        sampler: str = "auto",
        known: Tensor | None = None,
        mask: Tensor | None = None,
        tile: int = 8,
        first: int = 0,
        skip: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """What ``sample_and_log_prob`` gives, tile by tile as it is drawn: for more images than memory holds.

        Args:
            seed: image k of every condition has the noise of sample ``first + k`` of this seed.
            temperature: below 1 less, above 1 more varied than the model. Two numbers, for mixtures: of the choice of
                the component, and of the component's own width.
            guidance: W, from -1; needs a model with ``condition_dropout``. 0 is p(x | h) itself, exactly. Otherwise
                every sub-pixel is drawn, given all earlier ones, from

                    p_W(v) = p(v | earlier, h)^(1 + W) / p(v | earlier)^W, divided by its sum over the values v,

                p(v | earlier) being the model's without condition: above 0 nearer to h than the model is, -1 without h.
                At a temperature both p are first made those of the temperature. ln p is that of p_W at temperature 1.
            sampler: ``auto`` (``cached``, for cores that have what it needs) or one of ``condgen.samplers.SAMPLERS``.
            known, mask: integers (B, C, H, W) and bool (H, W) or (B, H, W) over the conditions: pixels that are kept.
            tile: images per network call; in fp32 part of what decides a picture.
            skip: so many images, a multiple of ``tile``, are left out at the beginning: they are there already.
            progress: called with (pixels done, pixels in all).

        Raises:
            RecipeError: an argument out of range, or no condition for a conditional model.
        """
        if sampler != "auto" and sampler not in SAMPLERS:
            raise RecipeError(
                f"There is no sampler {sampler!r}; choose auto or {', '.join(SAMPLERS)}.", field="sampler"
            )
        both = temperature if isinstance(temperature, tuple) else (temperature, temperature)
        for number in both:
            if not (isinstance(number, Real) and math.isfinite(number) and number > 0):
                raise RecipeError(
                    f"The temperature is a number above 0, not {shown(number)[:60]}.", field="temperature"
                )
        if both[0] == both[1]:
            temperature = both[0]
        elif not self.likelihood.picks_component:
            raise RecipeError(
                f"Temperatures of the mixture and of its components are for mixtures, which a "
                f"{type(self.likelihood).__name__} likelihood is not; give one temperature.",
                field="temperature",
            )
        if count < 1 or tile < 1 or skip < 0 or skip % tile:
            raise RecipeError("count and tile are at least 1, and skip a multiple of tile.", field="count")
        info, nameless = self.info, h is None or not h.parts
        h = self._given(h)
        conditions = len(h) if not nameless else 1 if known is None else len(known)
        h = h.expand(conditions)
        if (known is None) != (mask is None):
            raise RecipeError("known and mask come together: the pixels, and which of them are kept.", field="mask")
        if known is not None and mask is not None:
            known = known.expand(conditions, -1, -1, -1)
            mask = mask.expand(conditions, info.height, info.width)[:, None]
        tiles = in_tiles(
            SAMPLERS[resolved(sampler, self.core)],
            *self._guided(guidance),
            h.to(self.device),
            conditions,
            count,
            seed=seed,
            height=info.height,
            width=info.width,
            tile=tile,
            first=first,
            skip=skip,
            known=known,
            mask=mask,
            temperature=temperature,
            progress=progress,
        )
        return self._in_eval_mode(tiles)

    def _in_eval_mode(self, tiles: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        was_training = self.training
        self.eval()
        try:
            yield from tiles
        finally:
            self.train(was_training)


def _over_unknown(log_probs: Tensor, known: Tensor | None) -> Tensor:
    """Sums over the pixels that are not known, (B, H, W) -> (B,)."""
    return (log_probs if known is None else log_probs.masked_fill(known, 0)).sum((1, 2))
