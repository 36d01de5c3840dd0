"""From a recipe to a model with random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from condgen.autoencoder import Autoencoder, DeconvolutionalDecoder
from condgen.condition import DataInfo, Encoder
from condgen.cores.conditioning import Conditioning
from condgen.cores.gated import GatedPixelCNN
from condgen.cores.pixelcnnpp import PixelCNNpp
from condgen.cores.small_field import SmallFieldPixelCNN
from condgen.embedding import Embedding
from condgen.errors import RecipeError
from condgen.likelihoods import (
    Bernoulli,
    Categorical,
    ContinuousMixture,
    Likelihood,
    LinearCategorical,
    LogisticMixture,
)
from condgen.model import ConditionalModel
from condgen.plugins import find_encoder
from condgen.recipe.reading import encoder_options
from condgen.recipe.schema import ModelSection, Recipe


def build_likelihood(recipe: Recipe, info: DataInfo) -> Likelihood:
    """The likelihood that the recipe asks for, over ``2 ** info.bit_depth`` values.

    PixelCNN++ sees whole pixels, so there softmax and binary colours depend on the pixel's earlier ones linearly.
    """
    levels = 2**info.bit_depth
    whole_pixels = recipe.model.core == "pixelcnn++"
    if recipe.likelihood == "bernoulli" and not (whole_pixels and info.channels > 1):
        return Bernoulli(info.channels, levels)
    if recipe.likelihood == "logistic_mixture":
        return LogisticMixture(info.channels, levels, recipe.model.mixtures, recipe.model.likelihood_rule)
    if recipe.likelihood == "continuous_mixture":
        return ContinuousMixture(info.channels, levels, recipe.model.mixtures)
    return (LinearCategorical if whole_pixels else Categorical)(info.channels, levels)


Trained = ConditionalModel | Autoencoder | Embedding
"""What ``train.objective`` may train."""


def build_trained(recipe: Recipe, info: DataInfo) -> Trained:
    """What ``train.objective`` of ``recipe`` trains, for data like ``info``; see ``build_model``."""
    if recipe.train.objective == "squared_error":
        return build_autoencoder(recipe, info)
    if recipe.train.objective == "triplet":
        return build_embedding(recipe, info)
    return build_model(recipe, info)


def build_autoencoder(recipe: Recipe, info: DataInfo) -> Autoencoder:
    """The encoder of ``recipe`` and a deconvolutional decoder of ``model.filters``; as ``build_model``.

    Raises:
        RecipeError: also if the encoder yields no vector.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        encoder = _encoder(recipe, info)
        if not encoder.vector_size:
            raise RecipeError(
                f"train.objective: squared_error decodes a vector, and encoder.type={recipe.encoder.type} yields none; "
                "choose one that does, as autoencoder.",
                field="train.objective",
            )
        decoder = DeconvolutionalDecoder(
            encoder.vector_size, info.channels, info.height, info.width, recipe.model.filters
        )
    model = Autoencoder(encoder, decoder, info)
    model.to(memory_format=torch.channels_last)
    return model


def build_embedding(recipe: Recipe, info: DataInfo) -> Embedding:
    """The encoder of ``recipe`` by itself; as ``build_model``.

    Raises:
        RecipeError: also if the encoder yields no vector or has nothing to train.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        encoder = find_encoder(recipe.encoder.type)(encoder_options(recipe.encoder), info)
    if not encoder.vector_size or not any(True for _ in encoder.parameters()):
        raise RecipeError(
            f"train.objective: triplet trains an encoder's vector, and encoder.type={recipe.encoder.type} has "
            f"{'no vector' if not encoder.vector_size else 'nothing to train'}; choose one that does, as face.",
            field="train.objective",
        )
    model = Embedding(encoder, info).requires_grad_(True)  # an encoder that is frozen elsewhere is what is trained here
    model.to(memory_format=torch.channels_last)
    return model


def build_model(recipe: Recipe, info: DataInfo) -> ConditionalModel:
    """Encoder, core and likelihood of ``recipe`` for data like ``info``; weights are a function of ``train.seed``.

    Raises:
        RecipeError: no such encoder, or one that cannot work with this data.
        ModelError: the encoder is broken.
    """
    with torch.random.fork_rng(devices=[]):  # torch's own initialisers draw from the global generator: lend it
        torch.manual_seed(recipe.train.seed)
        encoder = _encoder(recipe, info)
        likelihood = build_likelihood(recipe, info)
        core = build_core(recipe.model, info, likelihood, encoder)
    model = ConditionalModel(encoder, core, likelihood, info, condition_dropout=recipe.encoder.dropout)
    # channels last: a CPU's convolutions otherwise reorder every weight in every step
    model.to(memory_format=torch.channels_last)
    return model


def _encoder(recipe: Recipe, info: DataInfo) -> Encoder:
    """The recipe's encoder, with random weights; frozen where it says so."""
    encoder = find_encoder(recipe.encoder.type)(encoder_options(recipe.encoder), info)
    if encoder.frozen:
        encoder.freeze()
    return encoder


def build_core(settings: ModelSection, info: DataInfo, likelihood: Likelihood, encoder: Encoder) -> nn.Module:
    """The core that ``settings`` ask for, conditioned on what ``encoder`` yields; torch draws its weights."""
    pyramid = settings.core == "pixelcnn++"
    conditioning = Conditioning(
        encoder.vector_size,
        encoder.map_channels,
        settings.conditioning,
        settings.map_channels,
        info.height,
        info.width,
        scales=settings.scales if pyramid and settings.small_field is None else 1,
        vector_width=settings.vector_width if pyramid else None,
    )
    if pyramid:
        common: dict[str, Any] = {
            "filters": settings.filters,
            "resnets": settings.resnets,
            "field": settings.field,
            "nonlinearity": settings.nonlinearity,
            "dropout": settings.dropout,
            "full_sight": settings.full_sight,
        }
        if settings.small_field is not None:
            return SmallFieldPixelCNN(
                info.channels, likelihood.outputs, conditioning, variant=settings.small_field, **common
            )
        return PixelCNNpp(
            info.channels,
            likelihood.outputs,
            conditioning,
            scales=settings.scales,
            short_cuts=settings.short_cuts,
            **common,
        )
    return GatedPixelCNN(
        info.channels,
        likelihood.starting_bias(),
        likelihood.colour_of_outputs() if likelihood.colour_ordered else None,
        conditioning,
        filters=settings.filters,
        layers=settings.layers,
        field=settings.field,
        first_field=settings.first_kernel_size or settings.field,
        head=settings.head_filters or settings.filters,
        dropout=settings.dropout,
        skips=settings.skips,
        linear_path=settings.linear_path,
    )
