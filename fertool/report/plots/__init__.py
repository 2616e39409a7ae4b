"""Figures as PNG bytes, drawn without a display; they need the extra `plots`."""
