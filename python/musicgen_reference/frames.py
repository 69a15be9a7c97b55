"""Networks over frames in plain numpy, float64, one frame and key at a time. The native engine must agree with it."""

from __future__ import annotations

import numpy as np

from musicgen_ext.architectures import FramesConfig
from musicgen_reference.generate import Recurrent, draw, sigmoid


class Frames(Recurrent):
    """A model of frames, as `musicgen_ext.architectures.FramesConfig` describes it: frames are sets of keys.

    `weights` "int8" stores every state that meets a matrix in bytes, as the native engine does.
    """

    config: FramesConfig

    def __init__(self, config, tensors, weights="float32"):
        super().__init__(config, tensors, weights)
        self.frames = []
        self.state = [(np.zeros(config.hidden_size), np.zeros(config.hidden_size)) for _ in range(config.num_layers)]

    def look_back(self):
        """The channels before the coming frame, as sets of keys, and the trunk's numbers."""
        t = len(self.frames)
        channels = [self.frames[t - lag] if t >= lag else set() for lag in self.config.lags]
        numbers = [t % period for period in self.config.clocks]
        if self.config.has_match:
            where, length = self.longest_match(self.frames)
            channels.append(self.frames[where] if length else set())
            numbers.insert(0, sum(length >= least for least in self.config.match_buckets))
        return channels, numbers

    def begin(self):
        """Step the trunk to the coming frame."""
        config = self.config
        self.channels, numbers = self.look_back()
        x = np.zeros(config.trunk_inputs)
        n = len(config.trunk_channels)
        for i, channel in enumerate(config.trunk_channels):
            for key in self.channels[channel]:
                x[key * n + i] = 1.0
        column = config.keys * n
        for number, size in zip(numbers, config.numbers, strict=True):
            x[column + number] = 1.0
            column += size
        self.state = self.step(x, self.state)

    def logit(self, key, written):
        """Of `key` to sound; `written`: the keys of the coming frame below it, which head "notes" asks for."""
        config, tensors = self.config, self.tensors
        h = self.stored(self.state[-1][0])
        f = tensors["position.weight"][key] + tensors["condition.weight"] @ h
        for c, channel in enumerate(self.channels):
            for other in channel:
                if abs(other - key) <= config.reach:
                    f = f + tensors["local.weight"][:, c, other - key + config.reach]
        past = [sum(other < key for other in self.channels[0])]
        if config.has_match:
            past.append(sum(other < key for other in self.channels[-1]))
        past = [min(count, 8) for count in past]
        ranks = past
        if config.head == "notes":
            for other in written:
                if key - other <= config.reach:
                    f = f + tensors["written.weight"][:, other - key + config.reach]
            count = min(len(written), 8)
            ranks = [*past, count, *(min(max(count - each, -4), 4) + 4 for each in past)]
        for kind, rank in enumerate(ranks):
            f = f + tensors["ranks.weight"][9 * kind + rank]
        own = tensors["key.weight"][key] @ h + tensors["key.bias"][key]
        return float(tensors["output.weight"][0] @ np.maximum(f, 0.0) + own)

    def logits(self, frame):
        """Of all keys, each given those of `frame` below it."""
        return np.array([self.logit(k, [key for key in sorted(frame) if key < k]) for k in range(self.config.keys)])

    def note_or_stop(self, written):
        """Probabilities that each key is the next note, and of the stop."""
        first = written[-1] + 1 if written else 0
        out, left = np.zeros(self.config.keys + 1), 1.0
        for key in range(first, self.config.keys):
            p = sigmoid(self.logit(key, written))
            out[key] = left * p
            left *= 1.0 - p
        out[-1] = left
        return out

    def draw(self, coins, **options):
        """The coming frame: note by note, or key by key."""
        if self.config.head == "independent":
            keys = range(self.config.keys)
            return {k for k in keys if draw(np.array([0.0, self.logit(k, [])]), coins[k], **options)}
        frame = []
        while True:
            with np.errstate(divide="ignore"):
                choices = np.log(self.note_or_stop(frame))
            note = draw(choices, coins[len(frame)], **options)
            if note == self.config.keys:
                return set(frame)
            frame.append(note)
            if note == self.config.keys - 1:
                return set(frame)

    def teacher_forced(self, frames):
        """Logits of all keys of every frame."""
        rows = []
        for frame in frames:
            self.begin()
            rows.append(self.logits(frame))
            self.frames.append(set(frame))
        return np.array(rows)
