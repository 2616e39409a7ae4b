"""What `import fertool` offers and what the commands call: whole steps on models and data sets."""
