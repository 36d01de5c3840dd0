"""The encoders that come with condgen, written against the public contract alone (installed as condgen.encoders)."""
