"""Markets as pure functions. Each module has a `Config` and `make(config, market, train)`."""
