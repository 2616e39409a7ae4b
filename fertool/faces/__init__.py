"""Faces in pictures: find them, turn them upright, cut them as the training images are,
follow them.
"""
