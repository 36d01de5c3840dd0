"""``python -m condgen_captions``: the same as ``condgen-captions``."""

from condgen_captions.columns import main

main()
