"""VAE-GANs with a style vector by their definition, in float64, a picture at a time."""

import numpy as np

from musicgen_reference import feedforward


def encode(config, tensors, picture):
    """Mean and logarithm of the variance of z for one picture (the JSON form of a `VaeGanConfig`)."""
    said = feedforward.run(config["encoder"], tensors, picture, "encoder.")
    half = len(said) // 2
    return said[:half], np.clip(said[half:], -12, 4)


def decode(config, tensors, z, style):
    """Logits of one picture."""
    return feedforward.run(config["generator"], tensors, np.concatenate([z, style]), "generator.")


def draw(logits):
    """At every step as many of the likeliest pitches as the probabilities add up to; onsets that are half as likely."""
    likely = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    picture = np.zeros(logits.shape, np.uint8)
    for step in range(logits.shape[1]):
        wanted = int(np.floor(likely[0, step].sum() + 0.5))
        for pitch in sorted(range(logits.shape[2]), key=lambda p: -logits[0, step, p])[:wanted]:
            picture[0, step, pitch] = 1
            for channel in range(1, len(logits)):
                picture[channel, step, pitch] = 2 * likely[channel, step, pitch] >= likely[0, step, pitch]
    return picture


def normal(word_of_radius, word_of_angle):
    """One normal number out of two words of 64 bits (Box and Muller 1958), to the nearest multiple of 2^-20."""
    first, second = ((int(word) >> 11) / 2**53 for word in (word_of_radius, word_of_angle))
    return np.rint(np.sqrt(-2 * np.log1p(-first)) * np.cos(2 * np.pi * second) * 2**20) / 2**20


def latents(config, tensors, count, seed, index, label, temperature=1.0):
    """z of `count` neighbouring pictures of one sequence in a style."""
    walk, mean, scale = (np.asarray(tensors[name], np.float64) for name in ("walk", "prior.mean", "prior.scale"))
    stream = np.random.Philox(key=np.array([seed, index], np.uint64))
    rows = []
    for _ in range(count):
        words = stream.random_raw(2 * len(walk))
        halves = zip(words[: len(walk)], words[len(walk) :], strict=True)
        fresh = temperature * np.array([normal(*pair) for pair in halves])
        rows.append(walk * rows[-1] + np.sqrt(1 - walk**2) * fresh if rows else fresh)
    return np.array([mean[label] + scale[label] @ row for row in rows])
