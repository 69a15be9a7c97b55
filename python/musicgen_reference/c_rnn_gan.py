"""The generator of a C-RNN-GAN by its definition, in float64."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def run(config, tensors, noise):
    """Rows (n, outputs) for noise (n, noise): every layer an LSTM, the first hears noise and the last row."""
    layers, size = config["num_layers"], config["hidden_size"]
    weights = {name: np.asarray(array, np.float64) for name, array in tensors.items()}
    h, c = np.zeros((layers, size)), np.zeros((layers, size))
    said = np.zeros(config["outputs"])
    rows = []
    for heard in np.asarray(noise, np.float64):
        x = np.concatenate([heard, said])
        for k in range(layers):
            sums = weights[f"rnn.weight_ih_l{k}"] @ x + weights[f"rnn.bias_ih_l{k}"]
            sums += weights[f"rnn.weight_hh_l{k}"] @ h[k] + weights[f"rnn.bias_hh_l{k}"]
            i, f, g, o = np.split(sums, 4)
            c[k] = sigmoid(f) * c[k] + sigmoid(i) * np.tanh(g)
            h[k] = sigmoid(o) * np.tanh(c[k])
            x = h[k]
        said = sigmoid(weights["output.weight"] @ x + weights["output.bias"])
        rows.append(said)
    return np.array(rows)
