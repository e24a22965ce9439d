"""Whether what was learned is real: backtests, metrics, posterior, overfitting tests."""
