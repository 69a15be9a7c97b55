"""Training with torch: the only room of the house that needs it (``pip install "musicgen-ext[train]"``)."""
