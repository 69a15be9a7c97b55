"""Template matching: the native search against its plain twin and librosa's DTW, planted clips, silence and ties."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest

import musicgen_ext as mg
from musicgen_ext import _core, matching
from musicgen_ext.features import named
from musicgen_reference import matching as reference

EPS = float(np.finfo(np.float32).eps)
# In units of eps: a correlation is a float32 sum of rounded products of numbers whose squares add up to 1, in chains of
# 256. Worst measured over the cases below: 1.6.
CORRELATION_BOUND = 8
# In units of eps and of the accumulated cost, which is a float32 sum along the path; a cosine near 0 is rounded in
# units of 1, not of itself, at every step. Worst measured: 2.5.
WARP_BOUND = 8


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def chroma_like(rng, frames):
    """Twelve rows, a few of them loud, changing every ten frames or so."""
    chords = rng.random((12, frames // 10 + 2)) ** 6
    steady = np.repeat(chords, rng.integers(5, 16, chords.shape[1]), axis=1)
    return (steady[:, :frames] + 0.05 * rng.random((12, min(frames, steady.shape[1])))).astype(np.float32)


def stretched(clip, rate):
    """The clip played `rate` times as fast."""
    at = np.arange(0, clip.shape[1] - 1, rate)
    i, part = at.astype(int), at % 1
    return np.ascontiguousarray((1 - part) * clip[:, i] + part * clip[:, i + 1], np.float32)


# -- twins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(
    ("dims", "m", "n"), [(1, 1, 1), (1, 2, 2), (3, 7, 60), (2, 16, 79), (5, 31, 95), (12, 64, 130), (1, 300, 365)]
)
def test_correlation_twin(isa, rng, center, dims, m, n):
    clip, piece = normal(rng, dims, m) + 2, normal(rng, dims, n) - 1
    (curve,) = _core.match_correlate(clip, [piece], center, 1)
    expected = reference.correlate(clip.tolist(), piece.tolist(), center)
    assert curve.shape == (n - m + 1,)
    assert np.max(np.abs(curve - expected)) <= CORRELATION_BOUND * EPS


def correlations(clip, piece, center):
    """The reference's, for sizes that would take it minutes."""
    clip, windows = clip.astype(float), np.lib.stride_tricks.sliding_window_view(piece.astype(float), clip.shape[1], 1)
    if center:
        clip = clip - clip.mean(axis=1, keepdims=True)
        windows = windows - windows.mean(axis=2, keepdims=True)
    products = np.einsum("rj,rtj->t", clip, windows)
    return products / np.sqrt(np.sum(clip**2) * np.einsum("rtj,rtj->t", windows, windows))


LONG = [(12, 400, 3000), (3, 900, 20_000), (20, 257, 3001), (1, 2500, 40_000)]  # for transforms instead of sums


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("dims", "m", "n"), LONG)
def test_correlation_of_long_clips(isa, rng, center, dims, m, n):
    clip, piece = normal(rng, dims, m) + 2, normal(rng, dims, n) - 1
    piece[:, 700 : 700 + m] = clip
    (curve,) = _core.match_correlate(clip, [piece], center, 1)
    assert curve.shape == (n - m + 1,)
    some = rng.integers(0, n - 2 * m, 20)
    for t in (0, 650, n - 2 * m, *some):  # a few hundred offsets from each
        part = piece[:, t : t + m + min(m, 100)]
        expected = correlations(clip, part, center)
        assert np.max(np.abs(curve[t : t + len(expected)] - expected)) <= CORRELATION_BOUND * EPS
    assert curve[700] == pytest.approx(1, abs=CORRELATION_BOUND * EPS)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("weights", [(1, 1, 1), (2, 1, 1.5)])
@pytest.mark.parametrize(
    ("dims", "m", "n"), [(2, 1, 1), (2, 1, 9), (2, 9, 1), (3, 15, 40), (3, 16, 40), (3, 17, 40), (12, 33, 31)]
)
def test_warp_twin(isa, rng, metric, weights, dims, m, n):
    clip, piece = normal(rng, dims, m), normal(rng, dims, n)
    clip[:, m // 2], piece[:, n // 3] = 0, 0  # silence
    ((costs, starts),) = _core.match_warp(clip, [piece], metric, weights, 1)
    D, path = reference.warp(clip.tolist(), piece.tolist(), metric, weights)
    assert np.all(np.abs(costs - D[-1]) <= WARP_BOUND * EPS * np.maximum(1, D[-1]))
    for j in {0, n // 2, n - 1}:
        cells = path(j)
        assert starts[j] == cells[0][1]
        stretch = np.ascontiguousarray(piece[:, starts[j] : j + 1])
        pairs = _core.match_warp_path(clip, stretch, metric, weights) + np.array([0, starts[j]])
        assert pairs.tolist() == [list(cell) for cell in cells]


@pytest.mark.parametrize("weights", [(1, 1, 1), (2, 1, 1), (1, 2, 3)])
def test_of_equally_cheap_steps_the_first_is_taken(isa, rng, weights):
    """Whole numbers: every sum is exact, and most cells have ties."""
    for _ in range(5):
        clip = rng.integers(0, 3, (1, 35)).astype(np.float32)
        piece = rng.integers(0, 3, (1, 90)).astype(np.float32)
        ((costs, starts),) = _core.match_warp(clip, [piece], "euclidean", weights, 1)
        D, path = reference.warp(clip.tolist(), piece.tolist(), "euclidean", weights)
        assert costs.tolist() == D[-1]
        assert starts.tolist() == [path(j)[0][1] for j in range(90)]


def test_every_fused_path_gives_the_same_bits(on_every_isa, rng):
    clip, long, piece = normal(rng, 12, 100), normal(rng, 12, 600), normal(rng, 12, 3000)

    def run():
        warped = [_core.match_warp(clip, [piece], metric, (1, 1, 1), 1)[0] for metric in ("cosine", "euclidean")]
        correlated = [_core.match_correlate(query, [piece], True, 1)[0] for query in (clip, long)]
        return [*correlated, *(part for pair in warped for part in pair)]

    results = on_every_isa(run)
    results.pop("baseline")  # rounds twice where the others fuse
    first = next(iter(results.values()), None)
    for result in results.values():
        assert [part.tobytes() for part in result] == [part.tobytes() for part in first]


# -- oracle ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("weights", [(1, 1, 1), (2, 1, 1)])
def test_librosa_finds_the_same_path(isa, rng, metric, weights):
    sequence = pytest.importorskip("librosa.sequence", reason="librosa is the oracle of this test")
    clip, piece = normal(rng, 12, 60), normal(rng, 12, 700)
    D, path = sequence.dtw(
        clip.astype(float), piece.astype(float), subseq=True, metric=metric, weights_mul=np.array(weights, float)
    )
    ((costs, _),) = _core.match_warp(clip, [piece], metric, weights, 1)
    assert np.all(np.abs(costs - D[-1]) <= WARP_BOUND * EPS * D[-1])
    best = mg.match(clip, [piece], method="dtw", metric=metric, step_weights=weights, top=1, path=True)[0]
    assert best.path is not None
    assert np.array_equal(best.path, path[::-1])
    assert best.frames == (path[-1, 1], path[0, 1] + 1)
    assert best.score == pytest.approx(-D[-1].min() / 60, rel=WARP_BOUND * EPS)


def test_numpy_finds_the_same_correlation(rng):
    clip, piece = normal(rng, 1, 50), normal(rng, 1, 400)
    windows = np.lib.stride_tricks.sliding_window_view(piece[0].astype(float), 50)
    expected = [np.corrcoef(clip[0], window)[0, 1] for window in windows]
    assert np.max(np.abs(_core.match_correlate(clip, [piece], True, 1)[0] - expected)) <= CORRELATION_BOUND * EPS


# -- laws ------------------------------------------------------------------------------------------------------------


def test_a_planted_clip_is_found_under_noise(rng):
    library = {f"piece {k}": chroma_like(rng, 2000) for k in range(8)}
    for _ in range(10):
        name = f"piece {rng.integers(8)}"
        at = int(rng.integers(0, 1500))
        clip = library[name][:, at : at + 200]
        noisy = clip + 0.3 * clip.std() * normal(rng, *clip.shape)
        for method in ("ncc", "dtw"):
            best = mg.match(noisy, library, method=method, top=1, sr=22_050, hop_length=512)[0]
            assert best.piece == name
            assert abs(best.frames[0] - at) <= (0 if method == "ncc" else 10)  # a chord lasts that long
            assert best.start == pytest.approx(best.frames[0] * 512 / 22_050)
            assert best.end == pytest.approx(best.frames[1] * 512 / 22_050)


@pytest.mark.parametrize("rate", [0.7, 0.85, 1.2, 1.6])
def test_a_planted_clip_is_found_at_another_tempo(rng, rate):
    library = [chroma_like(rng, 2000) for _ in range(5)]
    clip = stretched(library[3][:, 700:1000], rate)
    clip += 0.1 * clip.std() * normal(rng, *clip.shape)
    best = mg.match(clip, library, method="dtw", top=1)[0]
    assert best.piece == 3
    assert abs(best.frames[0] - 700) <= 5
    assert abs(best.frames[1] - 1000) <= 5


def test_a_copy_matches_perfectly(rng):
    piece = chroma_like(rng, 800)
    clip = piece[:, 123:323]
    best = mg.match(clip, [piece], top=1)[0]
    assert (best.piece, best.frames, best.start, best.end) == (0, (123, 323), 123 * 512 / 22_050, 323 * 512 / 22_050)
    assert best.score == pytest.approx(1, abs=CORRELATION_BOUND * EPS)
    warped = mg.match(clip, [piece], method="dtw", metric="euclidean", top=1, path=True)[0]
    assert (warped.score, warped.frames) == (0.0, (123, 323))
    assert warped.path is not None
    assert np.array_equal(warped.path, np.column_stack([np.arange(200), np.arange(123, 323)]))


def test_a_constant_added_to_a_row_makes_no_difference(rng):
    """A gain, in cepstra and log spectra."""
    clip, piece = normal(rng, 13, 40), normal(rng, 13, 500)
    louder = piece + np.array([[30]] + [[0]] * 12, np.float32)
    a, b = (_core.match_correlate(clip, [p], True, 1)[0] for p in (piece, louder))
    assert np.max(np.abs(a - b)) <= 30 * 8 * EPS  # the sum is rounded in units of the constant


def test_gain_makes_no_difference(rng):
    clip, piece = normal(rng, 12, 40), normal(rng, 12, 500)
    for method in ("ncc", "dtw"):
        a, b = (mg.match(c, [p], method=method, top=3) for c, p in ((clip, piece), (2 * clip, 1024 * piece)))
        assert [(m.frames, m.score) for m in a] == [(m.frames, m.score) for m in b]


def test_matches_come_best_first_and_do_not_overlap(rng):
    phrase = chroma_like(rng, 60)
    pieces = [np.concatenate([normal(rng, 12, 30), phrase, normal(rng, 12, 45), phrase], axis=1) for _ in range(3)]
    for method in ("ncc", "dtw"):
        found = mg.match(phrase, pieces, method=method, top=12)
        assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)
        for k in range(3):
            places = sorted(m.frames for m in found if m.piece == k)
            assert all(a[1] <= b[0] for a, b in itertools.pairwise(places))
        assert {(m.piece, m.frames) for m in found if m.score > -1e-3} >= {
            (k, (at, at + 60)) for k in range(3) for at in (30, 135)
        }


def test_of_equal_matches_the_first_piece_comes_first(rng):
    piece = normal(rng, 3, 100)
    for method in ("ncc", "dtw"):
        found = mg.match(piece[:, 20:50], [piece[:, ::-1], piece, piece, piece], method=method, top=4)
        assert [(m.piece, m.frames) for m in found[:3]] == [(k, (20, 50)) for k in (1, 2, 3)]
        assert found[0].score == found[1].score == found[2].score > found[3].score


@pytest.mark.parametrize("method", ["ncc", "dtw"])
def test_any_number_of_threads_gives_the_same(rng, method):
    pieces = [normal(rng, 12, n) for n in (300, 50, 700, 64, 1000, 51, 333)]
    results = [mg.match(normal(np.random.default_rng(1), 12, 50), pieces, method=method, threads=t) for t in (1, 2, 9)]
    assert results[0] == results[1] == results[2]


def test_names_and_indices(rng):
    pieces = [normal(rng, 2, 20), normal(rng, 2, 30)]
    clip = pieces[1][:, 4:14]
    assert mg.match(clip, pieces, top=1)[0].piece == 1
    assert mg.match(clip, tuple(pieces), top=1)[0].piece == 1
    assert mg.match(clip, dict(zip("ab", pieces, strict=True)), top=1)[0].piece == "b"


# -- sounds ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pieces():
    """Three little pieces of eight seconds, played by the synthesiser."""
    made = []
    for seed in (1, 2, 3):
        random = np.random.default_rng(seed)
        starts = np.cumsum(random.integers(1, 4, 40)) * 120
        notes = [
            (int(start), 240, int(pitch)) for start, pitch in zip(starts, random.integers(48, 84, 40), strict=True)
        ]
        made.append(mg.Score(notes).synthesize(16_000))
    return made


@pytest.mark.parametrize("feature", ["chroma", "mfcc", "logmel"])
@pytest.mark.parametrize("method", ["ncc", "dtw"])
def test_a_clip_of_a_recording_is_found(pieces, rng, tmp_path, feature, method):
    sr, hop = 16_000, 256
    first = 3 * sr
    clip = mg.Audio(pieces[1].y[:, first : first + 2 * sr] + 0.003 * rng.normal(size=2 * sr), sr)
    for k, piece in enumerate(pieces):
        piece.save(tmp_path / f"{k}.wav", subtype="FLOAT")
    clip.save(tmp_path / "clip.wav", subtype="FLOAT")
    options = {"feature": feature, "method": method, "top": 1, "hop_length": hop, "n_fft": 1024}
    by_path = mg.match(tmp_path / "clip.wav", [str(tmp_path / f"{k}.wav") for k in range(3)], **options)
    assert by_path[0].piece == 1
    loose = 0.1 if method == "ncc" else 0.5  # a path may leave out a part of the first and the last note
    assert by_path[0].start == pytest.approx(3, abs=loose)
    assert by_path[0].end == pytest.approx(5, abs=loose)
    assert mg.match(clip, pieces, **options) == by_path
    mono = [np.mean(piece.y, axis=0, dtype=float) for piece in pieces]
    assert mg.match(np.mean(clip.y, axis=0, dtype=float), mono, sr=sr, **options) == by_path


def test_sounds_of_another_rate_are_resampled(pieces):
    pytest.importorskip("soxr")
    clip = mg.Audio(pieces[2].y[:, 32_000:64_000], 16_000).resample(22_050)
    best = mg.match(clip, pieces, top=1)[0]  # at 22050 Hz
    assert best.piece == 2
    assert best.start == pytest.approx(2, abs=0.1)
    assert mg.match(clip, pieces, top=1, sr=16_000, hop_length=400)[0].start == pytest.approx(2, abs=0.1)


def test_what_was_computed_before_is_as_good(pieces):
    chromas = [named.compute("chroma", np.mean(p.y, axis=0), 16_000, hop_length=512, tuning=0.0) for p in pieces]
    clip = mg.Audio(pieces[0].y[:, 16_000:48_000], 16_000)
    assert mg.match(clip, chromas) == mg.match(clip, [mg.Audio(p.y.mean(axis=0), 16_000) for p in pieces])


def test_options_go_to_the_function(pieces):
    clip = mg.Audio(pieces[0].y[:, 16_000:48_000], 16_000)
    assert mg.match(clip, pieces, feature="mfcc", n_mfcc=5, n_mels=20, top=1)[0].piece == 0
    with pytest.raises(TypeError, match=r"^mfcc: .*n_chroma"):
        mg.match(clip, pieces, feature="mfcc", n_chroma=12)


def test_a_file_that_is_no_sound_is_named(pieces, tmp_path):
    (tmp_path / "x.wav").write_bytes(b"RIFF____WAVE")
    with pytest.raises(ValueError, match=r"x\.wav: expected a WAV file"):
        mg.match(pieces[0], [tmp_path / "x.wav"])
    with pytest.raises(FileNotFoundError):
        mg.match(tmp_path / "missing.wav", pieces)


# -- silence, size, rubbish ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("center", [True, False])
def test_silence_correlates_with_nothing(isa, rng, center):
    sound, silence = normal(rng, 4, 100), np.zeros((4, 100), np.float32)
    short, still = normal(rng, 4, 20), np.zeros((4, 20), np.float32)
    for clip, piece in ((still, sound), (short, silence), (still, silence)):
        assert not _core.match_correlate(clip, [piece], center, 1)[0].any()
    steady = np.full((4, 100), 0.1, np.float32)
    assert (_core.match_correlate(short, [steady], center, 1)[0] == 0).all() == center


def test_silence_after_a_loud_passage_is_silence(isa, rng):
    """What lies outside a window must leave no rounding in it."""
    piece = np.concatenate(
        [1e6 * normal(rng, 3, 200), np.full((3, 200), 0.37, np.float32), 1e-3 * normal(rng, 3, 200)], 1
    )
    clip = np.ascontiguousarray(piece[:, 450:480])
    (curve,) = _core.match_correlate(clip, [piece], True, 1)
    assert not curve[200:371].any()
    (alone,) = _core.match_correlate(clip, [np.ascontiguousarray(piece[:, 400:])], True, 1)
    # Blocks that begin before it see frames of 0.37 beside frames of 0.001, which are then rounded in units of 0.37.
    assert np.max(np.abs(curve[400:] - alone)) <= 370 * EPS


@pytest.mark.parametrize("level", [1e-3, 1e-9])
def test_a_long_clip_is_found_in_a_faint_passage(isa, rng, level):
    """Beside sound so loud that transforms of the whole would lose it in their rounding."""
    faint = np.float32(level) * normal(rng, 12, 2000)
    piece = np.concatenate([100 * normal(rng, 12, 3008), faint], 1)  # 47 of the blocks that sums go in
    clip = np.ascontiguousarray(faint[:, 20:520])
    (curve,) = _core.match_correlate(clip, [piece], True, 1)
    assert curve[3028] == pytest.approx(1, abs=CORRELATION_BOUND * EPS)
    assert np.max(np.abs(curve[3008:] - correlations(clip, faint, True))) <= CORRELATION_BOUND * EPS


def test_silence_is_like_silence_for_the_cosine(isa):
    silence, sound = np.zeros((2, 5), np.float32), np.ones((2, 5), np.float32)
    for clip, piece, cost in ((silence, silence, 0), (silence, sound, 5), (sound, silence, 5), (sound, sound, 0)):
        assert _core.match_warp(clip, [piece], "cosine", (1, 1, 1), 1)[0][0][-1] == pytest.approx(cost, abs=10 * EPS)


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e30, 3e37])
def test_R26_huge_and_tiny_features(isa, rng, scale):
    clip, piece = normal(rng, 3, 20), normal(rng, 3, 200)
    big = [(values * np.float32(scale)).astype(np.float32) for values in (clip, piece)]
    for center in (True, False):
        plain, scaled = (_core.match_correlate(c, [p], center, 1)[0] for c, p in ((clip, piece), big))
        assert np.isfinite(scaled).all()
        if scale > 1e-38:  # there, digits are lost before the search begins
            assert np.max(np.abs(plain - scaled)) <= CORRELATION_BOUND * EPS
    for metric in ("cosine", "euclidean"):
        plain, scaled = (_core.match_warp(c, [p], metric, (1, 1, 1), 1)[0][0] for c, p in ((clip, piece), big))
        expected = plain.astype(np.float64) * (1 if metric == "cosine" else scale)
        fits = expected < np.finfo(np.float32).max
        assert np.isfinite(scaled[fits]).all()
        if scale > 1e-38:
            unit = expected / np.maximum(plain, 1e-30)
            assert np.all(np.abs(scaled - expected)[fits] <= (WARP_BOUND * EPS * (expected + unit))[fits])


def test_R19_any_layout(rng):
    clip, piece = normal(rng, 12, 40), normal(rng, 12, 300)
    expected = mg.match(clip, [piece])
    swapped = piece.astype(">f4")
    frozen = piece.copy()
    frozen.setflags(write=False)
    for other in (np.asfortranarray(piece), piece.astype(np.float64), swapped, frozen, piece[:, ::-1][:, ::-1]):
        assert mg.match(np.asfortranarray(clip), [other]) == expected


def test_R20_R21_other_types(rng):
    sound = normal(rng, 2, 9)
    for wrong in (sound.astype(np.int16), sound > 0, sound.astype(complex), b"text", [[1.0], [1.0, 2.0]], None):
        with pytest.raises(TypeError, match="query"):
            mg.match(wrong, [sound])
        with pytest.raises(TypeError, match=r"library\[0\]"):
            mg.match(sound, [wrong])
    with pytest.raises(TypeError, match="masked"):
        mg.match(np.ma.masked_array(sound), [sound])
    for wrong in (None, 3, "folder", iter([sound])):
        with pytest.raises(TypeError, match="library"):
            mg.match(sound, wrong)


def test_R22_nan(rng):
    sound, broken = normal(rng, 2, 9), normal(rng, 2, 9)
    broken[1, 3] = np.nan
    with pytest.raises(ValueError, match=r"query: .*got 1 .*\(1, 3\)"):
        mg.match(broken, [sound])
    with pytest.raises(ValueError, match=r"library\['x'\]: .*got 1 "):
        mg.match(sound, {"x": broken})


def test_R23_shapes(rng):
    sound = normal(rng, 2, 9)
    for wrong in (sound[0, :0], sound[:, :0], sound[:0], sound[None]):
        with pytest.raises(ValueError, match=r"query: .*\(dims, frames\)"):
            mg.match(wrong, [sound])
    with pytest.raises(ValueError, match="2 rows"):
        mg.match(sound, [normal(rng, 3, 9)])
    with pytest.raises(ValueError, match="none"):
        mg.match(sound, [])
    with pytest.raises(ValueError, match="at most the 8 frames"):
        mg.match(sound, [sound[:, :8], sound[:, :5]])
    assert [m.piece for m in mg.match(sound, [sound[:, :8], sound])] == [1]  # the short one has no place for it
    assert len(mg.match(sound, [sound[:, :1]], method="dtw")) == 1
    assert mg.match(sound[:, :1], [sound[:, :1]], center=False)[0].score == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"method": "fft"}, "method"),
        ({"metric": "manhattan"}, "metric"),
        ({"top": 0}, "top"),
        ({"sr": 0}, "sr"),
        ({"feature": "rhythm"}, "feature"),
        ({"hop_length": 0}, "hop_length"),
        ({"threads": 0}, "threads"),
        ({"step_weights": (1, 1)}, "step_weights"),
        ({"step_weights": (1, 0, 1)}, "step_weights"),
        ({"step_weights": (1, np.nan, 1)}, "step_weights"),
        ({"path": True}, "path"),
    ],
)
def test_options_out_of_range(rng, options, name):
    sound = normal(rng, 2, 9)
    with pytest.raises(ValueError, match=f"^{name}: "):
        mg.match(sound, [sound], **options)


def test_R25_a_path_that_does_not_fit(rng, monkeypatch):
    monkeypatch.setattr(matching, "_MOST_PATH_BYTES", 50_000)
    sound = normal(rng, 2, 110)
    assert mg.match(sound[:, :80], [sound], method="dtw", top=1, path=True)[0].path is not None
    with pytest.raises(MemoryError, match="path: expected at most 50000 bytes, got 56448"):
        mg.match(sound, [sound], method="dtw", path=True)


def test_the_door_checks_for_itself(rng):
    sound = normal(rng, 2, 9)
    with pytest.raises(TypeError):
        _core.match_correlate(sound.astype(np.float64), [sound], True, 1)
    with pytest.raises(TypeError, match=r"pieces\[0\]"):
        _core.match_correlate(sound, [sound.T], True, 1)
    with pytest.raises(ValueError, match=r"pieces\[1\]: expected shape \(2, frames\)"):
        _core.match_warp(sound, [sound, sound[:1]], "cosine", (1, 1, 1), 1)
    with pytest.raises(ValueError, match="threads"):
        _core.match_warp(sound, [sound], "cosine", (1, 1, 1), 0)
    with pytest.raises(ValueError, match="metric"):
        _core.match_warp(sound, [sound], "x", (1, 1, 1), 1)
    with pytest.raises(ValueError, match="step_weights"):
        _core.match_warp_path(sound, sound, "cosine", (1, float("nan"), 1))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("method", ["ncc", "dtw"])
def test_R39_ctrl_c_ends_a_long_search(ctrl_c, method, threads):
    before = """import musicgen_ext as mg
rng = np.random.default_rng(0)
clip, piece = rng.random((12, 4000), np.float32), rng.random((12, 400_000), np.float32)"""
    call = f"mg.match(clip, [piece] * 4, method={method!r}, threads={threads})"
    after = f"assert mg.match(clip[:, :50], [clip], method={method!r}, top=1)[0].frames == (0, 50)"
    assert ctrl_c(before, call, after) < 1  # 0.1 s on a machine of one's own


def test_R41_threads_share_a_library(rng):
    pieces = [normal(rng, 4, 400) for _ in range(3)]
    clips = [normal(rng, 4, 30) for _ in range(8)]
    expected = [mg.match(clip, pieces, method="dtw") for clip in clips]
    results = [None] * len(clips)

    def search(k):
        results[k] = mg.match(clips[k], pieces, method="dtw", threads=2)

    threads = [threading.Thread(target=search, args=(k,)) for k in range(len(clips))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == expected
