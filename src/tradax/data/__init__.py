"""From files to what an agent may see: bars, features, normaliser, splits."""
