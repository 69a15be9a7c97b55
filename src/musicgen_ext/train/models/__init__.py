"""Torch modules; each is an ordinary `nn.Module` whose state_dict has the names of the model file's tensors."""

from musicgen_ext.train.models.attention import Attention
from musicgen_ext.train.models.c_rnn_gan import CRnnGan, CRnnGanCritic
from musicgen_ext.train.models.feedforward import FeedForward
from musicgen_ext.train.models.frames import Frames
from musicgen_ext.train.models.gan import Gan
from musicgen_ext.train.models.recurrent import Dropout, Recurrent
from musicgen_ext.train.models.vae_gan import VaeGan
from musicgen_ext.train.models.variational import Variational
from musicgen_ext.train.models.wavenet import WaveNet

__all__ = [
    "Attention",
    "CRnnGan",
    "CRnnGanCritic",
    "Dropout",
    "FeedForward",
    "Frames",
    "Gan",
    "Recurrent",
    "VaeGan",
    "Variational",
    "WaveNet",
]
