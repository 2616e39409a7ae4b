"""The model file: a header that anything can read, and tensors that execute nothing.

`fertool.artifact.header` and `fertool.artifact.atomic` do without torch; `fertool.artifact.store` needs it.
"""
