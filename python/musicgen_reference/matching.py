"""Template matching as the definitions read: whole matrices, loops, float64."""

import math

STEPS = ((1, 1), (0, 1), (1, 0))  # in frames of clip and piece; of equally cheap ones the first is taken


def correlate(clip, piece, center=True):
    """The normalised cross-correlation of a clip [dims][m] with every stretch of m frames of a piece [dims][n]."""
    frames = len(clip[0])
    curve = []
    for t in range(len(piece[0]) - frames + 1):
        products = clip_squares = piece_squares = clip_energy = piece_energy = 0.0
        for clip_row, piece_row in zip(clip, piece, strict=True):
            a, b = clip_row, piece_row[t : t + frames]
            clip_energy += sum(x * x for x in a)
            piece_energy += sum(x * x for x in b)
            if center:
                a = [x - math.fsum(a) / frames for x in a]
                b = [x - math.fsum(b) / frames for x in b]
            products += math.fsum(x * y for x, y in zip(a, b, strict=True))
            clip_squares += math.fsum(x * x for x in a)
            piece_squares += math.fsum(x * x for x in b)
        least = 1e-10 if center else 0  # what varies less varies by rounding
        flat = clip_squares <= least * clip_energy or piece_squares <= least * piece_energy
        curve.append(0.0 if flat else products / math.sqrt(clip_squares * piece_squares))
    return curve


def cost(a, b, metric):
    """Of a frame against a frame."""
    if metric == "euclidean":
        return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
    norms = math.sqrt(sum(x * x for x in a)), math.sqrt(sum(x * x for x in b))
    if 0 in norms:
        return 0.0 if norms == (0, 0) else 1.0
    return max(0.0, 1 - sum(x * y for x, y in zip(a, b, strict=True)) / (norms[0] * norms[1]))


def warp(clip, piece, metric="cosine", weights=(1, 1, 1)):
    """Subsequence DTW: the accumulated costs D [m][n], and the path to a frame of the piece as a function."""
    clip_frames, piece_frames = list(zip(*clip, strict=True)), list(zip(*piece, strict=True))
    D = [[cost(clip_frames[0], b, metric) for b in piece_frames]]
    taken = {}
    for i, a in enumerate(clip_frames[1:], 1):
        D.append([math.inf] * len(piece_frames))
        for j, b in enumerate(piece_frames):
            c = cost(a, b, metric)
            for (di, dj), weight in zip(STEPS, weights, strict=True):
                if j >= dj and D[i - di][j - dj] + weight * c < D[i][j]:
                    D[i][j], taken[i, j] = D[i - di][j - dj] + weight * c, (di, dj)

    def path(j):
        cells = [(len(clip_frames) - 1, j)]
        while cells[0][0] > 0:
            di, dj = taken[cells[0]]
            cells.insert(0, (cells[0][0] - di, cells[0][1] - dj))
        return cells

    return D, path
