"""Variational autoencoders: windows of tokens as points of a latent space, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from musicgen_ext.architectures.readers import choice, entries, integer, only, string, unique
from musicgen_ext.architectures.recurrent import CELLS, LIMITS, RecurrentConfig
from musicgen_ext.errors import WeightsError

DIRECTIONS = ("forwards", "backwards")


@dataclass(frozen=True)
class Encoder:
    """What reads a window: the same network twice, with weights of their own, from its beginning and from its end."""

    cell: str
    hidden_size: int
    num_layers: int
    dim: int
    """Width of the embedding of every slot's token."""


@dataclass(frozen=True)
class VariationalConfig:
    """A recurrent encoder, a latent vector z with a normal prior, and a recurrent decoder that is told z.

    The encoder reads a start id and the frames of a window, once forwards and once backwards; mean and log-variance of
    the posterior of z are linear in the last states of the two (their uppermost layers, forwards first). The decoder is
    a `RecurrentConfig` whose condition vector is z: fed at every step (``vector.dim``), or making the states before the
    first frame (``vector.initial``, latent-to-LSTM), or both. A decoder without a trunk repeats z and hears nothing
    of its own tokens.

    `attributes` are directions in the latent space, found from data at the end of training, with which the decoded
    music gets more or less of something: ``attributes`` (n, latent_size) is what to add to z for one standard deviation
    more of each; ``attribute_mean`` and ``attribute_deviation`` (n,) say how it is spread in the data.

    Sources: Kingma and Welling, "Auto-encoding variational Bayes", 2014; Bowman et al., "Generating sentences from a
    continuous space", 2016; Roberts et al., "A hierarchical latent vector model for learning long-term structure in
    music", 2018.
    """

    latent_size: int
    window: int
    """Frames that one z stands for."""
    encoder: Encoder
    decoder: RecurrentConfig
    attributes: tuple[str, ...] = ()

    arch: ClassVar[str] = "variational"

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> VariationalConfig:
        """Build from the JSON form; a mistake is a `WeightsError` that names key, range and value."""
        only(config, {"latent_size", "window", "encoder", "decoder", "attributes"}, "config")
        latent_size = integer(config, "latent_size", 1, LIMITS["dim"], "config")
        window = integer(config, "window", 1, 1 << 16, "config")
        where = "config.encoder"
        entry = config.get("encoder")
        only(entry, {"cell", "hidden_size", "num_layers", "dim"}, where)
        assert isinstance(entry, Mapping)
        encoder = Encoder(
            choice(entry, "cell", CELLS, where),
            integer(entry, "hidden_size", 1, LIMITS["hidden_size"], where),
            integer(entry, "num_layers", 1, LIMITS["num_layers"], where),
            integer(entry, "dim", 1, LIMITS["dim"], where),
        )
        try:
            decoder = RecurrentConfig.from_dict(config.get("decoder", {}))
        except WeightsError as error:
            raise WeightsError(f"config.decoder: {str(error).removeprefix('config.')}") from None
        if decoder.vector_size != latent_size:
            got = decoder.vector_size or None
            raise WeightsError(f"config.decoder.vector.size: expected {latent_size}, the latent_size, got {got}")
        if decoder.given:
            raise WeightsError(f"config.decoder.features: expected none of the kind 'given', got {list(decoder.given)}")
        attributes = tuple(
            string({"attributes": name}, "attributes", "config")
            for name in entries(config, "attributes", 0, 64, "config", [])
        )
        unique(attributes, "config.attributes")
        built = cls(latent_size, window, encoder, decoder, attributes)
        if built.reader.input_size > LIMITS["dim"]:
            expected = f"{LIMITS['dim']} numbers for all slots"
            raise WeightsError(f"config.encoder.dim: expected at most {expected}, got {built.reader.input_size}")
        return built

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: `from_dict(config.to_dict()) == config`."""
        return {
            "latent_size": self.latent_size,
            "window": self.window,
            "encoder": dict(vars(self.encoder)),
            "decoder": self.decoder.to_dict(),
            "attributes": list(self.attributes),
        }

    @property
    def reader(self) -> RecurrentConfig:
        """One direction of the encoder as a recurrent network, whose heads are not used."""
        slots = self.decoder.slots
        features = [{"name": s.name, "kind": "token", "slot": i, "lag": 1} for i, s in enumerate(slots)]
        return RecurrentConfig.from_dict(
            {
                "cell": self.encoder.cell,
                "hidden_size": self.encoder.hidden_size,
                "num_layers": self.encoder.num_layers,
                "features": features,
                "trunk": [{"feature": s.name, "dim": self.encoder.dim} for s in slots],
                "slots": [{"name": s.name, "size": s.size} for s in slots],
            }
        )

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the model and its shape."""
        shapes: dict[str, tuple[int, ...]] = {}
        for direction in DIRECTIONS:
            for name, shape in self.reader.tensor_shapes().items():
                if not name.startswith("head."):
                    shapes[f"encoder.{direction}.{name}"] = shape
        for name in ("mean", "log_variance"):
            shapes[f"{name}.weight"] = (self.latent_size, len(DIRECTIONS) * self.encoder.hidden_size)
            shapes[f"{name}.bias"] = (self.latent_size,)
        shapes.update({f"decoder.{name}": shape for name, shape in self.decoder.tensor_shapes().items()})
        if self.attributes:
            count = len(self.attributes)
            shapes["attributes"] = (count, self.latent_size)
            shapes["attribute_mean"] = shapes["attribute_deviation"] = (count,)
        return shapes

    def num_parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(prod(shape) for shape in self.tensor_shapes().values())
