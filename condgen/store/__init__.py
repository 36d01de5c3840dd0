"""Runs and models on disk. Whatever lies there is safetensors or JSON; nothing is ever unpickled."""

from condgen.store.foreign import read_weights
from condgen.store.models import load, load_conditional, save_model

__all__ = ["load", "load_conditional", "read_weights", "save_model"]
