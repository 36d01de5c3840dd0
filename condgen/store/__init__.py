"""Runs and models on disk. Whatever lies there is safetensors or JSON; nothing is ever unpickled."""

from condgen.store.models import load, save_model

__all__ = ["load", "save_model"]
