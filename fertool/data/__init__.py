"""Face data: one data set type behind all readers."""
