"""The page that runs a model in a browser: its sources under static/, and what assembles them."""
