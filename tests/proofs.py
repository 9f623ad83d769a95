"""Whole sizes for the proofs, where the environment asks: SEKISHO_PROOFS=full."""

import os


def full() -> bool:
    return os.environ.get("SEKISHO_PROOFS") == "full"
