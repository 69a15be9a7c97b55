"""What a model of `vae.toml` is worth: its bound beside a counting model, what its latent vectors know and do.

python python/examples/vae_report.py runs/vae/model.safetensors melodies.json [--collection folk_melodies]

Printed: nats a token of the test windows by two bounds and by the best n-gram model of the training windows (each as it
is and in 12 random transpositions, order chosen by the validation windows); KL and active units; how many tokens of a
window come back from its z alone, at temperature 0; and how far each attribute of samples from the prior moves, in
standard deviations of the data, with a strength of 1.5.
"""

import argparse

import numpy as np

import musicgen_ext as mg
from musicgen_ext.evaluate.counting import counting_nats
from musicgen_ext.generate import Coins
from musicgen_ext.train.windows import windows

STRENGTH, SAMPLES, TRANSPOSITIONS, IMPORTANCE = 1.5, 1000, 12, 64


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--collection", default=None, help="by default the data are a folder of MIDI files")
    arguments = parser.parse_args()
    model = mg.load(arguments.model)
    heard = {"bars": "heard", "straight": True, "least_notes": 4} if arguments.collection else {}
    corpus = windows(arguments.data, collection=arguments.collection, **heard)

    test = np.stack([piece.tokens for piece in corpus.test])
    elbo, divergence = model.engine.bounds(test)
    weighted, _ = model.engine.bounds(test, samples=IMPORTANCE)
    rng = np.random.default_rng(0)
    train = [piece.tokens for piece in corpus.train]
    train += [corpus.draw(piece, rng).tokens for _ in range(TRANSPOSITIONS) for piece in corpus.train]
    nats, tokens = counting_nats(
        train, list(test), model.encoding.vocab_size, valid=[piece.tokens for piece in corpus.valid]
    )
    print(f"{len(corpus.train)} windows to train on, {len(test)} to test")
    print(f"counting model          {nats / tokens:.4f} nats a token")
    print(f"ELBO                    {-elbo.sum() / test.size:.4f}")
    print(f"importance-weighted, {IMPORTANCE} {-weighted.sum() / test.size:.4f}")

    means, _ = model.engine.encode(test)
    active = int((means.var(0) > 0.01).sum())
    print(f"KL {divergence.mean():.2f} nats a window, {active} of {model.latent_size} units active")
    again = model.engine.decode(means, temperature=0.0, allowed=model.encoding.allowed).tokens
    onsets = test > 1
    print(f"tokens that come back   {(again == test).mean():.3f}, of onsets {(again == test)[onsets].mean():.3f}")

    z = Coins(1, range(SAMPLES)).normals(1, model.latent_size)[:, 0]

    def measured(direction):
        drawn = model.engine.decode(z + direction, seed=1, allowed=model.encoding.allowed)
        return model.encoding.attributes(drawn.tokens).mean(0)

    before = measured(0 * z[0])
    for i, (name, direction) in enumerate(model.attributes.items()):
        mean, deviation = model.engine.spread[name]
        up, down = ((measured(s * direction) - before)[i] / deviation for s in (STRENGTH, -STRENGTH))
        print(f"{name:12s} data {mean:.2f} ± {deviation:.2f}, samples {before[i]:.2f}, {up:+.2f} and {down:+.2f} σ")


if __name__ == "__main__":
    main()
