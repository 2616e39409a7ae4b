"""Run a model file of any kind, and measure how fast, how large and how hungry it is."""
