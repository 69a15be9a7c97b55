"""VAE-GAN with a style vector: bars of music to a latent vector and back, in the style that is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from musicgen_ext.architectures.feedforward import FeedForwardConfig
from musicgen_ext.architectures.readers import integer, only
from musicgen_ext.errors import WeightsError

PARTS = ("encoder", "generator", "discriminator")
MAX_LABELS = 1 << 12
LOG_VARIANCES = (-12.0, 4.0)  # what the encoder says of a variance is brought between these


@dataclass(frozen=True)
class VaeGanConfig:
    """Three networks over pictures of music, (channels, steps, pitches), with a 1 where there is a note.

    Music is made from a normal distribution of z for each label of the first group, fitted to what the encoder says of
    the training data (Ghosh et al., "From variational to deterministic autoencoders", 2020): ``prior.mean + prior.scale
    @ e``. From one picture to the next e keeps a share of itself, ``e' = walk * e + sqrt(1 - walk²) * normal``: what
    neighbours have in common in music, number by number.

    Attributes
    ----------
    encoder : FeedForwardConfig
        From a picture to a mean and a logarithm of the variance for each of `latent_size` numbers, the means first.
    generator : FeedForwardConfig
        From such numbers z, followed by the style vector c, to a logit for every place of a picture.
    discriminator : FeedForwardConfig
        From a picture to numbers d; it takes it for music of style c by ``d[0] + d[1:] · c``, a projection (Miyato and
        Koyama, "cGANs with projection discriminator", 2018). A model file describes it, but holds no tensors of it.
    labels : int
        Of the first group: the first numbers of the style.

    Sources: A. B. L. Larsen et al., "Autoencoding beyond pixels using a learned similarity metric", 2016; G. Lample et
    al., "Fader networks: manipulating images by sliding attributes", 2017.
    """

    encoder: FeedForwardConfig
    generator: FeedForwardConfig
    discriminator: FeedForwardConfig
    labels: int

    arch: ClassVar[str] = "vae_gan"

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """Build from the JSON form; a mistake is a `WeightsError` that names key, range and value."""
        only(config, {*PARTS, "labels"}, "config")
        parts = {part: FeedForwardConfig.from_dict(config.get(part, {}), f"config.{part}") for part in PARTS}
        built = cls(**parts, labels=integer(config, "labels", 1, MAX_LABELS, "config"))
        picture, codes, inputs = built.encoder.input, built.encoder.output, built.generator.input
        if len(picture) != 3:
            raise WeightsError(f"config.encoder.input: expected channels, steps, pitches, got {list(picture)}")
        if len(codes) != 1 or codes[0] % 2:
            raise WeightsError(
                "config.encoder.layers: expected an even count of numbers to come out (means, logarithms of "
                f"variances), got shape {list(codes)}"
            )
        if len(inputs) != 1 or inputs[0] <= built.latent_size:
            raise WeightsError(
                f"config.generator.input: expected more than {built.latent_size} numbers (z, then the style), "
                f"got {list(inputs)}"
            )
        if built.labels > built.style_size:
            raise WeightsError(f"config.labels: expected at most {built.style_size}, as in a style, got {built.labels}")
        for what, got, expected in (
            ("generator.layers: output", built.generator.output, picture),
            ("discriminator.input", built.discriminator.input, picture),
            ("discriminator.layers: output", built.discriminator.output, (1 + built.style_size,)),
        ):
            if got != expected:
                raise WeightsError(f"config.{what}: expected shape {list(expected)}, got {list(got)}")
        return built

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: `from_dict(config.to_dict()) == config`."""
        return {**{part: getattr(self, part).to_dict() for part in PARTS}, "labels": self.labels}

    @property
    def latent_size(self) -> int:
        """Numbers in z."""
        return self.encoder.output[0] // 2

    @property
    def style_size(self) -> int:
        """Numbers in c."""
        return self.generator.input[0] - self.latent_size

    @property
    def folded(self) -> VaeGanConfig:
        """The model as it is exported: without norms."""
        return replace(self, encoder=self.encoder.folded, generator=self.generator.folded)

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor and its shape: `walk`, -1 to 1, the priors, and those of encoder and generator."""
        return {
            "walk": (self.latent_size,),
            "prior.mean": (self.labels, self.latent_size),
            "prior.scale": (self.labels, self.latent_size, self.latent_size),
            **self.encoder.tensor_shapes("encoder."),
            **self.generator.tensor_shapes("generator."),
        }

    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.tensor_shapes().values())
