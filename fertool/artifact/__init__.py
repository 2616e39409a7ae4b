"""The model file: a header that anything can read, and tensors that execute nothing.

`fertool.artifact.store` needs torch, the other modules do without.
"""
