"""The schema of a recipe: every field with its type, unit, default and one line of help. Defaults live here, once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSection(Section):
    """Where the images come from and what shape they get."""

    source: Literal[
        "portraits", "mnist", "fashion_mnist", "cifar10", "svhn", "celeba", "lfw", "folder", "shards", "npz"
    ] = Field("portraits", description="Kind of data set.")
    root: str | None = Field(None, description="Folder or file of the data; relative to the working directory.")
    download: bool = Field(False, description="Download a torchvision set into data.root when it is not there.")
    image_size: (
        Annotated[int, Field(ge=1, le=1024)]
        | tuple[Annotated[int, Field(ge=1, le=1024)], Annotated[int, Field(ge=1, le=1024)]]
    ) = Field(32, description="Side of the images in pixels, or [height, width].")
    channels: Literal[1, 3, 4] = Field(3, description="1 (luma), 3 (RGB) or 4 (RGBA).")
    bit_depth: Annotated[int, Field(ge=1, le=8)] = Field(
        8, description="Bits kept of each value (8: 0..255; 1: binary, threshold 128)."
    )
    fit: Literal["crop", "pad", "exact"] = Field(
        "crop", description="How another shape is brought to image_size: centre crop, padding, or refused."
    )
    background: tuple[int, int, int] = Field(
        (255, 255, 255), description="Colour behind transparency and padding, RGB 0..255."
    )
    flip: bool = Field(False, description="Mirror half of the training images left to right.")
    augment: Annotated[float, Field(ge=0, le=2)] = Field(
        0.0,
        description="Strength of random shifts, turns, sizes, light and loss of colour of the training images; 1: as "
        "is usual for faces.",
    )
    validation: Fraction = Field(
        0.05, description="Share of the training images kept for validation where the set has no such split."
    )
    test: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="Share kept for the test where the set has no such split; 1: all of it, only to be measured."
    )
    split_seed: int = Field(
        0, description="Seed of the splits that are drawn; of portraits: of all people and pictures."
    )
    split_by: Literal["class", "identity"] | None = Field(
        None,
        description="How a split is drawn: of every class the same share (class), or whole people, who are the labels "
        "(identity); default: any images.",
    )
    own_splits: bool = Field(
        True, description="Keep the splits that the set brings along; false: pool them all and draw new ones."
    )
    pairs: Literal["none", "identity"] = Field(
        "none",
        description="Whose condition an image has: its own, or that of another image of its identity (label), where "
        "there is one; drawn anew in every epoch, fixed in evaluation.",
    )
    aligned: bool = Field(
        True,
        description="Pictures are used as they are; false: the largest face of each is found and brought to its place, "
        "once, and pictures without a face are skipped.",
    )
    max_skipped: Fraction = Field(0.01, description="Share of unreadable images above which a folder is refused.")
    columns: str | None = Field(
        None,
        description="csv, npy, npz or safetensors with one row of numbers per image, in the set's order: extra columns "
        "for encoders.",
    )
    identities: Positive = Field(4000, description="portraits: number of training identities.")
    views: Positive = Field(8, description="portraits: pictures of each identity.")
    grain: Annotated[float, Field(ge=0, le=64)] = Field(
        2.0, description="portraits: standard deviation of the camera's grain, in levels of 0..255."
    )

    @property
    def height(self) -> int:
        return self.image_size if isinstance(self.image_size, int) else self.image_size[0]

    @property
    def width(self) -> int:
        return self.image_size if isinstance(self.image_size, int) else self.image_size[1]


class EncoderSection(BaseModel):
    """What turns the condition into numbers; the fields beside ``type`` and ``dropout`` are the encoder's own."""

    model_config = ConfigDict(extra="allow", frozen=True)
    type: str = Field(
        "none", description="Name of an installed encoder (condgen encoders lists them); none: unconditional."
    )
    dropout: Fraction = Field(
        0.0,
        description="likelihood: probability that a training example loses its condition (zeros), so that the model "
        "learns p(x) as well: for condition_bits of evaluate and for --guidance.",
    )

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class ModelSection(Section):
    """The core, its size, and the likelihood."""

    core: Literal["gated", "pixelcnn++"] = Field(
        "gated", description="Causal core: gated (van den Oord et al. 2016) or pixelcnn++ (Salimans et al. 2017)."
    )
    filters: Annotated[int, Field(ge=1, le=4096)] = Field(
        64, description="Feature maps p after the gate; of squared_error's decoder: at full resolution."
    )
    layers: Annotated[int, Field(ge=1, le=200)] = Field(10, description="gated: layers.")
    resnets: Annotated[int, Field(ge=1, le=100)] = Field(5, description="pixelcnn++: gated resnets of a block.")
    scales: Annotated[int, Field(ge=1, le=8)] = Field(
        3, description="pixelcnn++: resolutions, each half of the one before; sides divide by 2^(scales-1)."
    )
    short_cuts: bool = Field(True, description="pixelcnn++: long connections from the down to the up half.")
    nonlinearity: Literal["concat_elu", "elu", "relu"] = Field(
        "concat_elu", description="pixelcnn++: nonlinearity of the gated resnets."
    )
    small_field: Literal["plain", "nin", "channels"] | None = Field(
        None,
        description="pixelcnn++: a single block at full resolution instead of the pyramid, as it is (plain), with 1x1 "
        "resnets between (nin), or with connections between sets of channels (channels).",
    )
    full_sight: bool = Field(
        False, description="pixelcnn++: add a path by which every pixel sees every earlier one (not in the paper)."
    )
    vector_width: Annotated[int, Field(ge=1, le=4096)] = Field(
        64, description="pixelcnn++: condition vectors longer than this are projected to it once, for all layers."
    )
    kernel_size: Annotated[int, Field(ge=1, le=31)] | None = Field(
        None, description="Side n of the n x n field of a layer, odd; default: 5 (gated), 3 (pixelcnn++)."
    )
    first_kernel_size: Annotated[int, Field(ge=1, le=31)] | None = Field(
        None, description="gated: side of the first layer's field; default: kernel_size."
    )
    head_filters: Annotated[int, Field(ge=1, le=16384)] | None = Field(
        None, description="gated: maps of the two 1x1 layers of the head; default: filters."
    )
    skips: bool = Field(
        True, description="gated: feed the head with the sum of 1x1 skips of every layer, not the last layer alone."
    )
    linear_path: bool = Field(
        False,
        description="gated: add to the outputs what follows linearly from near neighbours: smooth pictures learn "
        "faster.",
    )
    dropout: Fraction = Field(
        0.0,
        description="Probability of dropping a single activation in training, rounded to a 256th; gated: after the "
        "gate; pixelcnn++: before the second convolution of a resnet.",
    )
    likelihood: Literal["auto", "categorical", "bernoulli", "logistic_mixture", "continuous_mixture"] = Field(
        "auto",
        description="auto: bernoulli for binary images, else the core's own: categorical (gated), logistic_mixture "
        "(pixelcnn++).",
    )
    likelihood_rule: Literal["exact", "classic"] = Field(
        "exact", description="logistic_mixture: exact bin masses, or the classic rule of the PixelCNN++ code."
    )
    mixtures: Annotated[int, Field(ge=1, le=100)] = Field(10, description="Components K of the mixture of logistics.")
    conditioning: Literal["global", "spatial", "both"] = Field(
        "global",
        description="How a vector enters: as a bias of each layer (eq. 4), by place as a map m(h) (eq. 5), or both.",
    )
    map_channels: Annotated[int, Field(ge=1, le=1024)] = Field(32, description="Channels of the map m(h).")

    @model_validator(mode="after")
    def _check(self) -> ModelSection:
        for name in ("kernel_size", "first_kernel_size"):
            value = getattr(self, name)
            used = self.core == "gated" or name == "kernel_size"
            if used and value is not None and value % 2 == 0:
                raise ValueError(f"{name} must be odd, not {value}")
        if self.dropout and not 1 / 256 <= self.dropout <= 255 / 256:
            raise ValueError(f"dropout: expected 0, or 1/256 to 255/256 (0.0040 to 0.9960), found {self.dropout}")
        if self.core == "pixelcnn++" and self.kernel_size == 1:
            raise ValueError("kernel_size: pixelcnn++ needs at least 3, or no pixel would see another row")
        return self

    @property
    def field(self) -> int:
        """``kernel_size`` with the core's default."""
        return self.kernel_size or {"gated": 5, "pixelcnn++": 3}[self.core]


class TrainSection(Section):
    """How long, how fast and how often."""

    objective: Literal["likelihood", "squared_error", "triplet"] = Field(
        "likelihood",
        description="likelihood: the conditional model; squared_error: the encoder and a deconvolutional decoder; "
        "triplet: the encoder alone, pictures of one label near each other.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="Seed of everything random in training.")
    batch_size: Positive = Field(64, description="Images a step, over all processes.")
    views: Annotated[int, Field(ge=2)] = Field(
        4, description="triplet: images of each identity in a batch, which has batch_size / views identities."
    )
    margin: Annotated[float, Field(gt=0, lt=4)] = Field(
        0.2, description="triplet: by how much nearer one's own is to be, in squared distance of unit vectors."
    )
    mining: Literal["semihard", "hard", "all"] = Field(
        "semihard",
        description="triplet: negatives that count: farther than the positive but within the margin (semihard), nearer "
        "than it (hard), or both (all).",
    )
    micro_batch: Positive | None = Field(
        None, description="Images of one forward pass of a process; default: its whole share."
    )
    max_steps: Positive | None = Field(None, description="Steps after which training ends.")
    max_minutes: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Minutes (training, evaluation, pictures) after which it ends."
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-3, description="Adam's step size after warm-up.")
    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        100, description="Steps over which the learning rate rises from 0."
    )
    decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Factor on the learning rate at every step (PixelCNN++: 0.999995)."
    )
    decay_steps: Positive | None = Field(
        None, description="Steps over which the learning rate falls to 0 along a cosine; then training may end."
    )
    adam_betas: tuple[Fraction, Fraction] = Field((0.9, 0.999), description="Adam's betas.")
    adam_epsilon: Annotated[float, Field(gt=0)] = Field(
        1e-8, description="Adam's epsilon, on the gradient of the mean loss per example in nats."
    )
    clip_norm: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Largest norm of the gradient (of the mean loss per example, in nats)."
    )
    ema_decay: Fraction = Field(
        0.999, description="Decay of the averaged weights; rises to this value over the first steps."
    )
    precision: Literal["fp32", "bf16", "fp64"] = Field("fp32", description="Arithmetic of the core; bf16 is autocast.")
    compile: bool = Field(
        False,
        description="Faster steps: pixelcnn++ on a CPU by the C compiler (a second), else torch.compile (minutes).",
    )
    evaluate_images: Annotated[int, Field(ge=0)] = Field(
        512, description="Validation images of an evaluation during training; 0: none."
    )
    evaluate_every: Positive = Field(1000, description="Steps between evaluations.")
    checkpoint_every: Positive = Field(1000, description="Steps between checkpoints.")
    keep_every: Positive | None = Field(
        None,
        description="Keep every checkpoint whose step is a multiple of this; default: the newest two and the best.",
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop", description="On a loss of NaN or infinity: stop (exit 5) or skip the step, at most three in a row."
    )
    skip_steps: tuple[int, ...] = Field(
        (), description="Steps to pass over without an update (after a stop on a bad step)."
    )
    deterministic: bool = Field(
        True, description="Deterministic kernels, so that a resumed run equals an uninterrupted one bit for bit."
    )
    tensorboard: bool = Field(True, description="Write TensorBoard events where tensorboard is installed.")


class SampleSection(Section):
    """The sample grids of training and the defaults of condgen sample."""

    count: Annotated[int, Field(ge=0, le=16)] = Field(
        16, description="Pictures of a grid during training; 0: no grids."
    )
    during: Annotated[int, Field(ge=0, le=2)] = Field(1, description="Grids drawn before the last one.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="Seed of the sampling noise.")
    temperature: Annotated[float, Field(gt=0, le=10)] = Field(1.0, description="Below 1: less varied samples.")
    guidance: Annotated[float, Field(ge=-1, le=100)] = Field(
        0.0, description="Above 0: nearer to the condition than the model; -1: without it; needs encoder.dropout."
    )
    tile: Annotated[int, Field(ge=1, le=4096)] = Field(
        8, description="Images sampled together; part of what decides an fp32 picture."
    )
    labels: tuple[str, ...] = Field(
        (), description="What the grids' rows ask the encoder's first word for; default: the encoder's own examples."
    )


class Recipe(Section):
    """One runnable experiment."""

    description: str = Field("", description="One line about the experiment.")
    data: DataSection = DataSection()
    encoder: EncoderSection = EncoderSection()
    model: ModelSection = ModelSection()
    train: TrainSection = TrainSection()
    sample: SampleSection = SampleSection()

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if self.encoder.dropout and self.encoder.type == "none":
            raise ValueError("encoder.dropout: without an encoder there is no condition to drop; leave it out")
        if self.sample.guidance and not self.encoder.dropout:
            raise ValueError(
                f"sample.guidance: {self.sample.guidance:g} compares p(x | h) with p(x), which the model learns only "
                "with encoder.dropout; set encoder.dropout, to 0.1 for one, or leave guidance out"
            )
        if self.model.likelihood == "bernoulli" and self.data.bit_depth != 1:
            raise ValueError("model.likelihood: bernoulli is for binary images; set data.bit_depth to 1")
        if self.model.likelihood.endswith("_mixture") and self.data.bit_depth == 1:
            raise ValueError(
                f"model.likelihood: {self.model.likelihood} is for images of 2 to 8 bits; use bernoulli for "
                "data.bit_depth 1"
            )
        if self.model.likelihood_rule == "classic" and self.likelihood != "logistic_mixture":
            raise ValueError(
                "model.likelihood_rule: classic is a rule of logistic_mixture, and this likelihood is "
                f"{self.likelihood}; leave it out"
            )
        step = 1 if self.model.small_field else 2 ** (self.model.scales - 1)
        if self.model.core == "pixelcnn++" and (self.data.height % step or self.data.width % step):
            raise ValueError(
                f"data.image_size: {self.data.height}x{self.data.width} does not divide by {step}, which "
                f"{self.model.scales} scales of pixelcnn++ need; choose other sides or fewer model.scales"
            )
        if self.model.core == "pixelcnn++" and self.model.small_field == "channels" and self.model.filters % 4:
            raise ValueError(
                f"model.filters: {self.model.filters} does not divide by 4, the number of sets of channels"
            )
        if self.data.flip and self.data.source == "portraits" and self.train.objective != "triplet":
            raise ValueError("data.flip: drawn portraits know left from right (looking left); leave it false")
        if self.model.filters < self.data.channels:
            raise ValueError("model.filters: every colour needs a feature map; give at least data.channels")
        if self.train.objective == "triplet" and self.train.micro_batch is not None:
            raise ValueError(
                "train.micro_batch: triplets compare the examples of a batch, which therefore cannot be cut; leave it "
                "out"
            )
        if self.train.max_steps is None and self.train.max_minutes is None:
            raise ValueError("train: give max_steps or max_minutes, or training would never end")
        return self

    @property
    def likelihood(self) -> str:
        """``model.likelihood`` with ``auto`` resolved."""
        if self.model.likelihood == "auto":
            own = {"gated": "categorical", "pixelcnn++": "logistic_mixture"}
            return "bernoulli" if self.data.bit_depth == 1 else own[self.model.core]
        return self.model.likelihood
