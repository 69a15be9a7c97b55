"""The recurrent sampling loop in plain numpy, float64, one token at a time. The native loop must agree with it."""

from __future__ import annotations

import numpy as np

from musicgen_ext.architectures import RecurrentConfig


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def dequantized(tensors):
    """The weights as float64, int8 matrices multiplied by their scales."""
    out = {}
    for name, array in tensors.items():
        if array.dtype == np.int8:
            array = (array.astype(np.float64).T * tensors[name + ".scale"]).T
        out[name] = np.asarray(array, np.float64)
    return out


def as_bytes(h, largest=1.0):
    """What is left of a state vector when it is stored in signed bytes, 127 standing for `largest`."""
    return np.rint(h * (127.0 / largest)) * (largest / 127.0) if largest > 0 else h * 0.0


class Recurrent:
    """A recurrent model, as `musicgen_ext.architectures.RecurrentConfig` describes it.

    `weights` "int8" stores every state that meets a matrix in bytes, as the native engine does.
    """

    def __init__(self, config: RecurrentConfig, tensors, weights="float32"):
        self.config = config
        self.tensors = dequantized(tensors)
        self.int8 = weights == "int8"

    # -- features of the past ----------------------------------------------------------------------------------------

    def features(self, frames, given, chosen):
        """Every feature at the frame after `frames` (a list of token tuples), `chosen` of which are drawn already."""
        config, t = self.config, len(frames)
        values = {}
        for f in config.features:
            if f.kind == "token":
                values[f.name] = frames[t - f.lag][f.slot] if t >= f.lag else config.slots[f.slot].size
            elif f.kind == "sounding":
                values[f.name] = self.sounding([frame[f.slot] for frame in frames[: max(0, t - f.lag + 1)]], f.slot)
            elif f.kind == "held":
                onset = self.last_onset([frame[f.slot] for frame in frames], f.slot)
                values[f.name] = sum(b <= (0 if onset is None else t - 1 - onset) for b in f.buckets)
            elif f.kind == "clock":
                values[f.name] = (t // f.divide) % f.period
            elif f.kind == "match":
                where, length = self.longest_match(frames)
                values[f.name] = frames[where][f.slot] if length else config.slots[f.slot].size
            elif f.kind == "match_length":
                values[f.name] = sum(b <= self.longest_match(frames)[1] for b in f.buckets)
            elif f.kind == "interval":
                ids = [self.sounding([frame[s] for frame in frames], s) for s in f.slots]
                values[f.name] = self.difference(ids, f.slots, f.limit)
            elif f.kind == "given":
                values[f.name] = int(given[f.name][t])
            elif f.kind == "chosen":
                values[f.name] = chosen[f.slot] if f.slot < len(chosen) else config.slots[f.slot].size
            elif f.kind == "chosen_sounding":
                column = [frame[f.slot] for frame in frames] + ([chosen[f.slot]] if f.slot < len(chosen) else [])
                values[f.name] = self.sounding(column, f.slot) if f.slot < len(chosen) else config.slots[f.slot].size
        for f in config.features:
            if f.kind == "difference":
                slots = [config.feature(name).slot for name in f.features]
                values[f.name] = self.difference([values[name] for name in f.features], slots, f.limit)
            elif f.kind == "degree":
                slot = config.slots[config.feature(f.features[0]).slot]
                first, (pitch, tonic) = slot.first_pitch or 0, (values[name] for name in f.features)
                known = first <= pitch < slot.size and tonic < 12
                values[f.name] = 1 + (pitch - first + f.offset - tonic) % 12 if known else 0
            elif f.kind == "parallel":
                slots = [config.slots[config.feature(name).slot] for name in f.features]
                a, b, c = (values[name] for name in f.features)

                def pitch(i, slot):
                    return (slot.first_pitch or 0) <= i < slot.size

                known = pitch(a, slots[0]) and pitch(b, slots[1]) and pitch(c, slots[2]) and pitch(a + b - c, slots[0])
                values[f.name] = a + b - c if known else slots[0].size
        return values

    def sounding(self, column, slot):
        """The last token of a slot that is not its hold."""
        for token in reversed(column):
            if token != self.config.slots[slot].hold:
                return token
        return self.config.slots[slot].size

    def last_onset(self, column, slot):
        hold, last = self.config.slots[slot].hold, None
        for t, token in enumerate(column):
            if (token != hold) if hold is not None else (t == 0 or token != column[t - 1]):
                last = t
        return last

    def longest_match(self, frames):
        """The frame after the longest earlier occurrence of the last frames, and its length; ties: the latest."""
        best = (0, 0)
        t = len(frames)
        for j in range(max(1, t - self.config.match_window), t):
            length = 0
            while length < j and frames[t - 1 - length] == frames[j - 1 - length]:
                length += 1
            if length and length >= best[1]:
                best = (j, length)
        return best

    def difference(self, ids, slots, limit):
        for i, s in zip(ids, slots, strict=True):
            if not (self.config.slots[s].first_pitch or 0) <= i < self.config.slots[s].size:
                return 0
        return 1 + limit + int(np.clip(ids[0] - ids[1], -limit, limit))

    # -- the network -------------------------------------------------------------------------------------------------

    def trunk_input(self, values, vector):
        parts = [self.tensors[f"trunk.{name}.weight"][values[name]] for name, _ in self.config.trunk]
        if self.config.vector_dim:
            parts.append(self.tensors["vector.weight"] @ vector)
        return np.concatenate(parts) if self.config.combine == "concat" else np.sum(parts, axis=0)

    def start(self, vector):
        """The states before the first frame, (h, c) of every layer."""
        config = self.config
        states = np.zeros((config.num_states, config.hidden_size))
        if config.vector_initial:
            states[:] = np.tanh(self.tensors["initial.weight"] @ vector + self.tensors["initial.bias"]).reshape(
                states.shape
            )
        h, c = states[: config.num_layers], states[-config.num_layers :]
        return list(zip(h, c, strict=True))

    def stored(self, h):
        """A state as the next product sees it."""
        if not self.int8:
            return h
        return as_bytes(h, max(h.max(), 0.0) if self.config.cell == "rnn_relu" else 1.0)

    def step(self, x, state):
        """One step of all layers; `state` is a list of (h, c). Source: the equations of torch.nn.LSTM, GRU and RNN."""
        after = []
        for k, (h, c) in enumerate(state):
            w_ih, w_hh = self.tensors[f"rnn.weight_ih_l{k}"], self.tensors[f"rnn.weight_hh_l{k}"]
            b_ih, b_hh = self.tensors[f"rnn.bias_ih_l{k}"], self.tensors[f"rnn.bias_hh_l{k}"]
            from_x, from_h = w_ih @ x + b_ih, w_hh @ self.stored(h) + b_hh
            if self.config.cell == "lstm":
                i, f, g, o = np.split(from_x + from_h, 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            elif self.config.cell == "gru":
                (xr, xz, xn), (hr, hz, hn) = np.split(from_x, 3), np.split(from_h, 3)
                r, z = sigmoid(xr + hr), sigmoid(xz + hz)
                n = np.tanh(xn + r * hn)
                h = (1.0 - z) * n + z * h
            elif self.config.cell == "rnn_tanh":
                h = np.tanh(from_x + from_h)
            else:
                h = np.maximum(from_x + from_h, 0.0)
            after.append((h, c))
            x = self.stored(h)
        return after

    def logits(self, slot, state, values):
        head, prefix = slot.head, f"head.{slot.name}"
        u = self.stored(state[-1][0])
        if head.hidden_size:
            u = self.tensors[f"{prefix}.hidden.weight"] @ u + self.tensors[f"{prefix}.hidden.bias"]
            for name in head.inputs:
                u = u + self.tensors[f"{prefix}.input.{name}.weight"][values[name]]
            u = np.tanh(u)
            u = as_bytes(u) if self.int8 else u
        z = self.tensors[slot.output_weight][: slot.output_rows] @ u + self.tensors[f"{prefix}.output.bias"]
        logits, rest = z[: slot.size].copy(), z[slot.size :]
        for r in head.relative:
            ref = values[r.feature]
            for i in range(slot.first_pitch, slot.size):
                if slot.first_pitch <= ref < slot.size and abs(i - ref) <= r.radius:
                    logits[i] += rest[i - ref + r.radius]
            rest = rest[2 * r.radius + 1 :]
        for j, name in enumerate(head.copy):
            if values[name] < slot.size:
                logits[values[name]] += rest[j]
        rest = rest[len(head.copy) :]
        for r in head.periodic:
            ref, f = values[r.feature], self.config.feature(r.feature)
            if f.kind == "given":
                known = ref < 12
            else:
                first = self.config.slots[f.slot].first_pitch or 0
                known = first <= ref < self.config.slots[f.slot].size
                ref -= first
            for i in range(slot.first_pitch, slot.size):
                if known:
                    logits[i] += rest[(i - slot.first_pitch + r.offset - ref) % 12]
            rest = rest[12:]
        return logits

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self, n_frames, coins, *, forced=None, given=None, vector=None, allowed=None, stop=None, **options):
        """Tokens [n, F] and logits, a list of n lists of F arrays. `coins` [n, F]; `forced` [n, F], -1 is free."""
        config = self.config
        state = self.start(vector)
        frames, all_logits = [], []
        for t in range(n_frames):
            state = self.step(self.trunk_input(self.features(frames, given, ()), vector), state)
            frame, frame_logits = [], []
            for s, slot in enumerate(config.slots):
                logits = self.logits(slot, state, self.features(frames, given, frame))
                frame_logits.append(logits)
                if forced is not None and forced[t][s] >= 0:
                    frame.append(int(forced[t][s]))
                    continue
                if allowed is not None:
                    logits = np.where(allowed[min(t, len(allowed) - 1)][s][: slot.size], logits, -np.inf)
                frame.append(draw(logits, coins[t][s], **options))
            frames.append(tuple(frame))
            all_logits.append(frame_logits)
            if stop is not None and frame[stop[0]] == stop[1]:
                break
        return np.array(frames, np.int32), all_logits


def log_softmax(logits):
    shifted = logits - np.max(logits)
    return shifted - np.log(np.exp(shifted).sum())


def probabilities(logits, temperature=1.0, top_k=None, top_p=1.0):
    """What the sampler draws from: tempered, then the k most likely, then the fewest that reach top_p."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    if temperature == 0.0:
        p = np.zeros(len(logits))
        p[order[0]] = 1.0
        return p
    with np.errstate(over="ignore", invalid="ignore"):
        p = np.exp((logits - np.max(logits)) / temperature)
    kept = order[:top_k]
    p[[i for i in order if i not in kept]] = 0.0
    if top_p < 1.0:
        enough, total = top_p * p.sum(), 0.0
        for i in kept:
            if total >= enough:
                p[i] = 0.0
            total += p[i]
    return p / p.sum()


def draw(logits, coin, **options):
    """The first token at which the running sum of probabilities passes the coin."""
    p = probabilities(logits, **options)
    running = np.cumsum(p)
    return int(min(np.searchsorted(running, coin, side="right"), np.flatnonzero(p)[-1]))


def distance_to_edge(logits, coin, **options):
    """How far the coin is from the nearest place where another token would be drawn."""
    return float(np.min(np.abs(np.cumsum(probabilities(logits, **options)) - coin)))
