"""The headings of the help that options of several modules stand under."""

LIMIT = "Limit"
OUTPUT = "Output"
